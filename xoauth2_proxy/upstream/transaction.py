"""One mail transaction on an open connection, in as few round trips as its provider allows.

- One round trip: `MAIL RCPT BDAT-LAST content` in one flight; one recipient, CHUNKING, PIPELINING,
  and a connection used a moment ago.
- Two: `MAIL RCPT…`, then `BDAT-LAST content`; or `MAIL RCPT… DATA`, then the content.
- Without PIPELINING: one round trip a command.

Nothing is delivered to anyone unless every recipient was accepted. RFC 5321 §3.3, 2920, 3030.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy import replies
from xoauth2_proxy.errors import (
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp import Reply
from xoauth2_proxy.upstream.connection import ConnectionGone

if TYPE_CHECKING:
    from xoauth2_proxy.content import Content
    from xoauth2_proxy.smtp import Envelope
    from xoauth2_proxy.upstream.connection import Connection

# An older connection may have been closed by the provider without our knowing: content that left
# on it could neither be retried nor called delivered.
FRESH_SECONDS = 5.0
# Content that may travel before its envelope was accepted: wasted if it was not.
ONE_FLIGHT_BYTES = 262_144
_PIECE_BYTES = 65_536  # content goes out in pieces, each once the one before has left our buffers
_COMMAND_SECONDS = 300.0  # RFC 5321 §4.5.3.2: 5 minutes for MAIL and RCPT, 2 for DATA
_PIECE_SECONDS = 180.0  # RFC 5321 §4.5.3.2.5
_FINAL_REPLY_SECONDS = 300.0  # RFC 5321 §4.5.3.2.6 allows 10 minutes; our client's end comes first


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """A reply that ends the transaction; the message went to nobody."""

    reply: Reply


async def transact(connection: Connection, envelope: Envelope, content: Content) -> Reply:
    """Send one message and return the provider's final reply, positive or not.

    After a refusal the connection can be used again, unless it says otherwise itself.

    Raises:
        UpstreamClosedEarly: the connection was lost, or closed with 421, before content left it.
        UpstreamDropped: it was lost while content was under way.
        OutcomeUnknown: it was lost after the last octet.
    """
    try:
        mail = _mail_command(connection, envelope, content)
        reply = await _Transaction(connection, envelope, content).run(mail)
    except Refused as refusal:
        reply = refusal.reply
    if reply.code == 421 or replies.is_about_session(reply):
        connection.close()
    return reply


class _Transaction:
    def __init__(self, connection: Connection, envelope: Envelope, content: Content) -> None:
        self._connection = connection
        self._recipients = envelope.forward_paths
        self._content = content
        self._lost: type[UpstreamError] = UpstreamClosedEarly  # what losing the connection means

    async def run(self, mail: bytes) -> Reply:
        connection = self._connection
        connection.transactions += 1
        may_pipeline = "PIPELINING" in connection.extensions
        may_chunk = "CHUNKING" in connection.extensions
        is_fresh = connection.idle_seconds < FRESH_SECONDS
        commands = [mail, *(b"RCPT TO:<%b>\r\n" % path.encode() for path in self._recipients)]
        if connection.needs_reset:
            commands.insert(0, b"RSET\r\n")
        try:
            if not may_pipeline:
                return await self._in_lock_step(commands, may_chunk=may_chunk)
            is_small = len(self._content.octets) <= ONE_FLIGHT_BYTES
            if may_chunk and is_fresh and is_small and len(self._recipients) == 1:
                return await self._in_one_flight(commands)
            return await self._in_two_flights(commands, may_chunk=may_chunk)
        except ConnectionGone as error:
            raise self._lost(str(error)) from None

    async def _in_one_flight(self, commands: list[bytes]) -> Reply:
        octets = self._content.for_bdat()
        commands = [*commands, b"BDAT %d LAST\r\n" % len(octets)]
        self._connection.send(b"".join(commands) + octets, replies=len(commands))
        self._lost = OutcomeUnknown
        try:
            await self._envelope_replies()
        except Refused:
            # BDAT is answered all the same; the first refusal is the reason.
            with suppress(ConnectionGone):
                await self._final_reply()
            raise
        return await self._final_reply()

    async def _in_two_flights(self, commands: list[bytes], *, may_chunk: bool) -> Reply:
        if not may_chunk:
            commands = [*commands, b"DATA\r\n"]
        self._connection.send(b"".join(commands), replies=len(commands))
        try:
            await self._envelope_replies()
        except Refused:
            if not may_chunk:
                await self._take_back_data()
            raise
        if may_chunk:
            return await self._send_chunk()
        await self._expect_go_ahead()
        return await self._send_data()

    async def _in_lock_step(self, commands: list[bytes], *, may_chunk: bool) -> Reply:
        refusals: list[tuple[str, Reply]] = []
        for number, command in enumerate(commands):
            self._connection.send(command, replies=1)
            reply = await self._connection.reply(_COMMAND_SECONDS)
            recipient = number - (len(commands) - len(self._recipients))
            if recipient >= 0:
                if not reply.is_positive:
                    refusals.append((self._recipients[recipient], reply))
            elif command == b"RSET\r\n":
                self._check_reset(reply)
            else:
                self._check_sender(reply)
        self._check_recipients(refusals)
        if may_chunk:
            return await self._send_chunk()
        self._connection.send(b"DATA\r\n", replies=1)
        await self._expect_go_ahead()
        return await self._send_data()

    async def _envelope_replies(self) -> None:
        """Read what RSET, MAIL and each RCPT drew, all of it. Raises `Refused`."""
        connection = self._connection
        if connection.needs_reset:
            self._check_reset(await connection.reply(_COMMAND_SECONDS))
        sender = await connection.reply(_COMMAND_SECONDS)
        if sender.code == 421:
            self._check_sender(sender)
        answers = [(path, await connection.reply(_COMMAND_SECONDS)) for path in self._recipients]
        self._check_sender(sender)
        self._check_recipients([(path, reply) for path, reply in answers if not reply.is_positive])

    def _check_reset(self, reply: Reply) -> None:
        if reply.code == 421:
            raise UpstreamClosedEarly(f"RSET: {reply}", reply)
        self._connection.needs_reset = False

    def _check_sender(self, reply: Reply) -> None:
        if reply.code == 421:
            # The provider is hanging up; nothing behind a refused MAIL can have been accepted.
            raise UpstreamClosedEarly(f"MAIL: {reply}", reply)
        if not reply.is_positive:
            raise Refused(reply)
        self._connection.needs_reset = True  # until the transaction ends well

    def _check_recipients(self, refusals: list[tuple[str, Reply]]) -> None:
        if refusals:
            raise Refused(_joined(refusals, of=len(self._recipients)))

    async def _expect_go_ahead(self) -> None:
        reply = await self._connection.reply(_COMMAND_SECONDS)
        if reply.code < 400 and reply.code != 354:
            # Out of order: a 2yz here may never pass for the message's.
            raise ConnectionGone(f"DATA answered {reply}")
        if reply.code != 354:
            raise Refused(reply)

    async def _take_back_data(self) -> None:
        """Undo a DATA sent along with an envelope that was refused.

        Where it was granted, even an empty message would reach the recipients that were accepted,
        so the connection is dropped.
        """
        reply = await self._connection.reply(_COMMAND_SECONDS)
        if reply.code == 354:
            self._connection.abort("envelope refused in part")

    async def _send_chunk(self) -> Reply:
        octets = self._content.for_bdat()
        return await self._send_last(b"BDAT %d LAST\r\n" % len(octets) + octets)

    async def _send_data(self) -> Reply:
        return await self._send_last(self._content.for_data())

    async def _send_last(self, octets: bytes) -> Reply:
        """Send the octets that end the message and return the reply to it."""
        pieces = [octets[at : at + _PIECE_BYTES] for at in range(0, len(octets), _PIECE_BYTES)]
        for piece in pieces[:-1]:
            self._connection.send(piece, replies=0)
            self._lost = UpstreamDropped
            await self._connection.drain(_PIECE_SECONDS)
        self._connection.send(pieces[-1], replies=1)
        self._lost = OutcomeUnknown
        return await self._final_reply()

    async def _final_reply(self) -> Reply:
        reply = await self._connection.reply(_FINAL_REPLY_SECONDS)
        if reply.is_positive:
            self._connection.needs_reset = False
        return reply


def _mail_command(connection: Connection, envelope: Envelope, content: Content) -> bytes:
    """Return the MAIL command with the parameters this provider understands. Raises `Refused`."""
    offered = connection.extensions
    parameters = ""
    if "SIZE" in offered:
        parameters += f" SIZE={len(content.octets)}"
    if envelope.body_8bit:
        if "8BITMIME" in offered:
            parameters += " BODY=8BITMIME"
        elif not content.octets.isascii():
            raise Refused(replies.EIGHT_BIT_UNSUPPORTED)
    if envelope.smtputf8:
        if "SMTPUTF8" in offered:
            parameters += " SMTPUTF8"
        else:
            paths = (envelope.reverse_path, *envelope.forward_paths)
            if not (content.octets.isascii() and all(path.isascii() for path in paths)):
                raise Refused(replies.SMTPUTF8_UNSUPPORTED)
    return f"MAIL FROM:<{envelope.reverse_path}>{parameters}\r\n".encode()


def _joined(refusals: list[tuple[str, Reply]], *, of: int) -> Reply:
    """Return one reply for the recipients refused: a permanent refusal outweighs transient ones.

    A lone recipient's reply stays as it is; otherwise each refused recipient gets a line of its
    own with the provider's words.
    """
    _, first = next((one for one in refusals if not one[1].is_transient), refusals[0])
    if of == 1:
        return first
    lines = tuple(f"<{path}>: {reply}" for path, reply in refusals)
    return Reply(first.code, first.enhanced, (*lines, "The message was sent to no one"))
