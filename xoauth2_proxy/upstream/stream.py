"""Sends a message with DATA while its content is still arriving.

Memory stays bounded for any size: a piece is accepted only once the previous one has left our
buffers. RFC 5321 §3.3, §4.1.1.4.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from xoauth2_proxy.upstream.connection import ConnectionLost
from xoauth2_proxy.upstream.envelope import DATA, EnvelopeSender, rcpt_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.smtp.protocol import Envelope, Reply
    from xoauth2_proxy.upstream.connection import Connection


class StreamingTransaction(EnvelopeSender):
    """A transaction in steps: the envelope, `go_ahead`, `write` any number of times, `end`.

    The envelope is sent by `begin` for all recipients at once, or by `recipient` one at a time.

    Every step raises (like `transact`):
        TransactionRefused: the provider refused; the connection may be used again if no content
            was sent.
        UpstreamClosedEarly, UpstreamDropped, OutcomeUnknown: the connection was lost.
    """

    def __init__(self, connection: Connection, envelope: Envelope) -> None:
        super().__init__(connection, envelope)
        self._has_begun = False

    @contextmanager
    def _translating_loss(self) -> Iterator[None]:
        try:
            yield
        except ConnectionLost as error:
            raise self.lost(error) from None

    async def begin(self) -> None:
        """Send MAIL and RCPT for every recipient; all must be accepted."""
        commands = self._envelope_commands(self._envelope.size_bytes, is_ascii=False)
        with self._translating_loss():
            await self._send_envelope(commands)

    async def recipient(self, path: str) -> Reply:
        """Send one RCPT, after MAIL if it is the first, and return the provider's reply."""
        with self._translating_loss():
            if not self._has_begun:
                await self._begin_without_recipients()
            self._connection.send(rcpt_command(self._envelope, path), replies=1)
            return await self._command_reply()

    async def go_ahead(self) -> None:
        """Send DATA and wait for 354."""
        with self._translating_loss():
            self._connection.send(DATA, replies=1)
            await self._expect_go_ahead()

    async def write(self, octets: bytes) -> None:
        """Send content framed for DATA; wait while the provider is slower."""
        with self._translating_loss():
            await self._send_piece(octets)

    async def end(self, octets: bytes) -> Reply:
        """Send the octets that end the message and return the provider's final reply."""
        with self._translating_loss():
            return await self._send_last_piece(octets)

    async def _begin_without_recipients(self) -> None:
        commands = self._envelope_commands(self._envelope.size_bytes, is_ascii=False)
        self._recipients, count = [], len(self._recipients)
        await self._send_envelope(commands[: len(commands) - count])
        self._has_begun = True
