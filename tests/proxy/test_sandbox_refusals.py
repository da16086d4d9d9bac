"""What was refused and why in truth: the record, its page and its JSON; never a secret."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp, xoauth2
from tests.support.sandbox import Sandbox
from tests.support.waiting import until
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile, RefusalPoint
from xoauth2_proxy.sandbox.faults import Action, Fault, FaultScript, Step, TokenAction, TokenFault
from xoauth2_proxy.sandbox.message_store import MessageStore
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings
from xoauth2_proxy.sandbox.provider_state import ProviderState
from xoauth2_proxy.sandbox.refusals import MAX_REFUSALS, ProviderRefusal, Refusals
from xoauth2_proxy.sandbox.smtp.session import Session
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n"
SECRET = "hunter2-secret"


class Peer:
    """A session without a network."""

    def __init__(self, behaviour: Behaviour | None = None, *faults: Fault) -> None:
        self.tokens = MockTokens(b"k" * 32)
        script: FaultScript[Fault] = FaultScript()
        for fault in faults:
            script.add(fault)
        self.provider = ProviderState(behaviour or Behaviour(), self.tokens, MessageStore(), script)
        self.enter()

    def enter(self) -> Peer:
        self.session = Session(self.provider, is_encrypted=True, client="127.0.0.1:4711")
        self.session.greet()
        self.session.receive(b"EHLO client.example\r\n")
        return self

    def say(self, octets: bytes) -> str:
        self.session.receive(octets)
        if self.session.is_held:
            self.session.release()
        return self.session.take_replies().decode()

    def log_in(self, token: str | None = None, mailbox: str = MAILBOX) -> Peer:
        self.say(b"AUTH XOAUTH2\r\n")
        self.say(xoauth2(mailbox, self.tokens.mint(mailbox) if token is None else token) + b"\r\n")
        if self.session.expects is not None:
            self.say(b"\r\n")
        return self

    def deliver(self, content: bytes = b"x\r\n") -> str:
        self.say(ENVELOPE)
        answer = self.say(b"DATA\r\n")
        return self.say(content + b".\r\n") if answer.startswith("354 ") else answer

    @property
    def newest(self) -> ProviderRefusal:
        return self.provider.refusals.before(1_000_000, 1)[0]


def test_what_is_accepted_is_no_refusal() -> None:
    peer = Peer().log_in()
    assert peer.deliver().startswith("250 ")
    assert peer.provider.refusals.total == 0


# Why a login was refused.


def revoked(provider: ProviderState) -> str:
    token = provider.verifier.tokens.mint(MAILBOX)
    provider.verifier.revoke(token)
    return token


TOKENS: dict[str, Callable[[ProviderState], str]] = {
    "the token expired 12 s ago": lambda provider: provider.verifier.tokens.mint(
        MAILBOX, ttl_seconds=-12.1
    ),
    "the token was altered, or is signed with another key (another state directory)": (
        lambda _: MockTokens(b"x" * 32).mint(MAILBOX)
    ),
    f"the token is of b@example.org, the login says {MAILBOX}": (
        lambda provider: provider.verifier.tokens.mint("b@example.org")
    ),
    "the token was revoked": revoked,
    "the token was not minted by a sandbox": lambda _: SECRET,
}


@pytest.mark.parametrize("profile", [ProviderProfile.OUTLOOK, ProviderProfile.GMAIL])
@pytest.mark.parametrize("why", TOKENS)
def test_a_refused_token_is_told_by_its_fault_and_never_shown(
    why: str, profile: ProviderProfile
) -> None:
    peer = Peer(Behaviour(dialect=profile))
    token = TOKENS[why](peer.provider)
    newest = peer.log_in(token).newest
    assert newest.reason == why
    assert (newest.client, newest.mailbox, newest.step) == ("127.0.0.1:4711", MAILBOX, "AUTH")
    assert newest.reply.startswith(("535 5.7.3", "535-5.7.8"))
    assert peer.provider.refusals.total == 1
    assert token not in str(newest)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"AUTH XOAUTH2 %%%", "it is not base64"),
        (b"AUTH XOAUTH2 " + base64.b64encode(b"user=a@b"), "does not end with two ^A"),
        (b"AUTH XOAUTH2 " + base64.b64encode(b"auth=Bearer x\1\1"), "it names no mailbox"),
        (b"AUTH XOAUTH2 " + base64.b64encode(b"user=a@b\1auth=Bad x\1\1"), "no auth=Bearer"),
        (b"AUTH OAUTHBEARER " + base64.b64encode(b"user=a@b\1\1"), "does not begin with n,a="),
        (b"AUTH CRAM-MD5", "use XOAUTH2 or OAUTHBEARER"),
        (b"AUTH XOAUTH2 " + b"A" * 600, "limit max_auth_line_bytes=512"),
        (b"MAIL FROM:<a@b>", "the client has not logged in"),
    ],
)
def test_what_is_no_login_is_told_by_what_is_wrong_with_it(line: bytes, why: str) -> None:
    peer = Peer()
    peer.say(line + b"\r\n")
    if peer.session.expects is not None:
        peer.say(b"\r\n")
    assert why in peer.newest.reason
    assert peer.newest.step == line.partition(b" ")[0].decode()


def test_a_password_is_refused_and_not_kept() -> None:
    peer = Peer(Behaviour(dialect=ProviderProfile.GMAIL))
    peer.say(b"AUTH PLAIN " + base64.b64encode(f"\0{MAILBOX}\0{SECRET}".encode()) + b"\r\n")
    assert peer.newest.reason == "PLAIN with a password; no password is good here, tokens are"
    assert SECRET not in str(peer.newest)


def test_a_secret_in_the_wrong_place_is_not_kept() -> None:
    peer = Peer().log_in("ya29.x", mailbox=SECRET)
    assert (peer.newest.mailbox, peer.newest.step) == ("", "AUTH")
    peer.say(SECRET.encode() + b" " + SECRET.encode() + b"\r\n")
    assert peer.newest.step == "COMMAND"
    assert SECRET.lower() not in str(peer.provider.refusals.before(9, 9)).lower()


def test_what_a_client_claims_cannot_forge_a_line() -> None:
    peer = Peer().log_in("ya29.x", mailbox="a\n\x1b[31m@example.org")
    assert peer.newest.mailbox == "a??[31m@example.org"


def test_the_reason_of_one_command_is_not_the_next_ones() -> None:
    peer = Peer(None, Fault(Step.AUTH, Action.EXPIRED, nth=2)).log_in("ya29.x").log_in().log_in()
    assert peer.newest.reason.startswith("fault auth:expired nth=2")
    assert peer.provider.refusals.total == 2
    assert peer.say(b"DATA\r\n").startswith("503 ")
    assert peer.newest.reason == "MAIL first"


# Limits.


@pytest.mark.parametrize(
    ("behaviour", "step", "why"),
    [
        (Behaviour(messages_per_minute=1), "DATA", "limit messages_per_minute=1"),
        (
            Behaviour(messages_per_day=1, dialect=ProviderProfile.OUTLOOK),
            "END",
            "limit messages_per_day=1",
        ),
        (Behaviour(max_message_bytes=5), "END", "limit max_message_bytes=5"),
        (Behaviour(logins_per_minute=1), "AUTH", "limit logins_per_minute=1"),
        (Behaviour(max_connections_per_mailbox=1), "AUTH", "limit max_connections_per_mailbox=1"),
        (
            Behaviour(max_connections_per_mailbox=1, connections_refused_at=RefusalPoint.END),
            "END",
            "limit max_connections_per_mailbox=1",
        ),
    ],
)
def test_a_limit_is_told_by_its_name_and_figure(behaviour: Behaviour, step: str, why: str) -> None:
    peer = Peer(behaviour).log_in()
    peer.deliver()
    peer.enter().log_in()
    if step != "AUTH":
        peer.deliver(b"more than five\r\n")
    assert (peer.newest.step, peer.newest.reason) == (step, why)
    assert peer.newest.mailbox == MAILBOX


def test_one_recipient_too_many() -> None:
    peer = Peer(Behaviour(max_recipients=1)).log_in()
    peer.say(ENVELOPE + b"RCPT TO:<c@example.org>\r\n")
    assert (peer.newest.step, peer.newest.reason) == ("RCPT", "limit max_recipients=1")


def test_a_chunk_beyond_a_limit_is_told_when_it_is_whole() -> None:
    peer = Peer(Behaviour(messages_per_minute=1)).log_in()
    peer.deliver()
    peer.say(ENVELOPE)
    peer.say(b"BDAT 3 LAST\r\n")
    peer.say(b"x\r\n")
    assert (peer.newest.step, peer.newest.reason) == ("END", "limit messages_per_minute=1")


# Faults.


@pytest.mark.parametrize(
    ("fault", "step", "told"),
    [
        (Fault(Step.END, Action.TEMPFAIL, nth=2), "END", "fault end:tempfail nth=2"),
        (Fault(Step.MAIL, Action.DROP, rate=1.0), "MAIL", "fault mail:drop rate=1"),
        (Fault(Step.CONTENT, Action.STALL, nth=None), "CONTENT", "fault content:stall every"),
        (
            Fault(Step.RCPT, Action.REFUSE, mailbox=MAILBOX),
            "RCPT",
            f"fault rcpt:refuse nth=1 mailbox={MAILBOX}",
        ),
    ],
)
def test_a_fault_is_told_as_it_is_spelt(fault: Fault, step: str, told: str) -> None:
    peer = Peer(None, fault).log_in()
    peer.deliver()
    if fault.nth == 2:
        assert peer.provider.refusals.total == 0
        peer.deliver()
    met = peer.provider.refusals.before(2, 1)[0]
    assert (met.step, met.reason) == (step, told)


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        (ProviderProfile.UNLIMITED, "421 4.3.2 Closing on request"),
        (ProviderProfile.GMAIL, "421 4.7.0 Try again later, closing connection. "),
        (ProviderProfile.OUTLOOK, "421 4.3.2 Service not active"),
    ],
)
def test_421_is_said_in_the_providers_words(profile: ProviderProfile, said: str) -> None:
    peer = Peer(Behaviour(dialect=profile), Fault(Step.MAIL, Action.SHUT_DOWN)).log_in()
    assert peer.say(b"MAIL FROM:<a@b>\r\n").startswith(said)
    own = Fault(Step.MAIL, Action.SHUT_DOWN, text="421 4.0.0 My own")
    peer = Peer(Behaviour(dialect=profile), own).log_in()
    assert peer.say(b"MAIL FROM:<a@b>\r\n") == "421 4.0.0 My own\r\n"


# The record is bounded, and tells who listens.


def test_the_newest_thousand_are_kept() -> None:
    refusals = Refusals()
    heard: list[int] = []
    refusals.listener = lambda refusal: heard.append(refusal.seq)
    for _ in range(MAX_REFUSALS + 5):
        refusals.add(
            "", "", "MAIL", b"550-5.7.1 No\r\n550 5.7.1 never\r\n" + b"x" * 9999, "y" * 9999
        )
    assert refusals.total == heard[-1] == MAX_REFUSALS + 5
    kept = refusals.before(MAX_REFUSALS * 2, MAX_REFUSALS * 2)
    assert [kept[0].seq, kept[-1].seq, len(kept)] == [MAX_REFUSALS + 5, 6, MAX_REFUSALS]
    assert max(len(kept[0].reply), len(kept[0].reason)) == 500
    refusals.add("", "", "MAIL", b"550-5.7.1 No\r\n550 5.7.1 never\r\n")
    assert refusals.before(9999, 1)[0].reason == "No"


# On the wire, and over HTTP.


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    settings = ProviderSettings(behaviour=Behaviour(max_connections=1))
    async with Sandbox(tmp_path, settings) as sandbox:
        yield sandbox


async def refusals_of(sandbox: Sandbox, query: str = "") -> dict[str, Any]:
    async with (
        aiohttp.ClientSession(sandbox.http_url) as http,
        http.get(f"/refusals{query}") as answer,
    ):
        assert answer.status == 200
        found: dict[str, Any] = await answer.json()
        return found


async def test_json_lists_the_newest_first_with_who_it_was(sandbox: Sandbox) -> None:
    async with RawSmtp(sandbox) as client:
        await client.begin()
        await client.authenticate(MAILBOX, "ya29.x")
        await client.command("MAIL FROM:<a@b>")
        async with await RawSmtp(sandbox).connect() as second:
            assert (await second.reply()).startswith("421 ")
    found = await refusals_of(sandbox)
    assert found["total"] == 3
    assert [one["step"] for one in found["refusals"]] == ["CONNECT", "MAIL", "AUTH"]
    assert found["refusals"][0]["reason"] == "limit max_connections=1"
    assert str(found["refusals"][2]["client"]).startswith("127.0.0.1:")
    assert str(found["refusals"][2]["at"]).endswith("+00:00")
    older = await refusals_of(sandbox, "?before=3&limit=1")
    assert [one["seq"] for one in older["refusals"]] == [2]


async def test_a_client_that_does_not_trust_the_authority_is_told(sandbox: Sandbox) -> None:
    host, port = sandbox.smtp_address
    reader, writer = await asyncio.open_connection(host, port)
    await reader.readline()
    writer.write(b"STARTTLS\r\n")
    assert (await reader.readline()).startswith(b"220 ")
    with pytest.raises(ssl.SSLError):
        await writer.start_tls(ssl.create_default_context(), server_hostname="localhost")
    writer.close()
    await until(lambda: sandbox.refusals.total > 0)
    newest = sandbox.refusals.before(9, 1)[0]
    assert (newest.step, newest.reply) == ("TLS", "(closed)")
    assert "does the client trust ca.pem?" in newest.reason


async def test_the_token_endpoints_refusals_are_there_too(sandbox: Sandbox) -> None:
    sandbox.add_fault(TokenFault(action=TokenAction.RATE_LIMITED))
    form = {"grant_type": "refresh_token", "refresh_token": f"mock-refresh-token:{MAILBOX}"}
    async with aiohttp.ClientSession(sandbox.http_url) as http:
        for _ in range(2):
            async with http.post("/oauth/token", data=form):
                pass
        async with http.post("/oauth/token", data=form | {"refresh_token": SECRET}):
            pass
    newest, first = sandbox.refusals.before(9, 9)
    assert (first.step, first.mailbox, first.reason) == ("TOKEN", MAILBOX, "fault token:429 nth=1")
    assert (newest.reply, newest.reason) == (
        "400 invalid_grant",
        "The refresh token is not one of the sandbox's.",
    )
    assert SECRET not in str(newest)


async def test_idle_connections_are_told_by_their_limit(tmp_path: Path) -> None:
    settings = ProviderSettings(behaviour=Behaviour(idle_seconds=0.05))
    async with Sandbox(tmp_path, settings) as sandbox, await RawSmtp(sandbox).connect() as client:
        await client.reply()
        assert (await client.reply()).startswith("421 ")
        newest = sandbox.refusals.before(9, 1)[0]
    assert (newest.step, newest.reason) == ("IDLE", "limit idle_seconds=0.05")


@pytest.mark.parametrize(
    ("profile", "mailbox", "prefix"),
    [
        (ProviderProfile.OUTLOOK, "a@example.org", "Ew"),
        (ProviderProfile.OUTLOOK, "a@gmail.com", "ya29."),
        (ProviderProfile.UNLIMITED, "a@example.org", "ya29."),
        (ProviderProfile.UNLIMITED, "a@outlook.com", "Ew"),
    ],
)
async def test_tokens_look_like_the_providers_where_the_domain_says_nothing(
    profile: ProviderProfile, mailbox: str, prefix: str, tmp_path: Path
) -> None:
    settings = ProviderSettings(behaviour=Behaviour(dialect=profile))
    async with Sandbox(tmp_path, settings, http_port=None) as sandbox:
        assert sandbox.tokens.mint(mailbox).startswith(prefix)
