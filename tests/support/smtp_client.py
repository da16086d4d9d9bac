"""An SMTP client that says exactly what a test tells it to, octet by octet."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser

if TYPE_CHECKING:
    import ssl
    from types import TracebackType


class Client:
    """One connection to a server under test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._parser = ReplyParser()
        self._replies: list[Reply] = []
        self.greeting = Reply(0, "", ())

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        """Return a client that has read the server's greeting."""
        client = cls(*await asyncio.open_connection(host, port))
        client.greeting = await client.reply()
        return client

    @classmethod
    async def connect_tls(cls, host: str, port: int, context: ssl.SSLContext, name: str) -> Self:
        """Return a client that has begun with TLS and has read the greeting."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            client = cls(
                *await asyncio.open_connection(host, port, ssl=context, server_hostname=name)
            )
        client.greeting = await client.reply()
        return client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def reply(self) -> Reply:
        """Return the next reply; `EOFError` when the server has hung up."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._replies:
                octets = await self._reader.read(65_536)
                if not octets:
                    raise EOFError
                self._replies += self._parser.feed(octets)
        return self._replies.pop(0)

    async def closed(self) -> bool:
        """Wait until the server hangs up; False if it says something instead."""
        with suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return not self._replies and await self._reader.read(1) == b""
        return True

    def write(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.writer.write(octets)

    async def command(self, line: str | bytes) -> Reply:
        """Send a line, CRLF added, and return the reply."""
        self.write((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return await self.reply()

    async def ehlo(self) -> Reply:
        return await self.command("EHLO client.example")

    async def auth_plain(self, login: str, password: str) -> Reply:
        return await self.command("AUTH PLAIN " + encoded(f"\0{login}\0{password}"))

    async def envelope(self, *recipients: str, sender: str = "from@example.com") -> None:
        """Send MAIL and RCPT, each of which must be accepted."""
        for line in (f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{path}>" for path in recipients)):
            answer = await self.command(line)
            assert answer.is_positive, f"{line}: {answer}"

    async def data(self, content: bytes) -> Reply:
        """Send content with DATA (it must end with CRLF) and return the final reply."""
        answer = await self.command("DATA")
        assert answer.code == 354, str(answer)
        stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
        self.write(stuffed + b".\r\n")
        return await self.reply()

    async def send(self, content: bytes, *recipients: str) -> Reply:
        """Run one transaction and return its final reply."""
        await self.envelope(*(recipients or ("to@example.net",)))
        return await self.data(content)

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Say STARTTLS and do the handshake."""
        answer = await self.command("STARTTLS")
        assert answer.code == 220, str(answer)
        await self.writer.start_tls(context, server_hostname=server_name)

    async def close(self) -> None:
        """Hang up."""
        self.writer.close()
        with suppress(ConnectionError, OSError):
            await self.writer.wait_closed()


def encoded(text: str) -> str:
    """Return `text` in base64."""
    return base64.b64encode(text.encode()).decode()


def message(subject: str = "test", *, size_bytes: int = 0) -> bytes:
    """Return a small message, padded to at least `size_bytes`."""
    head = f"From: from@example.com\r\nSubject: {subject}\r\n\r\n".encode()
    line = b"The quick brown fox jumps over the lazy dog, again and again.\r\n"
    return head + b".leading dot\r\n" + line * (1 + max(0, size_bytes - len(head)) // len(line))
