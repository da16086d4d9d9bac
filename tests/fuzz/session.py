"""Fuzz targets: a client that says anything, in any pieces, and what it may bring about.

The octets of a client and the replies it got are read side by side, by the rules of
`reference`: one reply a command, nothing said unasked, and what the provider kept is exactly what
was acknowledged.
"""

from __future__ import annotations

import asyncio
import random
import re
import ssl
import time
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.fuzz import reference
from tests.fuzz.harness import Harness
from tests.fuzz.provider import Kept, Provider
from tests.fuzz.wire import Wire
from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.errors import CredentialsRejected, TokenEndpointUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.relay import Relay
from xoauth2_proxy.smtp.content import Collector
from xoauth2_proxy.smtp.line_ends import MAX_CRS
from xoauth2_proxy.smtp.protocol import ReplyParser
from xoauth2_proxy.smtp.sasl import ChallengeLogin, Credentials, PasswordLogin
from xoauth2_proxy.submission import session as session_module
from xoauth2_proxy.submission import transaction
from xoauth2_proxy.submission.buffer_budget import BufferBudget
from xoauth2_proxy.submission.pace import RecentClients
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.submission.session import ClientSession
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xoauth2_proxy.accounts.accounts import Account

MAX_MESSAGE_BYTES = 3000
BUFFER_BYTES = 400  # beyond it a message is streamed
MAX_RECIPIENTS = 4
MAX_INPUT_BYTES = 60_000
LOG_IN = b"EHLO c.example\r\nAUTH PLAIN AHNvbWVvbmVAZXhhbXBsZS5jb20Ac2VjcmV0\r\n"
_TICKS = 20_000  # of the event loop, within which a session must have come to its end
_INLET_BYTES = 16_384  # where reading pauses; less than it is, so that inputs reach it

_EXTENSIONS: tuple[tuple[str, ...], ...] = (
    ("PIPELINING", "CHUNKING", "SIZE", "8BITMIME", "SMTPUTF8", "DSN"),
    ("PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8"),
    ("CHUNKING", "8BITMIME", "SMTPUTF8"),
    ("SIZE", "8BITMIME", "SMTPUTF8", "DSN"),
)


@dataclass
class Gate:
    """Says who may log in, and counts whom it let in."""

    account: Account
    let_in: int = 0

    def current_login(self, login: Login) -> Login:
        return login

    async def authenticate(self, credentials: Credentials, peer: str) -> Login:
        await asyncio.sleep(0)
        login = credentials.authcid.strip().lower()
        is_password = isinstance(credentials, PasswordLogin)
        assert not isinstance(credentials, ChallengeLogin), "CRAM-MD5 is not offered"
        shown = (
            credentials.password
            if isinstance(credentials, PasswordLogin)
            else credentials.access_token
        )
        if shown == "later":
            raise TokenEndpointUnavailable("try later")
        if shown != "secret" or "@" not in login:
            raise CredentialsRejected("no")
        self.let_in += 1
        return Login(self.account, access_token="" if is_password else shown)

    def without_password(self, peer: str) -> list[Login]:
        return []

    def known_account(self, login: str) -> str:
        return ""

    def known_login(self, login: str) -> str:
        return ""

    def nearest_login(self, typed: str) -> str:
        return ""

    def shown_login(self, typed: str) -> str:
        return ""


def _never(seconds: float, callback: Callable[[], None]) -> None:
    raise AssertionError("the memory is never tight")


@dataclass
class Door:
    """Knows who is inside; as at the listener's, a session may end more than once."""

    inside: set[ClientSession] = field(default_factory=set)
    budget: BufferBudget = field(
        default_factory=lambda: BufferBudget(1 << 40, BUFFER_BYTES, time.monotonic, _never)
    )
    slow_clients: RecentClients = field(default_factory=lambda: RecentClients(600))
    trusted_clients: RecentClients = field(default_factory=lambda: RecentClients(600))

    def admit(self, session: ClientSession, address: str) -> None:
        self.inside.add(session)

    def logged_in(self, session: ClientSession) -> None:
        assert session in self.inside

    def ended(self, session: ClientSession) -> None:
        if session.is_gone:
            self.inside.discard(session)


class Watched(Collector):
    """A collector that may not hold more than a slow client's buffer and one piece."""

    __slots__ = ()

    def add(self, chunk: bytes) -> None:
        before = self.held_bytes
        super().add(chunk)
        longest = session_module._GATHERED * BUFFER_BYTES
        assert before <= longest, f"{before} octets were held back"


@dataclass
class Conversation:
    """What one session heard, said and sent on."""

    heard: bytes
    said: bytes
    provider: Provider
    let_in: int
    faults: list[str] = field(default_factory=list)
    is_strict: bool = False


class SessionTarget:
    """Runs one session an input; `is_logged_in` puts a good login before it."""

    max_bytes = MAX_INPUT_BYTES

    def __init__(
        self, *, is_logged_in: bool = False, verifies: bool = False, is_strict: bool = False
    ) -> None:
        self._prefix = LOG_IN if is_logged_in else b""
        self._is_strict = is_strict
        self._account = replace(mailbox(), verifies=verifies)
        self._harness = Harness()
        self._metrics = Metrics()
        self._tls = None if is_logged_in else _tls_context()

    def close(self) -> None:
        self._harness.close()

    def check(self, octets: bytes) -> object:
        """Run `octets` in pieces that follow from them; return what was peculiar about the run."""
        return self.check_in(pieces_of(octets), octets)

    def check_in(self, pieces: Sequence[bytes], octets: bytes) -> object:
        """Run `pieces`, which are `octets`, and check everything."""
        whole = self._prefix + octets
        extensions = _EXTENSIONS[zlib.crc32(octets[:200]) % len(_EXTENSIONS)]
        provider = Provider(dict.fromkeys(extensions, ""))
        given = [self._prefix, *pieces] if self._prefix else list(pieces)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(transaction, "Collector", Watched)
            patch.setattr(session_module, "_HIGH_BYTES", _INLET_BYTES)
            spoken = self._harness.run(self._converse(given, provider))
        conversation = Conversation(
            whole, *spoken[:1], provider, spoken[1], spoken[2], self._is_strict
        )
        conversation.faults += self._harness.complaints() + provider.all_faults()
        assert not conversation.faults, conversation.faults
        return judge(conversation)

    async def _converse(
        self, pieces: list[bytes], provider: Provider
    ) -> tuple[bytes, int, list[str]]:
        gate, door, faults = Gate(self._account), Door(), list[str]()
        said = bytearray()
        pool = Pool(self._metrics)
        policy = SessionPolicy(
            hostname="relay.example",
            max_message_bytes=MAX_MESSAGE_BYTES,
            max_recipients=MAX_RECIPIENTS,
            buffer_bytes=BUFFER_BYTES,
            idle_seconds=300.0,
            tls_context=self._tls,
            may_auth_in_clear=True,
            strict=self._is_strict,
        )
        relay = Relay(pool, provider, self._metrics)  # type: ignore[arg-type]
        session = ClientSession(policy, gate, relay, self._metrics, door)  # type: ignore[arg-type]
        wire = Wire(said.extend)
        wire.set_protocol(session)
        session.connection_made(wire)
        try:
            await _say_all(wire, session, pieces, faults)
            if not await ticks_until(lambda: session.has_ended and wire.is_closing()):
                faults.append("the session goes on after the client's end")
                session.cut()
            if not await ticks_until(lambda: not door.inside):
                faults.append("the session is still counted")
            if door.budget.used_bytes or door.budget._receiving:
                faults.append("the content of an ended session is still counted")
            # What was abandoned is gone at once; what was sent is answered.
            await ticks_until(lambda: "0 leased or opening" in repr(pool))
            if "0 leased or opening" not in repr(pool):
                faults.append(f"a lease outlives its session: {pool}")
        finally:
            pool.close()
            await asyncio.sleep(0)
        return bytes(said), gate.let_in, faults + wire.faults


async def _say_all(
    wire: Wire, session: ClientSession, pieces: list[bytes], faults: list[str]
) -> None:
    turns = random.Random(len(pieces))
    for piece in pieces:
        if not await ticks_until(lambda: wire.is_reading() or wire.is_closing()):
            faults.append("reading was paused for ever")
        if wire.is_closing() or not wire.is_reading():
            return
        wire.feed(piece)
        held = session._dialogue.unread_bytes
        if held > _INLET_BYTES + 2 * len(piece):
            faults.append(f"{held} octets wait to be read")
        for _ in range(turns.choice((0, 0, 1, 4))):
            await asyncio.sleep(0)
    # A wire does not end while its protocol does not read, and neither does a socket.
    await ticks_until(lambda: wire.is_reading() or wire.is_closing())
    if not wire.is_closing():
        wire.feed_eof()


async def ticks_until(condition: Callable[[], bool]) -> bool:
    """Let the event loop turn until `condition` holds; whether it came to that."""
    for _ in range(_TICKS):
        if condition():
            return True
        await asyncio.sleep(0)
    return condition()


def pieces_of(octets: bytes) -> list[bytes]:
    """Cut `octets` in one of several ways, always the same for the same octets."""
    choice = random.Random(zlib.crc32(octets))
    longest = choice.choice((len(octets), len(octets), 1, 3, 40, 1500)) or 1
    if len(octets) // longest > 3000:
        longest = 1500
    pieces, at = [], 0
    while at < len(octets):
        size = choice.randint(1, longest) if longest < len(octets) else longest
        pieces.append(octets[at : at + size])
        at += size
    return pieces


def _tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("relay.example").configure_cert(context)
    return context


# The judge.


class _Replies:
    """What the relay said, reply by reply."""

    def __init__(self, said: bytes) -> None:
        self.rest = said
        self.codes: list[int] = []

    def next(self, to: bytes) -> int | None:
        """Return the code of the next reply; None when there is none."""
        found = reference.next_reply(self.rest)
        if found is None:
            assert not self.rest, f"half a reply: {self.rest!r}"
            return None
        answer, rest = found
        octets = self.rest[: len(self.rest) - len(rest)]
        assert reference.is_well_formed(octets), f"to {to[:60]!r}: {octets!r}"
        assert [one.code for one in ReplyParser().feed(octets)] == [answer.code]
        assert b"Internal error" not in octets
        self.rest = rest
        self.codes.append(answer.code)
        return answer.code


class _Walk:
    """Reads the client's octets the way the replies say the relay did."""

    def __init__(self, conversation: Conversation) -> None:
        self.octets = conversation.heard
        self._is_strict = conversation.is_strict
        self._has_dsn = "DSN" in conversation.provider.extensions
        self.replies = _Replies(conversation.said)
        self.acknowledged: list[Kept] = []
        self.logins = 0
        self.has_ended = False  # the relay hung up, or the client's octets are used up
        self._is_logged_in = False
        self._greeted = False
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._chunks: bytes | None = None
        self._is_void = False  # a chunk was refused
        self._wants_dsn = False

    def walk(self) -> None:
        assert self.replies.next(b"the connection") == 220
        while not self.has_ended:
            line = self._line()
            if line is not None:
                self._command(line)
        if self.replies.rest:
            # A last word is said unasked; nothing else is.
            assert self.replies.next(b"nothing") == 421, self.replies.rest[:100]
        assert not self.replies.rest, f"unasked: {self.replies.rest[:100]!r}"

    def _line(self) -> bytes | None:
        line, ending, rest = self.octets.partition(b"\n")
        if not ending:
            self.has_ended = True
            return None
        self.octets = rest
        return line + ending

    def _code(self, to: bytes) -> int:
        code = self.replies.next(to)
        if code is None:
            raise AssertionError(f"no reply to {to[:80]!r}")
        if code == 421 and not self.replies.rest:
            self.has_ended = True
        return code

    def _command(self, line: bytes) -> None:
        octets = line.removesuffix(b"\r\n") if self._is_strict else line.rstrip(b"\r\n")
        verb, argument = re.fullmatch(rb"([^ \t]*)[ \t]?(.*)", octets, re.DOTALL).groups()  # type: ignore[union-attr]
        verb, argument = verb.upper(), argument.decode(errors="replace").strip().encode()
        if not _is_line_of_smtp(line, is_strict=self._is_strict):
            code = self._code(line)
            assert code in {500, 421}, f"{code} to {line!r}"
            # The chunk behind a broken BDAT would be read as commands.
            self.has_ended = self.has_ended or line.lstrip()[:4].upper() == b"BDAT"
        elif not verb and line.lstrip()[:4].upper() == b"BDAT":
            assert self._code(line) in {500, 421}
            self.has_ended = True
        elif verb == b"BDAT":
            self._bdat(line, argument)
        elif verb == b"AUTH":
            self._auth(line, self._code(line))
        else:
            self._simple(line, verb, argument)

    def _simple(self, line: bytes, verb: bytes, argument: bytes) -> None:
        code = self._code(line)
        if verb in {b"EHLO", b"HELO", b"RSET"} and code == 250:
            self._greeted = self._greeted or verb != b"RSET"
            self._forget()
        elif verb in {b"MAIL", b"RCPT"} and code == 250:
            self._address(verb, reference.path_in(argument))
            asked = (b"RET=", b"ENVID=", b"NOTIFY=", b"ORCPT=")
            self._wants_dsn = self._wants_dsn or any(word in argument.upper() for word in asked)
        elif verb == b"DATA" and code == 354:
            self._data()
        elif verb == b"QUIT":
            assert code in {221, 500, 421}
            self.has_ended = self.has_ended or code == 221
        elif verb == b"STARTTLS" and code in {220, 554}:
            # What follows is TLS, or the end.
            self.has_ended = True
            assert code == 220 or not self.replies.rest
            assert not self.replies.rest or self.replies.rest[0] in {20, 21, 22, 23}
            self.replies.rest = b""
        else:
            harmless = verb in {b"NOOP", b"HELP", b"VRFY"} and code in {250, 214, 252}
            assert code >= 400 or harmless, f"{code} to {line[:80]!r}"

    def _address(self, verb: bytes, path: bytes) -> None:
        assert self._is_logged_in
        assert self._chunks is None
        if verb == b"MAIL":
            assert self._sender is None
            self._sender = path
        else:
            assert self._sender is not None
            self._recipients.append(path)
            assert len(self._recipients) <= MAX_RECIPIENTS

    def _auth(self, line: bytes, code: int) -> None:
        while code == 334:
            response = self._line()
            if response is None:
                return
            code = self._code(response)
        if code == 235:
            assert self._greeted
            assert not self._is_logged_in
            self._is_logged_in = True
            self.logins += 1
        else:
            assert code >= 400, f"{code} to {line[:80]!r}"

    def _data(self) -> None:
        assert self._sender is not None
        assert self._recipients
        end = reference.end_of_data(self.octets)
        if end is None:
            self.has_ended = True
            return
        content, self.octets = self.octets[:end], self.octets[end + 3 :]
        self._final(content, is_stuffed=True)

    def _bdat(self, line: bytes, argument: bytes) -> None:
        size, is_last = _chunk(argument)
        if size is None or size > 4 * MAX_MESSAGE_BYTES:
            assert self._code(line) in {501, 552, 421}
            self.has_ended = True
            return
        if len(self.octets) < size:
            self.has_ended = True
            return
        chunk, self.octets = self.octets[:size], self.octets[size:]
        if self._recipients and not self._is_void:
            self._chunks = (self._chunks or b"") + chunk
        if is_last and self._recipients and not self._is_void:
            content = self._chunks or b""
            self._final(content, is_stuffed=False)
            return
        code = self._code(line)
        if code == 250:
            assert not is_last
            assert self._chunks is not None
            assert len(self._chunks) <= MAX_MESSAGE_BYTES
        else:
            assert code in {552, 503, 530, 554} or self.has_ended, f"{code} to {line!r}"
            self._is_void = self._sender is not None

    def _final(self, sent: bytes, *, is_stuffed: bool) -> None:
        assert self._sender is not None
        code = self._code(b"the message")
        content = reference.repaired(sent, is_stuffed=is_stuffed)
        size_bytes = len(content)
        content = reference.unstuffed(content) if is_stuffed else reference.ended(content)
        if len(sent) > MAX_MESSAGE_BYTES:
            assert code == 552, f"{code} to {len(sent)} octets"
        elif self._is_strict and reference.has_bare_line_ends(sent):
            assert code in {550, 521}, f"{code} to bare line ends"
            self.has_ended = self.has_ended or code == 521
            assert code == 550 or self.octets
        elif b"\0" in sent or b"\r" * MAX_CRS in sent:
            assert code in {550, 552}, f"{code} to NUL or many CRs"
        elif size_bytes > MAX_MESSAGE_BYTES:
            assert code == 552, f"{code} to {size_bytes} octets"
        elif self._wants_dsn and not self._has_dsn and code == 555:
            pass
        elif self._sender.startswith(b"refuse"):
            assert code == 550
        elif self._sender.startswith(b"hangup"):
            assert code == 451
        elif any(one.startswith(b"refuse") for one in self._recipients):
            assert code == 550
        elif any(one.startswith(b"late") for one in self._recipients):
            assert code == 554
        else:
            assert code == 250, f"{code} to a good message"
            self.acknowledged.append(Kept(self._sender, tuple(self._recipients), content))
        self._forget()

    def _forget(self) -> None:
        self._sender, self._recipients, self._chunks = None, [], None
        self._is_void = self._wants_dsn = False


def _is_line_of_smtp(line: bytes, *, is_strict: bool) -> bool:
    octets = line[:-2] if is_strict else line.rstrip(b"\r\n")
    try:
        octets.decode()
    except UnicodeDecodeError:
        if is_strict or not re.match(rb"(?i:HELO|EHLO)[ \t]", octets):
            return False
    allowed = b"" if is_strict else b"\t"
    has_controls = any((octet < 32 or octet == 127) and octet not in allowed for octet in octets)
    is_auth = line[:4].upper() == b"AUTH" and line[4:5] in b" \t\r\n"
    is_ended = line.endswith(b"\r\n") or not is_strict
    return is_ended and not has_controls and (is_auth or len(line) <= 2048)


def _chunk(argument: bytes) -> tuple[int | None, bool]:
    words = re.split(rb"[ \t]+", argument)
    words = [word for word in words if word]
    if not words or len(words) > 2 or len(words[0]) > 12:
        return None, False
    if any(octet not in b"0123456789" for octet in words[0]):
        return None, False
    if len(words) == 2 and words[1].upper() != b"LAST":
        return None, False
    return int(words[0]), len(words) == 2


def judge(conversation: Conversation) -> object:
    """Check a conversation; return its codes in short, to tell new behaviour from known."""
    walk = _Walk(conversation)
    walk.walk()
    assert walk.logins == conversation.let_in
    assert walk.acknowledged == conversation.provider.kept, (
        walk.acknowledged,
        conversation.provider.kept,
    )
    codes = walk.replies.codes
    return tuple(code for at, code in enumerate(codes[:40]) if at == 0 or code != codes[at - 1])
