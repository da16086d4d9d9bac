"""The transport of one dialogue with a provider: writes, timeouts, back-pressure, closing.

`dialogue` decides what is sent and what replies mean; this module only moves octets. A step is one
await: it ends when the dialogue has its result.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import UpstreamClosedEarly
from xoauth2_proxy.smtp.protocol import Reply
from xoauth2_proxy.upstream.dialogue import (
    CLOSED,
    COMMAND,
    CONTENT,
    ENVELOPE,
    FINAL,
    FLIGHT,
    GO_AHEAD,
    GRANTED,
    READY,
    Dialogue,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Envelope

CONTENT_TAKEN = Reply(354, "", ("more may come",))  # of `room`; no provider said it
# An older connection may have been closed by the provider without our knowledge.
FRESH_SECONDS = 5.0
# How long each state may last without progress.
_PATIENCE_SECONDS = {
    COMMAND: 300.0,  # RFC 5321 §4.5.3.2: 5 minutes for MAIL and RCPT, 2 for DATA
    ENVELOPE: 300.0,
    GO_AHEAD: 300.0,
    GRANTED: 180.0,
    CONTENT: 180.0,  # RFC 5321 §4.5.3.2.5
    FLIGHT: 300.0,  # RFC 5321 §4.5.3.2.6 allows 10 minutes; clients give up sooner
    FINAL: 300.0,
}
_WRITE_BUFFER_BYTES = 65_536  # the event loops' default for TLS is 512 KiB a connection


class Connection(asyncio.Protocol):
    """A connection to a provider; authenticated once `Connector` returns it."""

    def __init__(self, transport: asyncio.Transport, extensions: Mapping[str, str]) -> None:
        self.dialogue = Dialogue(extensions)
        self.opened_at = self.last_used_at = time.monotonic()
        self.credential = b""  # what it was opened with; the pool sets it (`Pool.lease`)
        self.expires_at = math.inf  # when it may carry no further transaction; the pool sets it
        self.yields_at = 0.0  # when it may make room for another worker's; the pool sets it too
        self.on_gone: Callable[[Connection], None] | None = None
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._is_paused = False  # the transport's buffer is full
        self._step: asyncio.Future[Reply] | None = None  # of the step under way
        self._room: asyncio.Future[None] | None = None  # done when the transport takes octets again
        self._deadline = math.inf  # of the wait under way
        self._command_seconds = _PATIENCE_SECONDS[COMMAND]
        self._timer: asyncio.TimerHandle | None = None
        # Content waits here, not in the transport, while the provider takes it slowly.
        transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        dialogue = self.dialogue
        state = dialogue.ending or f"{dialogue.awaited_replies} replies awaited"
        return f"<Connection {state}, {dialogue.transactions} transactions>"

    @property
    def is_usable(self) -> bool:
        """Whether a new transaction can begin: alive, and no reply awaited."""
        return self.dialogue.state is READY

    @property
    def is_closed(self) -> bool:
        """Whether the dialogue has ended; a step then fails, and nothing of it is sent."""
        return self.dialogue.state is CLOSED

    @property
    def idle_seconds(self) -> float:
        """How long ago the last transaction ended, or the connection was opened."""
        return time.monotonic() - self.last_used_at

    # Steps. Each returns a future at once: of the reply, or of an `UpstreamError` if the connection
    # is lost – `UpstreamClosedEarly` before content left, `UpstreamDropped` amid it,
    # `OutcomeUnknown` after the last octet. One step at a time.

    def command(self, line: bytes, timeout_seconds: float) -> asyncio.Future[Reply]:
        """Send one command; the future is of its reply."""
        if not self.is_closed:
            self.dialogue.command(line)
        return self._started(timeout_seconds)

    def send_message(self, envelope: Envelope, content: Content) -> asyncio.Future[Reply]:
        """Send a whole message; the future is of the final reply, or of the envelope's refusal.

        Raises `ExtensionMissing` if the provider lacks what the message needs.
        """
        if not self.is_closed:
            is_fresh = self.idle_seconds < FRESH_SECONDS
            self.dialogue.send_message(envelope, content, is_fresh=is_fresh)
        return self._started()

    def begin(self, envelope: Envelope, recipients: list[str]) -> asyncio.Future[Reply]:
        """Send MAIL and RCPT for these recipients; the future is of a 2yz or of the refusal.

        Raises `ExtensionMissing`.
        """
        if not self.is_closed:
            self.dialogue.begin(envelope, recipients)
        return self._started()

    def add_recipient(self, envelope: Envelope) -> asyncio.Future[Reply]:
        """Send RCPT for the envelope's last recipient; the future is of its reply."""
        if not self.is_closed:
            self.dialogue.add_recipient(envelope)
        return self._started()

    def ask_for_go_ahead(self) -> asyncio.Future[Reply]:
        """Send DATA; the future is of its reply."""
        if not self.is_closed:
            self.dialogue.ask_for_go_ahead()
        return self._started()

    def add_content(self, octets: bytes) -> bool:
        """Send content after a 354. True: more may follow at once. False: await `room` first."""
        if not self.is_closed:
            self.dialogue.add_content(octets)
            self._write()
        return not (self._is_paused or self.is_closed)

    async def room(self) -> Reply:
        """Wait while the provider takes the content slowly.

        Return `CONTENT_TAKEN`, or the reply of a provider that refuses the content before its end.
        Raises `UpstreamError`.
        """
        if self._is_paused and self.dialogue.state is CONTENT:
            self._room = self._loop.create_future()
            self._watch_clock()
            try:
                await self._room
            finally:
                self._room, self._deadline = None, math.inf
        return await self._started() if self.is_closed else CONTENT_TAKEN

    def end_content(self, octets: bytes) -> asyncio.Future[Reply]:
        """Send the octets that end the content; the future is of the final reply."""
        if not self.is_closed:
            self.dialogue.end_content(octets)
        return self._started()

    # Closing.

    def abort(self, reason: str = "aborted") -> None:
        """Close at once, without a word."""
        if not self.is_closed:
            self.dialogue.lose(reason)
            self._transport.abort()
            self._end()

    def close(self) -> None:
        """Say QUIT and close, without waiting for the answer (RFC 5321 §4.1.1.10 allows it)."""
        if self.is_usable:
            self._transport.write(b"QUIT\r\n")
            self.dialogue.lose("closed")
            self._transport.close()
            self._end()
        else:
            self.abort("closed")

    # The transport's side.

    def data_received(self, data: bytes) -> None:
        """Pass octets from the provider to the dialogue."""
        dialogue = self.dialogue
        awaited = dialogue.awaited_replies
        dialogue.feed(data)
        if dialogue.state is CLOSED:
            self._transport.abort()
            self._end()
        elif dialogue.result is not None:
            self._resolve()
            if dialogue.is_spent:
                self.close()
        elif self._write() or dialogue.awaited_replies != awaited:
            self._progressed()  # part of a reply is no progress

    def eof_received(self) -> None:
        """The provider hung up."""
        self.abort("closed by the provider")

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone."""
        self.abort(f"lost: {exc}" if exc else "closed by the provider")

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The transport takes octets again."""
        self._is_paused = False
        self._write()
        self._progressed()
        if not self._is_paused and self._room is not None and not self._room.done():
            self._room.set_result(None)

    def _write(self) -> bool:
        """Write what the dialogue has, as far as the transport takes it; return whether it did."""
        has_written = False
        while not self._is_paused and (octets := self.dialogue.take()):
            self._transport.write(octets)
            has_written = True
        return has_written

    def _end(self) -> None:
        """Tell everyone who waits that the dialogue has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._resolve()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone(self)

    # Waiting.

    def _started(self, timeout_seconds: float | None = None) -> asyncio.Future[Reply]:
        """Write what a step sends; return the future of its result."""
        self._write()
        future = self._step = self._loop.create_future()
        if self.dialogue.result is not None or self.is_closed:
            self._resolve()
        else:
            self._command_seconds = timeout_seconds or _PATIENCE_SECONDS[COMMAND]
            self._watch_clock()
        return future

    def _resolve(self) -> None:
        step, self._step = self._step, None
        self._deadline = math.inf
        if step is None or step.done():
            return
        result, self.dialogue.result = self.dialogue.result, None
        if isinstance(result, Reply):
            step.set_result(result)
        else:
            step.set_exception(result or UpstreamClosedEarly(self.dialogue.ending))

    def _progressed(self) -> None:
        """Give the present state its full time again."""
        if self._deadline != math.inf and self.dialogue.state in _PATIENCE_SECONDS:
            self._watch_clock()

    def _watch_clock(self) -> None:
        state = self.dialogue.state
        is_command = state is COMMAND
        seconds = self._command_seconds if is_command else _PATIENCE_SECONDS[state]
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        """Abort if a wait has lasted too long. One timer serves many waits: it moves on."""
        self._timer = None
        if self._loop.time() >= self._deadline:
            self.abort("timed out")
        elif self._deadline != math.inf:
            self._set_timer()
