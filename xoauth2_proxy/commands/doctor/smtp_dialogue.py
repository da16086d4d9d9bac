"""A mail server's first words: greeting, EHLO and STARTTLS, to look at its certificate.

The relay's own way to a server is `upstream.opener`, which keeps nothing of the certificate.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Upstream

PORTS = 'look at "upstream.port" and "upstream.tls": 587 is starttls, 465 is implicit'


class DialogueBroken(Exception):
    """The server said something else than a mail server should."""

    def __init__(self, text: str, remedy: str = PORTS) -> None:
        super().__init__(text)
        self.remedy = remedy


class Dialogue:
    """A conversation up to EHLO, behind TLS if there is any."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.extensions: dict[str, str] = {}
        self._reader = reader
        self._parser = ReplyParser()

    @classmethod
    @asynccontextmanager
    async def with_server(
        cls, upstream: Upstream, context: ssl.SSLContext | None, hostname: str
    ) -> AsyncIterator[Self]:
        """Open one and close it; raises `DialogueBroken`, `OSError`, `ssl.SSLError`, `EOFError`."""
        is_implicit = upstream.tls is TlsMode.IMPLICIT
        reader, writer = await asyncio.open_connection(
            upstream.host, upstream.port, ssl=context if is_implicit else None
        )
        try:
            dialogue = cls(reader, writer)
            await dialogue._begin(hostname)
            if upstream.tls is TlsMode.STARTTLS and context is not None:
                await dialogue._secure(upstream.host, context, hostname)
            yield dialogue
            writer.write(b"QUIT\r\n")
        finally:
            writer.transport.abort()

    async def _begin(self, hostname: str) -> None:
        greeting = await self._reply()
        if greeting.code != 220:
            raise DialogueBroken(f"the server's greeting is: {greeting}", "try again later")
        await self._hello(hostname)

    async def _secure(self, host: str, context: ssl.SSLContext, hostname: str) -> None:
        if "STARTTLS" not in self.extensions:
            raise DialogueBroken("the server offers no STARTTLS")
        self.writer.write(b"STARTTLS\r\n")
        reply = await self._reply()
        if reply.code != 220:
            raise DialogueBroken(f"STARTTLS is answered: {reply}", "try again later")
        await self.writer.start_tls(context, server_hostname=host)
        await self._hello(hostname)

    async def _hello(self, hostname: str) -> None:
        self.writer.write(f"EHLO {hostname}\r\n".encode())
        reply = await self._reply()
        if reply.code != 250:
            raise DialogueBroken(f"EHLO is answered: {reply}", "try again later")
        words = (line.partition(" ") for line in reply.text[1:])
        self.extensions = {keyword.upper(): parameters for keyword, _, parameters in words}

    async def _reply(self) -> Reply:
        while line := await self._reader.readline():
            try:
                replies = self._parser.feed(line)
            except MalformedReply:
                raise DialogueBroken("what answers there is no mail server") from None
            if replies:
                return replies[0]
        raise EOFError
