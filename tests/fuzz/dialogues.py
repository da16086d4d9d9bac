"""Fuzz targets: the two state machines as plain functions, without an event loop.

`ClientTarget` says anything to the client's machine, whole and in pieces, and judges the replies as
`tests.fuzz.session` does. `ProviderTarget` says anything to the provider's machine while a message
is sent, and judges what the machine makes of it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.fuzz.provider import Kept, Provider
from tests.fuzz.session import (
    BUFFER_BYTES,
    LOG_IN,
    MAX_MESSAGE_BYTES,
    MAX_RECIPIENTS,
    Conversation,
    judge,
)
from tests.fuzz.upstream import (
    CONTENT,
    Exchange,
    Plan,
    is_flawless,
    may_be_delivered,
    plan_in,
)
from tests.support.accounts import mailbox
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.errors import OutcomeUnknown, UpstreamClosedEarly
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope, Reply, reply
from xoauth2_proxy.smtp.sasl import ChallengeLogin, PasswordLogin, TokenLogin
from xoauth2_proxy.submission.dialogue import ClientDialogue, State
from xoauth2_proxy.submission.events import (
    ContentArrived,
    Event,
    LoginAttempt,
    LoginMalformed,
    MessageComplete,
    MessageRefused,
    RecipientAdded,
    Signal,
)
from xoauth2_proxy.submission.policy import SessionPolicy
from xoauth2_proxy.upstream.dialogue import Dialogue
from xoauth2_proxy.upstream.dialogue import State as UpstreamState

if TYPE_CHECKING:
    from collections.abc import Sequence

_POLICY = SessionPolicy(
    hostname="relay.example",
    max_message_bytes=MAX_MESSAGE_BYTES,
    max_recipients=MAX_RECIPIENTS,
    buffer_bytes=BUFFER_BYTES,
    idle_seconds=300.0,
    tls_context=None,
    may_auth_in_clear=True,
)
_WITHOUT_ANSWER = (Signal.TURN_OVER, Signal.TLS_UNASKED, Signal.ENDED)
_MAX_UNREAD_BYTES = 16_384  # more than a line may have, and octets of one feed come on top


@dataclass
class Heard:
    """What the machine said, and what it asked for."""

    said: bytearray = field(default_factory=bytearray)
    kept: list[Kept] = field(default_factory=list)
    logins: int = 0
    streamed: list[bytes] = field(default_factory=list)  # of the message that is handed on
    is_streaming: bool = False
    has_ended: bool = False
    starts_tls: bool = False


class ClientTarget:
    """Runs one dialogue an input; `is_logged_in` puts a good login before it."""

    max_bytes = 6000  # twice the longest message and its commands

    def __init__(self, *, is_logged_in: bool = False, verifies: bool = False) -> None:
        self._prefix = LOG_IN if is_logged_in else b""
        self._login = Login(replace(mailbox(), verifies=verifies))

    def close(self) -> None:
        """There is nothing to let go of."""

    def check(self, octets: bytes) -> object:
        """Run `octets` whole and in pieces; both must come to the same."""
        octets = self._prefix + octets
        whole = self._converse([octets])
        pieces = self._converse(cut(octets))
        assert bytes(pieces.said) == bytes(whole.said), (bytes(pieces.said), bytes(whole.said))
        assert pieces.kept == whole.kept
        provider = Provider({"DSN": ""}, kept=whole.kept)
        return judge(Conversation(octets, bytes(whole.said), provider, whole.logins))

    def _converse(self, pieces: Sequence[bytes]) -> Heard:
        dialogue, heard = ClientDialogue(_POLICY, lambda login: login), Heard()
        dialogue.greet()
        for piece in pieces:
            dialogue.feed(piece)
            self._run(dialogue, heard)
            if heard.has_ended:
                break
            assert dialogue.unread_bytes <= _MAX_UNREAD_BYTES, "octets are piled up"
        dialogue.feed_eof()
        self._run(dialogue, heard)
        assert heard.has_ended
        return heard

    def _run(self, dialogue: ClientDialogue, heard: Heard) -> None:
        while (event := dialogue.next_event()) is not None:
            self._see_to(event, dialogue, heard)
            assert dialogue.state is not State.WAITING, f"{event} was answered"
            if event is Signal.ENDED:
                heard.has_ended = True
                break
        heard.said += dialogue.take()

    def _see_to(self, event: Event, dialogue: ClientDialogue, heard: Heard) -> None:
        if isinstance(event, LoginAttempt):
            self._log_in(event, dialogue, heard)
        elif isinstance(event, MessageComplete):
            assert not heard.is_streaming
            self._finish(event.message.envelope, event.content, dialogue, heard)
        elif isinstance(event, RecipientAdded):
            heard.is_streaming = True
            path = event.message.envelope.forward_paths[-1]
            is_good = not path.startswith("refuse")
            dialogue.recipient_answered(
                replies.RECIPIENT_OK if is_good else reply(550, "1.1", "no")
            )
        elif isinstance(event, ContentArrived):
            self._stream(event, dialogue, heard)
        elif event is Signal.TRANSACTION_DROPPED:
            assert heard.is_streaming, "nothing was being handed on"
            heard.is_streaming, heard.streamed = False, []
        elif event is Signal.CONTENT_UNACCEPTABLE:
            assert heard.is_streaming
            heard.streamed = []
        elif isinstance(event, MessageRefused):
            heard.is_streaming, heard.streamed = False, []
        else:
            assert isinstance(event, LoginMalformed) or event in _WITHOUT_ANSWER

    def _stream(self, event: ContentArrived, dialogue: ClientDialogue, heard: Heard) -> None:
        heard.is_streaming = True
        assert event.octets or event.is_last, "nothing was handed on"
        assert len(event.octets) <= BUFFER_BYTES + 65_536, "too much was held back"
        heard.streamed.append(event.octets)
        if event.is_last:
            content = Content(b"".join(heard.streamed), event.is_stuffed)
            self._finish(event.message.envelope, content, dialogue, heard)
        else:
            dialogue.content_sent()

    def _log_in(self, event: LoginAttempt, dialogue: ClientDialogue, heard: Heard) -> None:
        credentials = event.credentials
        is_token = isinstance(credentials, TokenLogin)
        assert not isinstance(credentials, ChallengeLogin), "CRAM-MD5 is not offered"
        shown = (
            credentials.password
            if isinstance(credentials, PasswordLogin)
            else credentials.access_token
        )
        if shown == "later":
            dialogue.login_failed(replies.AUTH_UNAVAILABLE, is_token=is_token)
        elif shown != "secret" or "@" not in credentials.authcid:
            dialogue.login_failed(replies.CREDENTIALS_INVALID, is_token=is_token)
        else:
            heard.logins += 1
            dialogue.logged_in(self._login)

    def _finish(
        self, envelope: Envelope, content: Content, dialogue: ClientDialogue, heard: Heard
    ) -> None:
        heard.is_streaming, heard.streamed = False, []
        paths = [envelope.reverse_path, *envelope.forward_paths]
        if envelope.reverse_path.startswith("hangup"):
            dialogue.finish(replies.UPSTREAM_LOST)
        elif any(path.startswith("refuse") for path in paths):
            dialogue.finish(reply(550, "7.1", "no"))
        elif any(path.startswith("late") for path in envelope.forward_paths):
            dialogue.finish(reply(554, "6.0", "no"))
        else:
            sender, *recipients = (path.encode() for path in paths)
            octets = content.for_bdat()
            if octets and not octets.endswith(b"\r\n"):
                octets += b"\r\n"  # as what sends it with DATA does
            heard.kept.append(Kept(sender, tuple(recipients), octets))
            dialogue.finish(replies.OK)


def cut(octets: bytes) -> list[bytes]:
    """Cut `octets` in one of several ways, always the same for the same octets."""
    number = zlib.crc32(octets)
    way, number = number & 3, number >> 2
    if way == 0:
        at = number % (len(octets) + 1)
        return [octets[:at], octets[at:]]
    size = (1 if len(octets) < 150 else 7, 2 + number % 40, 40 + number % 1500)[way - 1]
    return [octets[at : at + size] for at in range(0, len(octets), size)]


class ProviderTarget:
    """Sends one message an input through the provider's machine."""

    max_bytes = 4000

    def close(self) -> None:
        """There is nothing to let go of."""

    def check(self, octets: bytes) -> object:
        """Let the provider say what the input says; judge the result."""
        plan = plan_in(octets)
        run = _Run(plan)
        run.go()
        return plan.words, str(run.result)[:3], tuple(run.exchange.codes[:12])


class _Run:
    """One message on one connection. Steps begin as the relay begins them."""

    def __init__(self, plan: Plan) -> None:
        self.exchange = Exchange()
        self.result: Reply | Exception | None = None
        self._plan = plan
        self._dialogue = Dialogue(plan.extensions)
        recipients = ["b@y", "c@z"] if b"two" in plan.words else ["b@y"]
        self._envelope = Envelope("a@x", recipients)
        self._blocks = list(plan.blocks)

    def go(self) -> None:
        words = self._plan.words
        if b"verified" in words:
            self._verified()
        elif b"stream" in words:
            self._streamed()
        else:
            content = Content(CONTENT, is_stuffed=False)
            is_fresh = b"stale" not in words
            self._dialogue.send_message(self._envelope, content, is_fresh=is_fresh)
            self.result = self._await()
        self._judge()

    def _streamed(self) -> None:
        self._dialogue.begin(self._envelope, self._envelope.forward_paths)
        self.result = self._await()
        if (
            isinstance(self.result, Reply)
            and self.result.is_positive
            and self._dialogue.state is UpstreamState.READY
        ):
            self._content()

    def _verified(self) -> None:
        self._dialogue.begin(self._envelope, [])
        self.result = self._await()
        paths, is_any = self._envelope.forward_paths, False
        self._envelope.forward_paths = []
        for path in paths:
            if self._dialogue.state is not UpstreamState.READY or not isinstance(
                self.result, Reply
            ):
                return
            if path == paths[0] and not self.result.is_positive:
                return
            self._envelope.forward_paths.append(path)
            self._dialogue.add_recipient(self._envelope)
            self.result = self._await()
            is_any = is_any or (isinstance(self.result, Reply) and self.result.is_positive)
        if is_any and self._dialogue.state is UpstreamState.READY:
            self._content()

    def _content(self) -> None:
        self._dialogue.ask_for_go_ahead()
        self.result = self._await()
        if not self._takes_content:
            return
        for piece in (CONTENT[:10], CONTENT[10:50]):
            self._dialogue.add_content(piece.replace(b"\r\n.", b"\r\n.."))
            self._flush()
        self._dialogue.end_content(CONTENT[50:] + b".\r\n")
        self.result = self._await()

    @property
    def _takes_content(self) -> bool:
        return self._dialogue.state is UpstreamState.GRANTED

    def _await(self) -> Reply | Exception:
        self._flush()
        while self._dialogue.result is None:
            if self._blocks:
                block = self._blocks.pop(0)
                self.exchange.hear(block)
                self._dialogue.feed(block)
            else:
                self._dialogue.lose("hung up")
            self._flush()
        return self._dialogue.result

    def _flush(self) -> None:
        while octets := self._dialogue.take():
            self.exchange.sent += octets

    def _judge(self) -> None:
        exchange, result = self.exchange, self.result
        commands = exchange.commands
        is_complete = b"." in commands
        if isinstance(result, Reply) and result.is_positive and is_complete:
            assert may_be_delivered(exchange), f"{result} was made up: {exchange.said!r}"
        if isinstance(result, UpstreamClosedEarly) and is_complete:
            mail = next(at for at, one in enumerate(commands) if one.startswith(b"MAIL"))
            assert exchange.codes[mail : mail + 1] == [421], "it may have been accepted"
        if isinstance(result, OutcomeUnknown):
            assert is_complete, "nothing can have been delivered"
        if is_flawless(exchange):
            assert isinstance(result, Reply), result
            assert result.is_positive, f"{result} to a message that was accepted"
        if self._dialogue.state is UpstreamState.READY:
            assert len(exchange.codes) == len(commands), (commands, exchange.codes)
