"""A mail server that takes too much for the end of DATA: what smuggling needs behind a relay."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

# Any line end, a dot, any line end: all that some server has ever taken, and more.
_END = re.compile(rb"(?:\A|\r\n|\r|\n)\.(?:\r\n|\r|\n)")
_LINE_END = re.compile(rb"\r\n|\r|\n")


@dataclass
class LenientServer:
    """Reads commands that end in CR, LF or CRLF, and keeps every message it thinks it got.

    It speaks no TLS and takes every login.
    """

    chunking: bool
    messages: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    address: tuple[str, int] = ("", 0)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = host, port
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    @property
    def upstream(self) -> dict[str, object]:
        """The `upstream` of an account that sends here."""
        host, port = self.address
        return {"host": host, "port": port, "tls": "none"}

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(ConnectionError):
            await _Conversation(self, reader, writer).run()
        self._writers.discard(writer)
        writer.close()


class _Conversation:
    def __init__(
        self, server: LenientServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._octets = b""
        self._sender = self._recipients = self._chunks = b""

    async def run(self) -> None:
        self._say("220 lenient")
        while (line := await self._line()) is not None:
            verb, _, argument = line.partition(b" ")
            if verb == b"EHLO":
                chunking = ["CHUNKING", "ENHANCEDSTATUSCODES"] if self._server.chunking else []
                words = ["lenient", "AUTH XOAUTH2", "PIPELINING", "8BITMIME", "SMTPUTF8"]
                self._say(*words, *chunking, code=250)
            elif verb == b"MAIL":
                self._sender, self._recipients, self._chunks = argument, b"", b""
                self._say("250 2.1.0 sender")
            elif verb == b"RCPT":
                self._recipients += argument
                self._say("250 2.1.5 recipient")
            elif verb == b"DATA":
                self._say("354 go on")
                self._keep(await self._content())
            elif verb == b"BDAT":
                await self._chunk(argument)
            else:
                self._say("235 2.7.0 welcome" if verb == b"AUTH" else "250 2.0.0 whatever")

    async def _chunk(self, argument: bytes) -> None:
        size, _, last = argument.partition(b" ")
        self._chunks += await self._exactly(int(size))
        if last:
            self._keep(self._chunks)
        else:
            self._say("250 2.0.0 chunk")

    def _keep(self, content: bytes) -> None:
        self._server.messages.append((self._sender, self._recipients, content))
        self._say("250 2.0.0 kept")

    def _say(self, *lines: str, code: int = 0) -> None:
        last = len(lines) - 1
        for number, line in enumerate(lines):
            prefix = f"{code}{' ' if number == last else '-'}" if code else ""
            self._writer.write(f"{prefix}{line}\r\n".encode())

    async def _more(self) -> bool:
        octets = await self._reader.read(65_536)
        self._octets += octets
        return bool(octets)

    async def _line(self) -> bytes | None:
        while (end := _LINE_END.search(self._octets)) is None:
            if not await self._more():
                return None
        line, self._octets = self._octets[: end.start()], self._octets[end.end() :]
        return line

    async def _content(self) -> bytes:
        searched = 0
        while (end := _END.search(self._octets, searched)) is None:
            searched = max(0, len(self._octets) - 4)
            if not await self._more():
                raise ConnectionError
        content, self._octets = self._octets[: end.start()], self._octets[end.end() :]
        return content

    async def _exactly(self, size: int) -> bytes:
        while len(self._octets) < size:
            if not await self._more():
                raise ConnectionError
        octets, self._octets = self._octets[:size], self._octets[size:]
        return octets
