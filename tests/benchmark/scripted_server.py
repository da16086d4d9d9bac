"""A small real SMTP server that keeps what it accepts and misbehaves where a test asks it to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from typing import TYPE_CHECKING

from tests.support.listening import stop_listening
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

PASSWORD = "let me in"


@dataclass
class Accepted:
    """A message answered 250."""

    mailbox: str
    reverse_path: str
    forward_paths: list[str]
    content: bytes

    @property
    def forward_path(self) -> str:
        (path,) = self.forward_paths
        return path

    @property
    def message_id(self) -> str:
        return str(message_from_bytes(self.content)["Message-ID"])

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class ScriptedServer:
    """What the server does, and what it saw."""

    reply_to_content: Callable[[int], str] = lambda _: "250 2.0.0 kept"  # by message, from 1
    reply_to_recipient: Callable[[str], str] = lambda _: "250 2.1.5 ok"
    drops_connection: Callable[[int], bool] = lambda _: False  # by connection, from 1: at DATA
    hold_after: int | None = None  # replies beyond this many wait for `released`
    delay_seconds: Callable[[int], float] = lambda _: 0.0  # of the reply to a message, from 1
    loses: Callable[[int], bool] = lambda _: False  # acknowledged and not kept: by message, from 1
    needs_login: bool = True
    is_pipelining: bool = True
    tls_context: ssl.SSLContext | None = None
    is_tls_implicit: bool = False  # with a context: TLS from the start, rather than STARTTLS
    accepted: list[Accepted] = field(default_factory=list)
    commands: list[bytes] = field(default_factory=list)
    connections: int = 0
    contents: int = 0  # messages received whole, accepted or not
    port: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    open_now: int = 0  # connections
    logged_in: int = 0  # in all
    was_ahead: bool = False  # a client had sent a command before the reply to the last one
    _stalled: asyncio.Event | None = None  # set when the stall is over
    _held: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _sessions: set[asyncio.Task[None]] = field(default_factory=set)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def held(self, count: int) -> None:
        """Return when this many replies are being held back."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(lambda: self._held >= count)

    def interrupt(self, octets: bytes) -> None:
        """Say something on every connection that nobody asked for."""
        for writer in self._writers:
            writer.write(octets)

    def stall(self) -> None:
        """Answer nothing, on any connection, until `go_on`."""
        self._stalled = asyncio.Event()

    def go_on(self) -> None:
        if self._stalled is not None:
            self._stalled.set()
            self._stalled = None

    async def until_answering(self) -> None:
        if self._stalled is not None:
            await self._stalled.wait()

    async def happened(self, is_so: Callable[[], bool]) -> None:
        """Return when something is so; it is looked at whenever a line came or a session ended."""
        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(is_so)

    async def changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        self._writers.add(writer)
        self.connections += 1
        self.open_now += 1
        try:
            await _Session(self, self.connections, reader, writer).serve()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            self._sessions.discard(task)
            self._writers.discard(writer)
            self.open_now -= 1
            writer.transport.abort()
            # asyncio does not report the end of a connection in its TLS handshake.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(0.2):
                    await writer.wait_closed()
            await self.changed()

    async def hold(self) -> None:
        if self.hold_after is None or self.contents <= self.hold_after:
            return
        async with self._changed:
            self._held += 1
            self._changed.notify_all()
        await self.released.wait()

    async def end_sessions(self) -> None:
        for task in tuple(self._sessions):
            task.cancel()
        if self._sessions:
            await asyncio.wait(tuple(self._sessions), timeout=PATIENCE_SECONDS)


@asynccontextmanager
async def scripted_server(server: ScriptedServer | None = None) -> AsyncIterator[ScriptedServer]:
    """Run the server on a free loopback port."""
    server = server or ScriptedServer()
    listener = await asyncio.start_server(
        server.on_connection,
        "127.0.0.1",
        0,
        ssl=server.tls_context if server.is_tls_implicit else None,
    )
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await stop_listening(listener)
        await server.end_sessions()


class _Session:
    def __init__(
        self,
        server: ScriptedServer,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._server = server
        self._number = number
        self._reader = reader
        self._writer = writer
        self._mailbox = "" if server.needs_login else "anybody"
        self._reverse_path: str | None = None
        self._forward_paths: list[str] = []
        self._is_tls_needed = server.tls_context is not None and not server.is_tls_implicit

    async def serve(self) -> None:
        await self._say("220 scripted.test ESMTP")
        while True:
            line = await self._line()
            verb = line[:4].upper()
            if verb == b"QUIT":
                await self._say("221 2.0.0 bye")
                return
            if not await self._obey(verb, line):
                return

    async def _obey(self, verb: bytes, line: bytes) -> bool:
        match verb:
            case b"EHLO" if self._is_tls_needed:
                await self._say("250-scripted.test\r\n250 STARTTLS")
            case b"EHLO":
                pipelining = "250-PIPELINING\r\n" if self._server.is_pipelining else ""
                await self._say(
                    f"250-scripted.test\r\n{pipelining}250-SIZE 1000000\r\n250-8BITMIME\r\n"
                    "250 AUTH PLAIN LOGIN XOAUTH2 OAUTHBEARER"
                )
            case b"STAR" if self._server.tls_context is not None:
                await self._say("220 2.0.0 go on")
                await self._writer.start_tls(self._server.tls_context)
                self._is_tls_needed = False
            case b"AUTH" if not self._is_tls_needed:
                await self._auth(line.split())
            case b"MAIL" if self._mailbox and self._reverse_path is None:
                self._reverse_path = line.partition(b"<")[2].partition(b">")[0].decode()
                await self._say("250 2.1.0 ok")
            case b"RCPT" if self._reverse_path is not None:
                path = line.partition(b"<")[2].partition(b">")[0].decode()
                reply = self._server.reply_to_recipient(path)
                if reply.startswith("2"):
                    self._forward_paths.append(path)
                await self._say(reply)
            case b"DATA" if self._forward_paths:
                return await self._data()
            case b"RSET":
                self._reverse_path, self._forward_paths = None, []
                await self._say("250 2.0.0 ok")
            case _:
                await self._say("503 5.5.1 not now")
        return True

    async def _data(self) -> bool:
        if self._server.drops_connection(self._number):
            return False
        await self._say("354 go on")
        raw = await self._reader.readuntil(b"\r\n.\r\n")
        content = (b"\r\n" + raw[:-3]).replace(b"\r\n.", b"\r\n")[2:]
        self._server.contents += 1
        number = self._server.contents
        await self._server.changed()
        reply = self._server.reply_to_content(number)
        await self._server.hold()
        await asyncio.sleep(self._server.delay_seconds(number))
        if reply.startswith("2") and not self._server.loses(number):
            assert self._reverse_path is not None
            self._server.accepted.append(
                Accepted(self._mailbox, self._reverse_path, self._forward_paths, content)
            )
        self._reverse_path, self._forward_paths = None, []
        await self._say(reply)
        return not reply.startswith("421")

    async def _auth(self, words: list[bytes]) -> None:
        mechanism = words[1].upper()
        given = words[2:]
        if mechanism == b"LOGIN":
            name = await self._answer("VXNlcm5hbWU6")
            password = await self._answer("UGFzc3dvcmQ6")
        else:
            response = base64.b64decode(given[0]) if given else await self._answer("")
            name, password = _credentials(mechanism, response)
        if password.decode().startswith(PASSWORD):
            self._mailbox = name.decode()
            self._server.logged_in += 1
            await self._say("235 2.7.0 welcome")
            return
        if mechanism in {b"XOAUTH2", b"OAUTHBEARER"}:
            await self._answer(base64.b64encode(b'{"status":"401"}').decode())
        await self._say("535 5.7.8 no")

    async def _answer(self, challenge: str) -> bytes:
        await self._say(f"334 {challenge}")
        return base64.b64decode(await self._line())

    async def _line(self) -> bytes:
        line = (await self._reader.readuntil(b"\r\n"))[:-2]
        self._server.commands.append(line)
        await self._server.changed()
        return line

    async def _say(self, text: str) -> None:
        await self._server.until_answering()
        self._server.was_ahead |= bool(self._reader._buffer)  # type: ignore[attr-defined]
        self._writer.write(text.encode() + b"\r\n")
        await self._writer.drain()


def _credentials(mechanism: bytes, response: bytes) -> tuple[bytes, bytes]:
    if mechanism == b"PLAIN":
        _, name, password = response.split(b"\0")
        return name, password
    head, bearer, *_ = response.split(b"\1")
    if mechanism == b"XOAUTH2":
        name = head.removeprefix(b"user=")
    else:
        name = head.removeprefix(b"n,a=").removesuffix(b",")
    return name, bearer.removeprefix(b"auth=Bearer ")
