"""Sends a message received whole, in as few round trips as its provider allows.

- One round trip: `MAIL RCPT BDAT-LAST content` in one flight; one recipient, CHUNKING, PIPELINING,
  and a connection used a moment ago.
- Two: `MAIL RCPT…`, then `BDAT-LAST content`; or `MAIL RCPT… DATA`, then the content.
- Without PIPELINING: one round trip per command.

Nothing is delivered to anyone unless every recipient was accepted. RFC 5321 §3.3, 2920, 3030.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import OutcomeUnknown
from xoauth2_proxy.upstream.connection import ConnectionLost
from xoauth2_proxy.upstream.envelope import DATA, EnvelopeSender, TransactionRefused, close_if_spent

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Envelope, Reply
    from xoauth2_proxy.upstream.connection import Connection

# The provider may have closed an older connection without our knowledge; content sent on it could
# neither be retried nor considered delivered.
FRESH_SECONDS = 5.0
# Content that may be sent before its envelope is accepted, and wasted if it is not.
ONE_FLIGHT_BYTES = 262_144
_PIECE_BYTES = 65_536  # content is sent in pieces, each once the previous one has left our buffers


async def transact(connection: Connection, envelope: Envelope, content: Content) -> Reply:
    """Send one message and return the provider's final reply, positive or not.

    After a refusal the connection can be used again if it is still `is_usable`.

    Raises:
        UpstreamClosedEarly: the connection was lost, or closed with 421, before content left it.
        UpstreamDropped: it was lost while content was being sent.
        OutcomeUnknown: it was lost after the last octet.
        ExtensionMissing: the provider lacks an extension the message needs; nothing was sent.
    """
    transaction = _WholeTransaction(connection, envelope, content)
    try:
        reply = await transaction.run()
    except TransactionRefused as refusal:
        reply = refusal.reply
    except ConnectionLost as error:
        raise transaction.lost(error) from None
    close_if_spent(connection, reply)
    return reply


class _WholeTransaction(EnvelopeSender):
    def __init__(self, connection: Connection, envelope: Envelope, content: Content) -> None:
        super().__init__(connection, envelope)
        self._content = content

    async def run(self) -> Reply:
        octets = self._content.octets
        commands = self._envelope_commands(len(octets), is_ascii=octets.isascii())
        is_fresh = self._connection.idle_seconds < FRESH_SECONDS
        is_alone = len(self._recipients) == 1
        may_chunk, may_pipeline = self._offers("CHUNKING"), self._offers("PIPELINING")
        if may_chunk and may_pipeline and is_fresh and is_alone and len(octets) <= ONE_FLIGHT_BYTES:
            return await self._in_one_flight(commands)
        if may_pipeline and not may_chunk:
            return await self._with_data_in_first_flight(commands)
        await self._send_envelope(commands)
        return await (self._send_chunk() if may_chunk else self._send_data())

    async def _in_one_flight(self, commands: list[bytes]) -> Reply:
        octets = self._content.for_bdat()
        commands = [*commands, b"BDAT %d LAST\r\n" % len(octets)]
        self._connection.send(b"".join(commands) + octets, replies=len(commands))
        self._lost = OutcomeUnknown
        try:
            await self._envelope_replies()
        except TransactionRefused:
            # BDAT gets a reply as well, but the first refusal is the reason.
            with suppress(ConnectionLost):
                await self._final_reply()
            raise
        return await self._final_reply()

    async def _with_data_in_first_flight(self, commands: list[bytes]) -> Reply:
        self._connection.send(b"".join([*commands, DATA]), replies=len(commands) + 1)
        try:
            await self._envelope_replies()
        except TransactionRefused:
            await self._take_back_data()
            raise
        await self._expect_go_ahead()
        return await self._send_last(self._content.for_data())

    async def _take_back_data(self) -> None:
        """Handle the reply to a DATA that was pipelined after a refused envelope.

        If it is 354, even empty content would be delivered to the accepted recipients, so the
        connection is aborted.
        """
        reply = await self._command_reply()
        if reply.code == 354:
            self._connection.abort("envelope refused in part")

    async def _send_chunk(self) -> Reply:
        octets = self._content.for_bdat()
        return await self._send_last(b"BDAT %d LAST\r\n" % len(octets) + octets)

    async def _send_data(self) -> Reply:
        self._connection.send(DATA, replies=1)
        await self._expect_go_ahead()
        return await self._send_last(self._content.for_data())

    async def _send_last(self, octets: bytes) -> Reply:
        """Send the octets that end the message and return the reply to it."""
        pieces = [octets[at : at + _PIECE_BYTES] for at in range(0, len(octets), _PIECE_BYTES)]
        for piece in pieces[:-1]:
            await self._send_piece(piece)
        return await self._send_last_piece(pieces[-1])
