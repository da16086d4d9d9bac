"""A lean SMTP client: it may cost little, for it shares the machine with what is measured.

It waits for each reply as an ordinary client does, and takes none but the one it expects.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from typing import TYPE_CHECKING, cast

from bench.cost.plan import PASSWORD, RECIPIENT, mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MAX_COMMAND_BYTES = 512  # RFC 5321 §4.5.3.1.4
_MAX_REPLY_BYTES = 64 * 1024
_SHOWN_BYTES = 300

Step = tuple[bytes, bytes]  # what is sent, and the first digits of the replies awaited, in order


class LoadFailed(Exception):
    """The relay did not answer as it must; the text is what it said."""


class Client(asyncio.Protocol):
    """One connection to a relay. Nothing but one coroutine at a time may use it."""

    __slots__ = ("_awaited", "_buffer", "_done", "_is_lost", "_steps", "_transport")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None  # None: not yet, or gone
        self._is_lost = False
        self._buffer = b""
        self._awaited = b""  # first digits of the replies still to come
        self._steps: list[Step] = []  # still to be sent, the next one last
        self._done: Callable[[LoadFailed | None], None] = lambda _: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with the steps that are waiting."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        if self._steps:
            self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way."""
        self._transport, self._is_lost = None, True
        if self._awaited:
            self._finish(LoadFailed("the relay closed the connection"))

    def data_received(self, data: bytes) -> None:
        """Take replies; send the next step when the last one's are there."""
        if self._buffer:
            data = self._buffer + data
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            if data[start + 3 : start + 4] != b"-":  # the last line of a reply
                if data[start : start + 1] != self._awaited[:1]:
                    words = data[start : start + _SHOWN_BYTES].decode("utf-8", "replace").strip()
                    self._finish(LoadFailed(words))
                    return
                self._awaited = self._awaited[1:]
            start = end + 1
        self._buffer = data[start:]
        if len(self._buffer) > _MAX_REPLY_BYTES:
            self._finish(LoadFailed("a reply without an end"))
        elif not self._awaited:
            self._advance()

    def start(self, steps: Sequence[Step], done: Callable[[LoadFailed | None], None]) -> None:
        """Carry out the steps, once there is a connection, then call `done` with what failed."""
        self._steps = list(reversed(steps))
        self._done = done
        if self._transport is not None or self._is_lost:
            self._advance()

    def carry_out(self, *steps: Step) -> asyncio.Future[None]:
        """Carry out the steps; the future fails with `LoadFailed` when a reply is another."""
        finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(failure: LoadFailed | None) -> None:
            if not finished.done():
                if failure is None:
                    finished.set_result(None)
                else:
                    finished.set_exception(failure)

        self.start(steps, done)
        return finished

    def send(self, octets: bytes) -> None:
        """Send octets that draw no reply."""
        if self._transport is not None:
            self._transport.write(octets)

    def close(self) -> None:
        """Close at once."""
        self._awaited = b""
        if self._transport is not None:
            self._transport.abort()

    def _advance(self) -> None:
        if not self._steps:
            self._finish(None)
        elif self._transport is None:
            self._finish(LoadFailed("the relay closed the connection"))
        else:
            octets, self._awaited = self._steps.pop()
            if octets:
                self._transport.write(octets)

    def _finish(self, failure: LoadFailed | None) -> None:
        done, self._done = self._done, lambda _: None
        self._awaited = b""
        self._steps = []
        done(failure)


class Entrance:
    """How clients of one relay come in and what they send."""

    def __init__(
        self,
        address: tuple[str, int],
        token_for: Callable[[str], str] | None,
        wire: bytes,
        *,
        is_pipelined: bool,
    ) -> None:
        self._address = address
        self._token_for = token_for  # None: AUTH PLAIN with the sitting's password
        recipient = b"RCPT TO:<%s>\r\n" % RECIPIENT.encode()
        sender = b"MAIL FROM:<%s>\r\n" % mailbox(0).encode()
        self.until_content: tuple[Step, ...] = (
            ((sender + recipient + b"DATA\r\n", b"223"),)
            if is_pipelined
            else ((sender, b"2"), (recipient, b"2"), (b"DATA\r\n", b"3"))
        )
        self.message: tuple[Step, ...] = (*self.until_content, (wire, b"2"))

    async def open(self, login: str) -> Client:
        """Return a client that has logged in.

        Raises:
            LoadFailed: it was not let in.
        """
        loop = asyncio.get_running_loop()
        client = Client()
        opened = client.carry_out(*self._opening(login))  # the greeting waits for nobody
        try:
            await loop.create_connection(lambda: client, *self._address)
            await opened
        except OSError as error:
            raise LoadFailed(f"no connection: {error}") from None
        except BaseException:
            client.close()
            raise
        return client

    async def close(self, client: Client) -> None:
        """Say goodbye, and wait for the answer.

        Raises:
            LoadFailed: it was not answered.
        """
        try:
            await client.carry_out((b"QUIT\r\n", b"2"))
        finally:
            client.close()

    def _opening(self, login: str) -> list[Step]:
        hello = (b"EHLO client.invalid\r\n", b"2")
        if self._token_for is None:
            response = b64encode(f"\0{login}\0{PASSWORD}".encode())
            return [(b"", b"2"), hello, (b"AUTH PLAIN %s\r\n" % response, b"2")]
        secret = self._token_for(login)
        response = b64encode(f"user={login}\1auth=Bearer {secret}\1\1".encode())
        line = b"AUTH XOAUTH2 %s\r\n" % response
        if len(line) <= _MAX_COMMAND_BYTES:
            return [(b"", b"2"), hello, (line, b"2")]
        return [(b"", b"2"), hello, (b"AUTH XOAUTH2\r\n", b"3"), (response + b"\r\n", b"2")]
