"""Fuzz target: a provider that says anything at any time while a message is sent to it.

An input is a line of words that choose the way of the message, then what the provider says, in
blocks that end with NUL: a block is heard when the relay has nothing left to do but wait. After the
last block the provider hangs up.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.fuzz import reference
from tests.fuzz.harness import Harness
from tests.fuzz.session import ticks_until
from tests.fuzz.wire import Wire
from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.errors import UpstreamUnavailable
from xoauth2_proxy.message import Message
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.relay import Relay
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope
from xoauth2_proxy.upstream.connection import Connection
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.smtp.protocol import Reply

CONTENT = b"Subject: a\r\n\r\n.b\r\nRSET\r\n" + b"c" * 60 + b"\r\n"
_ENHANCED = re.compile(rb"2\.\d{1,3}\.\d{1,3}(?:[ \t]|$)")
_TURNS = 6  # of the event loop, in which the relay does what it can without the provider
_MAX_BLOCKS = 60
_MAX_CONNECTIONS = 4

WORDS = (b"pipelining", b"chunking", b"stream", b"verified", b"two", b"stale", b"slow", b"abrupt")


@dataclass(frozen=True)
class Plan:
    """How a message goes, and what the provider says to it."""

    words: frozenset[bytes]
    blocks: tuple[bytes, ...]

    @property
    def extensions(self) -> dict[str, str]:
        offered = [word for word in (b"pipelining", b"chunking") if word in self.words]
        return {word.decode().upper(): "" for word in (*offered, b"enhancedstatuscodes")}


def plan_in(octets: bytes) -> Plan:
    first, _, rest = octets.partition(b"\n")
    words = frozenset(first.split()) & frozenset(WORDS)
    blocks = rest.split(b"\0")
    if blocks and not blocks[-1]:
        blocks.pop()
    return Plan(words, tuple(blocks[:_MAX_BLOCKS]))


@dataclass
class Exchange:
    """Everything that was said on one connection, and in which order."""

    sent: bytes = b""  # by the relay
    said: bytes = b""  # by the provider
    # For every octet the provider said, how many commands were complete by then.
    commands_before: list[int] = field(default_factory=list)

    def hear(self, octets: bytes) -> None:
        """Note what the provider says next."""
        self.said += octets
        self.commands_before += [len(self.commands)] * len(octets)

    @property
    def commands(self) -> list[bytes]:
        """The commands sent in full so far; the content counts as one, b"." its name."""
        return commands_in(self.sent, self.codes)

    @property
    def codes(self) -> list[int]:
        """The codes of the replies said so far, up to what is none."""
        codes: list[int] = []
        rest = self.said
        while True:
            try:
                found = reference.next_reply(rest)
            except ValueError:
                return codes
            if found is None:
                return codes
            codes.append(found[0].code)
            rest = found[1]


@dataclass(kw_only=True)
class Line(Exchange):
    """One connection, and what was said on it."""

    wire: Wire
    connection: Connection


def commands_in(sent: bytes, codes: list[int]) -> list[bytes]:
    """Read what the relay sent as a provider does that gave these replies, one a command."""
    commands: list[bytes] = []
    while sent:
        if commands and commands[-1] == b"DATA" and codes[len(commands) - 1 :][:1] == [354]:
            end = reference.end_of_data(sent)
            if end is None:
                return [*commands]
            assert reference.unstuffed(sent[:end]) == CONTENT
            commands.append(b".")
            sent = sent[end + 3 :]
            continue
        line, ending, rest = sent.partition(b"\r\n")
        if not ending:
            return commands
        if line.startswith(b"BDAT "):
            size = int(line.split()[1])
            if len(rest) < size:
                return commands
            assert rest[:size] == CONTENT
            rest = rest[size:]
            line = b"."
        else:
            assert line.split(b" ")[0] in {b"MAIL", b"RCPT", b"DATA", b"RSET", b"QUIT", b"NOOP"}
        commands.append(line)
        sent = rest
    return commands


class _Provider:
    """Opens connections for the relay and speaks the blocks on the one that is waiting."""

    def __init__(self, plan: Plan) -> None:
        self.lines: list[Line] = []
        self._plan = plan

    async def open(self, account: Account) -> Connection:
        if len(self.lines) >= _MAX_CONNECTIONS:
            raise UpstreamUnavailable("enough")
        number = len(self.lines)
        wire = Wire(lambda octets: self._hear(number, octets))
        connection = Connection(wire, self._plan.extensions)
        if b"stale" in self._plan.words:
            connection.last_used_at -= 60.0
        self.lines.append(Line(wire=wire, connection=connection))
        return connection

    async def open_with(self, account: Account, access_token: str) -> Connection:
        return await self.open(account)

    def _hear(self, number: int, octets: bytes) -> None:
        line = self.lines[number]
        line.sent += octets
        if b"slow" in self._plan.words:
            line.connection.pause_writing()

    def say(self, octets: bytes) -> None:
        line = self.lines[-1]
        if line.wire.is_closing():
            return
        line.connection.resume_writing()
        line.hear(octets)
        if octets:
            line.wire.feed(octets)

    def hang_up(self) -> None:
        for line in self.lines:
            if line.wire.is_closing():
                continue
            if b"abrupt" not in self._plan.words:
                line.wire.feed_eof()
            line.wire.close()


class UpstreamTarget:
    """Sends one message an input."""

    max_bytes = 4000

    def __init__(self) -> None:
        self._harness = Harness()
        self._metrics = Metrics()

    def close(self) -> None:
        self._harness.close()

    def check(self, octets: bytes) -> object:
        plan = plan_in(octets)
        provider = _Provider(plan)
        answer = self._harness.run(self._send(plan, provider))
        complaints = self._harness.complaints()
        assert not complaints, complaints
        for line in provider.lines:
            assert not line.wire.faults, line.wire.faults
        judge(plan, provider.lines, answer)
        codes = [tuple(line.codes[:12]) for line in provider.lines]
        return plan.words, answer.code, tuple(codes)

    async def _send(self, plan: Plan, provider: _Provider) -> Reply:
        pool = Pool(self._metrics)
        relay = Relay(pool, provider, self._metrics)  # type: ignore[arg-type]
        recipients = ["b@y", "c@z"] if b"two" in plan.words else ["b@y"]
        envelope = Envelope("a@x", recipients)
        way = _streamed if plan.words & {b"stream", b"verified"} else _whole
        sending = asyncio.create_task(way(relay, envelope, is_verified=b"verified" in plan.words))
        await _speak(plan, provider, sending)
        answer = await sending
        # Whoever comes next gets what he is told on a connection that was kept.
        for line in provider.lines:
            if line.connection.is_usable:
                await _use_again(line)
        pool.close()
        await asyncio.sleep(0)
        return answer


async def _speak(plan: Plan, provider: _Provider, sending: asyncio.Task[Reply]) -> None:
    for block in plan.blocks:
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if sending.done():
            break
        provider.say(block)
    for _ in range(_MAX_CONNECTIONS + 1):
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if sending.done():
            return
        provider.hang_up()
    if not await ticks_until(sending.done):
        sending.cancel()
        raise AssertionError("the message hangs after the provider's end")


async def _whole(relay: Relay, envelope: Envelope, *, is_verified: bool) -> Reply:
    content = Content(CONTENT, is_stuffed=False)
    return await relay.relay(Message(Login(mailbox()), envelope, "id"), content)


async def _streamed(relay: Relay, envelope: Envelope, *, is_verified: bool) -> Reply:
    outgoing = relay.stream(Message(Login(mailbox()), envelope, "id"))
    if is_verified:
        paths, envelope.forward_paths = envelope.forward_paths, []
        answers: list[Reply] = []
        for path in paths:
            envelope.forward_paths.append(path)
            answers.append(await outgoing.add_recipient())
            if not answers[-1].is_positive:
                envelope.forward_paths.pop()
        if not envelope.forward_paths:
            outgoing.abandon()
            return answers[-1]
    for part in (CONTENT[:10], CONTENT[10:50]):
        if (waiting := outgoing.write(part, is_stuffed=False)) is not None:
            await waiting
    return await outgoing.finish(CONTENT[50:], is_stuffed=False)


async def _use_again(line: Line) -> None:
    codes = line.codes
    assert len(codes) == len(line.commands), (line.commands, codes)
    then = commands_in(line.sent + b"NOOP\r\n", codes)
    assert then == [*line.commands, b"NOOP"], "in the midst of content"
    is_open = False
    for command, code in zip(line.commands, codes, strict=True):
        if command.startswith(b"MAIL") and code < 400:
            is_open = True
        elif command == b"RSET" or (command == b"." and code == 250):
            is_open = False
    assert line.connection.dialogue.needs_reset or not is_open, "the transaction is still open"
    reset = line.connection.command(b"RSET\r\n", 1.0)
    line.wire.feed(b"250 2.0.0 again\r\n")
    assert (await reset).text == ("again",)
    line.connection.abort()


def judge(plan: Plan, lines: list[Line], answer: Reply) -> None:
    """Check the answer against what was said on every connection."""
    ended = [line for line in lines if b"." in line.commands]
    delivered = [line for line in ended if may_be_delivered(line)]
    if answer.is_positive:
        assert delivered, f"{answer} was made up: {[line.said for line in lines]}"
    for line in ended[:-1]:
        mail = next(at for at, one in enumerate(line.commands) if one.startswith(b"MAIL"))
        assert line.codes[mail : mail + 1] == [421], "sent again though it may have been accepted"
    for line in lines:
        if is_flawless(line):
            assert answer.is_positive, f"{answer} to a message that was accepted: {line.said!r}"


def may_be_delivered(line: Exchange) -> bool:
    """Whether the reply in the place of the message's is 250, and those before it allowed it."""
    commands, codes = line.commands, line.codes
    at = commands.index(b".")
    if codes[at : at + 1] != [250]:
        return False
    before = zip(commands[:at], codes, strict=False)
    is_any_recipient = False
    for command, code in before:
        if command.startswith(b"MAIL") and not 200 <= code < 300:
            return False
        if command == b"DATA" and code != 354:
            return False
        if command.startswith(b"RCPT"):
            is_any_recipient = is_any_recipient or 200 <= code < 300
    return is_any_recipient


def is_flawless(line: Exchange) -> bool:
    """Whether every command got one good reply, after it was sent, and nothing else was said."""
    commands, codes = line.commands, line.codes
    if not commands or commands[-1] != b"." or len(codes) != len(commands):
        return False
    rest, at, last = line.said, 0, b""
    for number, command in enumerate(commands):
        found = reference.next_reply(rest)
        assert found is not None
        at += len(rest) - len(found[1])
        rest, last = found[1], found[0].lines[0]
        if line.commands_before[at - 1] <= number and command != b".":
            return False
        if line.commands_before[at - 1] < number + 1:
            return False
        good = {b".": {250}, b"DATA": {354}}.get(command, set(range(200, 300)))
        if found[0].code not in good:
            return False
    speaks_of_address = last.startswith(b"2.1.")
    # Behind BDAT a reply without an enhanced code may be a second one to another command.
    is_plain = not _ENHANCED.match(last) and b"DATA" not in commands
    return not rest and not speaks_of_address and not is_plain
