"""Sends a transaction's envelope and final octets, for whole and streamed messages alike.

RFC 5321 §3.3, §4.1.4; RFC 2920. A refusal ends the transaction and leaves the connection usable.
What a lost connection means depends on the stage, and is kept in `_lost`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy import replies
from xoauth2_proxy.errors import (
    ExtensionMissing,
    OutcomeUnknown,
    UpstreamClosedEarly,
    UpstreamDropped,
    UpstreamError,
)
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.upstream.connection import ConnectionLost

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Envelope
    from xoauth2_proxy.upstream.connection import Connection

_COMMAND_SECONDS = 300.0  # RFC 5321 §4.5.3.2: 5 minutes for MAIL and RCPT, 2 for DATA
_PIECE_SECONDS = 180.0  # RFC 5321 §4.5.3.2.5
_FINAL_REPLY_SECONDS = 300.0  # RFC 5321 §4.5.3.2.6 allows 10 minutes; our client gives up sooner

RSET = b"RSET\r\n"
DATA = b"DATA\r\n"


class TransactionRefused(Exception):
    """A reply ended the transaction; no recipient gets the message."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class EnvelopeSender:
    """The steps that all transactions on a connection share."""

    def __init__(self, connection: Connection, envelope: Envelope) -> None:
        self._connection = connection
        self._envelope = envelope
        self._recipients = envelope.forward_paths
        self._lost: type[UpstreamError] = UpstreamClosedEarly  # if the connection is lost now

    def lost(self, error: ConnectionLost) -> UpstreamError:
        """Return the error that a lost connection means at this stage."""
        return self._lost(str(error))

    def _offers(self, keyword: str) -> bool:
        return keyword in self._connection.extensions

    def _envelope_commands(self, content_bytes: int, *, is_ascii: bool) -> list[bytes]:
        """Return RSET if needed, MAIL, and a RCPT for each recipient.

        Raises `ExtensionMissing`.
        """
        commands = [self._mail_command(content_bytes, is_ascii=is_ascii)]
        if self._connection.needs_reset:
            commands.insert(0, RSET)
        self._connection.transactions += 1
        return commands + [rcpt_command(self._envelope, path) for path in self._recipients]

    def _mail_command(self, content_bytes: int, *, is_ascii: bool) -> bytes:
        """Return MAIL with the parameters that this provider supports.

        `content_bytes` is 0 and `is_ascii` False while the content is not known. Raises
        `ExtensionMissing` if the provider lacks what the message needs (RFC 6152 §3, RFC 6531
        §3.2, RFC 3461 §4).
        """
        envelope = self._envelope
        parameters = ""
        if content_bytes and self._offers("SIZE"):
            parameters += f" SIZE={content_bytes}"
        if envelope.body_8bit:
            if self._offers("8BITMIME"):
                parameters += " BODY=8BITMIME"
            elif not is_ascii:
                raise ExtensionMissing(replies.EIGHT_BIT_UNSUPPORTED)
        if envelope.smtputf8:
            paths = (envelope.reverse_path, *envelope.forward_paths)
            if self._offers("SMTPUTF8"):
                parameters += " SMTPUTF8"
            elif not (is_ascii and all(path.isascii() for path in paths)):
                raise ExtensionMissing(replies.SMTPUTF8_UNSUPPORTED)
        if envelope.needs_dsn:
            parameters += self._dsn_parameters()
        return f"MAIL FROM:<{envelope.reverse_path}>{parameters}\r\n".encode()

    def _dsn_parameters(self) -> str:
        if not self._offers("DSN"):
            raise ExtensionMissing(replies.DSN_UNSUPPORTED)
        ret, envid = self._envelope.ret, self._envelope.envid
        return (f" RET={ret}" if ret else "") + (f" ENVID={envid}" if envid else "")

    async def _command_reply(self) -> Reply:
        return await self._connection.reply(_COMMAND_SECONDS)

    async def _send_envelope(self, commands: list[bytes]) -> None:
        """Send the envelope; return once every command is accepted. Raises `TransactionRefused`."""
        if self._offers("PIPELINING"):
            self._connection.send(b"".join(commands), replies=len(commands))
            await self._envelope_replies()
            return
        refusals: list[tuple[str, Reply]] = []
        before_recipients = len(commands) - len(self._recipients)
        for number, command in enumerate(commands):
            self._connection.send(command, replies=1)
            reply = await self._command_reply()
            if number < before_recipients:
                self._check(command, reply)
            elif not reply.is_positive:
                refusals.append((self._recipients[number - before_recipients], reply))
        self._check_recipients(refusals)

    async def _envelope_replies(self) -> None:
        """Read all replies to RSET, MAIL and each RCPT. Raises `TransactionRefused`."""
        if self._connection.needs_reset:
            self._check(RSET, await self._command_reply())
        sender = await self._command_reply()
        if sender.code == 421:
            self._check(b"MAIL", sender)
        answers = [(path, await self._command_reply()) for path in self._recipients]
        self._check(b"MAIL", sender)
        self._check_recipients([(path, reply) for path, reply in answers if not reply.is_positive])

    def _check(self, command: bytes, reply: Reply) -> None:
        """Check the reply to RSET or MAIL. Raises `TransactionRefused`, `UpstreamClosedEarly`."""
        if reply.code == 421:
            # The provider is closing; no later command can have been accepted.
            raise UpstreamClosedEarly(f"{command[:4].decode()}: {reply}", reply)
        if command == RSET:
            self._connection.needs_reset = False
            return
        if not reply.is_positive:
            raise TransactionRefused(reply)
        self._connection.needs_reset = True  # until the transaction ends normally

    def _check_recipients(self, refusals: list[tuple[str, Reply]]) -> None:
        if refusals:
            raise TransactionRefused(_joined(refusals, of=len(self._recipients)))

    async def _expect_go_ahead(self) -> None:
        """Read the reply to DATA. Raises `TransactionRefused`."""
        reply = await self._command_reply()
        if reply.code == 354:
            return
        if reply.code < 400:
            # Out of order: a 2yz here must never be taken for the reply to the message.
            raise ConnectionLost(f"DATA answered {reply}")
        raise TransactionRefused(reply)

    async def _send_piece(self, octets: bytes) -> None:
        """Send content that is not the last, and wait while the provider is slower."""
        self._check_early_refusal()
        self._connection.send(octets, replies=0)
        self._lost = UpstreamDropped
        await self._connection.drain(_PIECE_SECONDS)
        self._check_early_refusal()

    async def _send_last_piece(self, octets: bytes) -> Reply:
        """Send the octets that end the message and return the reply to it."""
        self._check_early_refusal()
        self._connection.send(octets, replies=1)
        self._lost = OutcomeUnknown
        return await self._final_reply()

    def _check_early_refusal(self) -> None:
        refusal = self._connection.early_refusal
        if refusal is not None:
            self._connection.abort("content refused before its end")
            raise TransactionRefused(refusal)

    async def _final_reply(self) -> Reply:
        """Read the reply to the whole message."""
        reply = await self._connection.reply(_FINAL_REPLY_SECONDS)
        if reply.is_positive:
            # RFC 3463 §3.2: x.1.z concerns an address, so this is a reply to MAIL or RCPT.
            if reply.code != 250 or reply.enhanced.startswith("2.1."):
                raise ConnectionLost(f"not the reply to a message: {reply}")
            self._connection.needs_reset = False
        return reply


def rcpt_command(envelope: Envelope, path: str) -> bytes:
    """Return the RCPT command for one recipient, with its parameters."""
    return f"RCPT TO:<{path}>{envelope.notifications.get(path, '')}\r\n".encode()


def is_spent(reply: Reply) -> bool:
    """Whether `reply` says that the connection can carry no more transactions."""
    return reply.code in {421, 432} or replies.is_about_session(reply)


def close_if_spent(connection: Connection, reply: Reply) -> None:
    """Close a connection if `reply` says that it can carry no more transactions."""
    if is_spent(reply):
        connection.close()


def _joined(refusals: list[tuple[str, Reply]], *, of: int) -> Reply:
    """Return one reply for all refused recipients, permanent if any refusal is.

    The reply for an only recipient is unchanged; otherwise each refused recipient gets a line
    with the provider's text.
    """
    _, first = next((one for one in refusals if not one[1].is_transient), refusals[0])
    if of == 1:
        return first
    lines = tuple(f"<{path}>: {reply}" for path, reply in refusals)
    return Reply(first.code, first.enhanced, (*lines, "The message was sent to no one"))
