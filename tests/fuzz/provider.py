"""A provider without a socket: strict about every octet it is sent, and keeps what it accepted.

What it answers follows from the addresses: a local part that begins with `refuse` is refused at
once, `late` with the final reply, `hangup` with 421 and the end of the connection.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz import reference
from tests.fuzz.wire import Wire
from xoauth2_proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account

MAIL = re.compile(
    rb"MAIL FROM:<(.*)>(?: SIZE=\d+| BODY=8BITMIME| SMTPUTF8| RET=(?:FULL|HDRS)| ENVID=[!-~]+)*"
)
RCPT = re.compile(rb"RCPT TO:<(.+)>(?: NOTIFY=[A-Z,]+| ORCPT=[!-~]+)*")
BDAT = re.compile(rb"BDAT (\d+) LAST")


@dataclass(frozen=True)
class Kept:
    """A message that got its 250."""

    sender: bytes
    recipients: tuple[bytes, ...]
    content: bytes


@dataclass
class Provider:
    """All connections of one relay; give it to the relay as its opener."""

    extensions: dict[str, str]
    kept: list[Kept] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    finals: int = 0  # messages that were sent to their end
    _wires: list[Wire] = field(default_factory=list)

    async def open(self, account: Account) -> Connection:
        await asyncio.sleep(0)
        served = _Served(self)
        wire = Wire(served.hear)
        connection = Connection(wire, self.extensions)
        served.wire = wire
        self._wires.append(wire)
        return connection

    async def open_with(self, account: Account, access_token: str) -> Connection:
        return await self.open(account)

    def all_faults(self) -> list[str]:
        return [*self.faults, *(fault for wire in self._wires for fault in wire.faults)]


class _Served:
    """One connection, as the provider sees it."""

    def __init__(self, provider: Provider) -> None:
        self.wire: Wire
        self._provider = provider
        self._unread = b""
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._is_in_data = False
        self._loop = asyncio.get_running_loop()

    def hear(self, octets: bytes) -> None:
        self._unread += octets
        while self._step():
            pass

    def _step(self) -> bool:
        if self._is_in_data:
            end = reference.end_of_data(self._unread)
            if end is None:
                return False
            content, self._unread = self._unread[:end], self._unread[end + 3 :]
            self._is_in_data = False
            self._finish(content, reference.unstuffed(content))
            return True
        line, ending, rest = self._unread.partition(b"\r\n")
        if not ending:
            return False
        if match := BDAT.fullmatch(line):
            size = int(match[1])
            if len(rest) < size:
                return False
            content, self._unread = rest[:size], rest[size:]
            self._finish(content, content)
            return True
        self._unread = rest
        self._obey(line)
        return True

    def _obey(self, line: bytes) -> None:
        if any(octet < 32 or octet == 127 for octet in line):
            self._fault(f"a control in a command: {line!r}")
        if match := MAIL.fullmatch(line):
            self._mail(match[1])
        elif match := RCPT.fullmatch(line):
            self._rcpt(match[1])
        elif line == b"DATA":
            self._is_in_data = bool(self._recipients)
            self._say(b"354 go on" if self._recipients else b"503 5.5.1 RCPT first")
        elif line == b"RSET":
            self._forget()
            self._say(b"250 2.0.0 reset")
        elif line == b"QUIT":
            self._loop.call_soon(self._hang_up)
        else:
            self._fault(f"no command: {line[:60]!r}")

    def _mail(self, sender: bytes) -> None:
        if self._sender is not None:
            self._fault("MAIL within a transaction")
        elif sender.startswith(b"refuse"):
            self._say(b"550 5.7.1 not from you")
        elif sender.startswith(b"hangup"):
            self._say(b"421 4.3.2 come again")
            self._loop.call_soon(self._hang_up)
        else:
            self._sender = sender
            self._say(b"250 2.1.0 sender")

    def _rcpt(self, recipient: bytes) -> None:
        if recipient.startswith(b"refuse"):
            self._say(b"550 5.1.1 nobody")
        elif self._sender is None:
            self._say(b"503 5.5.1 MAIL first")
        else:
            self._recipients.append(recipient)
            self._say(b"250 2.1.5 recipient")

    def _finish(self, sent: bytes, content: bytes) -> None:
        if reference.has_bare_line_ends(sent) or reference.ended(content) != content:
            self._fault(f"bare line ends left the relay: {sent[-60:]!r}")
        if self._sender is None or not self._recipients:
            self._say(b"503 5.5.1 no envelope")
            return
        self._provider.finals += 1
        if any(one.startswith(b"late") for one in self._recipients):
            self._say(b"554 5.7.1 not this")
        else:
            kept = Kept(self._sender, tuple(self._recipients), content)
            self._provider.kept.append(kept)
            self._say(b"250 2.0.0 kept")
        self._forget()

    def _forget(self) -> None:
        self._sender, self._recipients = None, []

    def _fault(self, what: str) -> None:
        self._provider.faults.append(what)
        self._say(b"500 5.5.2 what")

    def _say(self, line: bytes) -> None:
        def arrive() -> None:
            if not self.wire.is_closing():
                self.wire.feed(line + b"\r\n")

        self._loop.call_soon(arrive)

    def _hang_up(self) -> None:
        if not self.wire.is_closing():
            self.wire.feed_eof()
            self.wire.close()
