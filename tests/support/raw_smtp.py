"""An SMTP client that sends exactly what it is told and shows exactly what it gets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from typing import TYPE_CHECKING, Self

from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.sandbox import Sandbox

MAILBOX = MOCK_MAILBOXES[0]


def xoauth2(mailbox: str, token: str) -> bytes:
    return base64.b64encode(f"user={mailbox}\x01auth=Bearer {token}\x01\x01".encode())


class RawSmtp:
    """One connection to a sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self, context: ssl.SSLContext | None = None) -> Self:
        """Connect; the greeting is left to read."""
        host, port = self.sandbox.smtp_address
        name = "localhost" if context else None
        self._reader, self._writer = await asyncio.open_connection(
            host, port, ssl=context, server_hostname=name
        )
        return self

    async def begin(self) -> Self:
        """Connect, start TLS and introduce oneself."""
        await self.connect()
        assert (await self.reply()).startswith("220 ")
        await self.command("EHLO client.example")
        assert (await self.command("STARTTLS")).startswith("220 ")
        await self.start_tls()
        await self.command("EHLO client.example")
        return self

    async def log_in(self, mailbox: str = MAILBOX) -> Self:
        """`begin`, and authenticate."""
        await self.begin()
        token = self.sandbox.tokens.mint(mailbox)
        assert await self.authenticate(mailbox, token) == "235 2.7.0 Accepted\r\n"
        return self

    async def authenticate(self, mailbox: str, token: str) -> str:
        """Return the last reply of AUTH XOAUTH2 in two steps, the error exchange included."""
        assert await self.command("AUTH XOAUTH2") == "334 \r\n"
        answer = await self.command(xoauth2(mailbox, token).decode())
        return await self.command("") if answer.startswith("334 ") else answer

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.sandbox.ca_file))

    async def start_tls(self) -> None:
        await self._writer.start_tls(self.context(), server_hostname="localhost")

    def send(self, octets: bytes) -> None:
        self._writer.write(octets)

    async def can_push(self, size_bytes: int, seconds: float, octets: bytes = b"x") -> bool:
        """Whether the server takes so much in so long; more than the kernel holds, please."""
        piece = octets * (60_000 // len(octets))
        try:
            async with asyncio.timeout(seconds):
                for _ in range(size_bytes // len(piece)):
                    self.send(piece)
                    await self._writer.drain()
        except TimeoutError:
            return False
        return True

    async def command(self, line: str) -> str:
        """Send one line and return its reply."""
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    async def reply(self) -> str:
        """Return one whole reply; "" when the server has closed."""
        lines = []
        while line := (await self._reader.readline()).decode():
            lines.append(line)
            if line[3:4] != "-":
                break
        return "".join(lines)

    async def replies(self, count: int) -> list[str]:
        return [await self.reply() for _ in range(count)]

    async def rest(self) -> bytes:
        """Return what comes until the server closes."""
        return await self._reader.read()

    async def envelope(self) -> None:
        """Begin a transaction with one recipient."""
        assert (await self.command(f"MAIL FROM:<{MAILBOX}>")).startswith("250 ")
        assert (await self.command("RCPT TO:<someone@example.com>")).startswith("250 ")

    async def deliver(self, content: bytes) -> str:
        """Return the last reply of a transaction by DATA."""
        await self.envelope()
        assert (await self.command("DATA")).startswith("354 ")
        self.send((b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n")
        return await self.reply()

    async def close(self) -> None:
        with contextlib.suppress(AttributeError):
            self._writer.transport.abort()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
