"""A mail server's first words: greeting, EHLO and STARTTLS, to look at its certificate.

The proxy's own way to a server is `upstream.connector`, which keeps nothing of the certificate.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Upstream

PORTS = 'look at "upstream.port" and "upstream.tls": 587 is starttls, 465 is implicit'


class DialogueBroken(Exception):
    """The server did not answer as a mail server should; `remedy` says what to do."""

    def __init__(self, text: str, remedy: str = PORTS) -> None:
        super().__init__(text)
        self.remedy = remedy


@asynccontextmanager
async def greeted(
    upstream: Upstream, tls: ssl.SSLContext | None, hostname: str
) -> AsyncIterator[tuple[asyncio.StreamWriter, dict[str, str]]]:
    """Yield a connection after EHLO, behind TLS if there is any, and the server's extensions.

    Raises: `DialogueBroken`, `OSError`, `ssl.SSLError`, `EOFError`.
    """
    reader, writer = await asyncio.open_connection(
        upstream.host, upstream.port, ssl=tls if upstream.tls is TlsMode.IMPLICIT else None
    )
    parser = ReplyParser()

    async def expect(code: int, what: str) -> Reply:
        while line := await reader.readline():
            try:
                replies = parser.feed(line)
            except MalformedReply:
                raise DialogueBroken("what answers there is no mail server") from None
            if replies and replies[0].code == code:
                return replies[0]
            if replies:
                raise DialogueBroken(f"{what}: {replies[0]}", "try again later")
        raise EOFError

    async def hello() -> dict[str, str]:
        writer.write(f"EHLO {hostname}\r\n".encode())
        reply = await expect(250, "EHLO is answered")
        words = (line.partition(" ") for line in reply.text[1:])
        return {keyword.upper(): parameters for keyword, _, parameters in words}

    try:
        await expect(220, "the server's greeting is")
        extensions = await hello()
        if upstream.tls is TlsMode.STARTTLS and tls is not None:
            if "STARTTLS" not in extensions:
                raise DialogueBroken("the server offers no STARTTLS")
            writer.write(b"STARTTLS\r\n")
            await expect(220, "STARTTLS is answered")
            await writer.start_tls(tls, server_hostname=upstream.host)
            extensions = await hello()
        yield writer, extensions
        writer.write(b"QUIT\r\n")
    finally:
        writer.transport.abort()
