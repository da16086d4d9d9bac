"""What becomes of mail when the token endpoint is in trouble or says no, in each of its ways.

The whole relay with the refresher for any provider, a real HTTP endpoint, and a mail server that
takes the tokens it gave out. Clients are told to come again, or that a person is needed; they are
not told more than that, and the endpoint is not asked more often than it can bear.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.support.peers import serving
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD, Relay
from tests.support.smtp_client import message
from tests.support.token_endpoint import (
    CLOSES,
    GARBAGE,
    HANGS,
    TRUNCATED,
    Answer,
    TokenEndpoint,
    answer,
    error,
)
from tests.support.token_mail import (
    TokenMail,
    mailbox_of,
    provider_at,
    school,
    token_mail,
)
from tests.support.waiting import PATIENCE_SECONDS, seconds_for, until
from xoauth2_proxy.oauth import token_request, token_state
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import trustme

    from tests.conftest import StartRelay
    from tests.support.peers import Peer

pytestmark = pytest.mark.one_loop

LATER, SIGN_IN, WELCOME = "454 4.7.0", "535 5.7.8", "235 2.7.0"
LOGINS = 20
FAILING, WELL = MAILBOX, OTHER_MAILBOX
RETRY_AFTER_SECONDS = 77


@dataclass
class Case:
    """What the endpoint does for one mailbox, and what its client and its operator are told."""

    given: Answer
    told: str
    error: str  # in the log
    cause: str = ""  # in the log, where the endpoint's words say one
    remedy: str = ""


TROUBLE = {
    "429": Case(
        answer({}, 429, {"Retry-After": str(RETRY_AFTER_SECONDS)}),
        LATER,
        "HTTP 429",
    ),
    "500": Case(error("internal_failure", status=500), LATER, "internal_failure"),
    "503": Case(answer(b"<h1>Unavailable</h1>", 503), LATER, "HTTP 503"),
    "hang": Case(HANGS, LATER, "no answer in time"),
    "garbage": Case(GARBAGE, LATER, "not a JSON object"),
    "truncated JSON": Case(
        TRUNCATED, LATER, "closed the connection before its response was complete"
    ),
    "broken JSON": Case(answer(b'{"access_token": "at-'), LATER, "not a JSON object"),
    "silence": Case(CLOSES, LATER, "closed the connection before its response was complete"),
    "no token": Case(answer({"token_type": "Bearer"}), LATER, "no access token"),
    "invalid_grant": Case(
        error("invalid_grant", "Token has been expired or revoked."),
        SIGN_IN,
        "invalid_grant: Token has been expired or revoked.",
        "The sign-in is no longer valid",
        f"xoauth2-proxy login {FAILING}",
    ),
    "interaction_required": Case(
        error("interaction_required", "AADSTS50076: use multi-factor authentication."),
        SIGN_IN,
        "interaction_required: AADSTS50076",
        "Microsoft wants a second factor",
        f"xoauth2-proxy login {FAILING}",
    ),
    # The operator can mend it, so mail waits where it is.
    "invalid_client": Case(
        error("invalid_client", "The OAuth client was not found.", 401),
        LATER,
        "invalid_client: The OAuth client was not found.",
        "The provider does not know the client",
        "client_id",
    ),
}
PASSING = ("429", "500", "503", "hang", "garbage", "truncated JSON", "silence")
CASES = pytest.mark.parametrize("case", TROUBLE.values(), ids=TROUBLE.keys())


@dataclass
class Scene:
    """A relay with a mailbox whose endpoint fails, and one whose endpoint does not."""

    relay: Relay
    failing: TokenEndpoint
    well: TokenEndpoint
    mail: TokenMail

    async def log_in(self, mailbox: str = FAILING) -> str:
        async with await self.relay.connect() as client:
            await client.ehlo()
            reply = await client.auth_plain(mailbox, PASSWORD)
        return f"{reply.code} {reply.enhanced}"

    async def send(self, mailbox: str) -> int:
        async with await self.relay.log_in(mailbox) as client:
            return (await client.send(message())).code

    async def some_seconds(self) -> float:
        """Return a time in which much can be done on this machine: half a second on a fast one."""
        return max(0.5, 50 * await seconds_for(self.send(WELL)))


@pytest.fixture
def refreshers() -> Iterator[dict[str, OidcRefresher]]:
    with ThreadPoolExecutor(4) as threads:
        yield {"oidc": OidcRefresher(threads)}


@asynccontextmanager
async def endpoints(
    authority: trustme.CA | None = None,
) -> AsyncIterator[tuple[TokenEndpoint, TokenEndpoint]]:
    """Give the endpoint that is going to fail and the one that is not; each knows its mailbox."""
    async with TokenEndpoint(authority) as failing, TokenEndpoint() as well:
        failing.grants(f"rt-{FAILING}")
        well.grants(f"rt-{WELL}")
        try:
            yield failing, well
        finally:
            failing.release()


@pytest.fixture
async def scene(
    start_relay: StartRelay, refreshers: dict[str, OidcRefresher]
) -> AsyncIterator[Scene]:
    async with endpoints() as (failing, well):

        def is_good(token: str) -> bool:
            return token in failing.issued + well.issued

        async with token_mail(is_good) as mail:
            document = document_of(failing.token_url, well, mail.port)
            relay = await start_relay(document, refreshers=refreshers)
            yield Scene(relay, failing, well, mail)


def document_of(
    token_url: str, well: TokenEndpoint, port: int, **changes: object
) -> dict[str, object]:
    of_its_own = {
        "oauth_token_url": token_url,
        # Each message logs in upstream, and so needs a token.
        "limits": {"max_messages_per_connection": 1},
        **changes,
    }
    failing = mailbox_of(FAILING, refresh_token=f"rt-{FAILING}", **of_its_own)
    return school(
        provider_at(well.token_url, port),
        failing,
        mailbox_of(WELL, refresh_token=f"rt-{WELL}"),
    )


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up a hanging endpoint soon, from now on."""
    monkeypatch.setattr(token_request, "_REFRESH_SECONDS", 0.3)


@pytest.fixture
def is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave an endpoint in trouble alone for longer than the test takes."""
    monkeypatch.setattr(token_state, "_MIN_BACK_OFF_SECONDS", PATIENCE_SECONDS)


def complaints(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return the fields of the lines about tokens that cannot be had."""
    records = [one for one in caplog.records if one.message == "no access token"]
    return [vars(one)["fields"] for one in records]


def check_complaints(caplog: pytest.LogCaptureFixture, case: Case) -> None:
    (line,) = complaints(caplog)
    assert line["account"] == FAILING
    assert case.error in str(line["error"])
    assert case.cause in str(line.get("cause", ""))
    assert case.remedy in str(line.get("remedy", ""))
    assert ("cause" in line) == ("remedy" in line) == bool(case.cause)
    assert f"rt-{FAILING}" not in caplog.text


@CASES
@pytest.mark.usefixtures("is_asked_once")
async def test_a_cold_mailbox_is_told_and_its_neighbour_notices_nothing(
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    assert await scene.send(WELL) == 250
    if case.given is HANGS:
        hurry(monkeypatch)
    scene.failing.always(case.given)
    told = asyncio.gather(*(scene.log_in() for _ in range(LOGINS)))
    sent = asyncio.gather(*(scene.send(WELL) for _ in range(LOGINS)))
    assert set(await told) == {case.told}
    assert set(await sent) == {250}
    assert len(scene.failing.token_requests) == 1
    assert len(scene.well.token_requests) == 1
    assert {mailbox for mailbox, _ in scene.mail.logins} == {WELL}
    check_complaints(caplog, case)


@pytest.mark.parametrize("case", [TROUBLE[name] for name in PASSING], ids=PASSING)
async def test_mail_goes_on_with_the_token_that_still_works(
    scene: Scene,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    case: Case,
) -> None:
    # Due for renewal after three quarters of it, though it works for longer.
    scene.failing.lifetime_seconds = 4 * await scene.some_seconds()
    assert await scene.send(FAILING) == 250
    if case.given is HANGS:
        hurry(monkeypatch)
    scene.failing.always(case.given)
    await until(lambda: len(scene.failing.token_requests) == 2)  # ahead of time, for no message
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not complaints(caplog):
            assert await scene.send(FAILING) == 250
    assert await scene.send(FAILING) == 250, "the token that is there was given up"
    assert len(scene.failing.token_requests) == 2
    assert {token for mailbox, token in scene.mail.logins if mailbox == FAILING} == {
        scene.failing.issued[0]
    }
    check_complaints(caplog, case)


async def test_mail_waits_once_the_last_token_has_ended_and_goes_on_with_the_next(
    scene: Scene,
) -> None:
    scene.failing.lifetime_seconds = await scene.some_seconds()
    assert await scene.send(FAILING) == 250
    scene.failing.always(answer({}, 503))
    async with await scene.relay.log_in(FAILING) as client:

        async def it_has_ended() -> bool:
            reply = await client.send(message())
            assert (reply.code, reply.enhanced[:1]) in {(250, "2"), (451, "4")}
            return reply.code == 451

        await until(it_has_ended)
        scene.failing.always(None)

        async def it_goes_on() -> bool:
            return (await client.send(message())).code == 250

        await until(it_goes_on)
    assert await scene.send(WELL) == 250


async def test_nobody_asks_again_before_the_time_the_endpoint_named(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.failing.will(TROUBLE["429"].given)  # from then on it would answer
    for _ in range(3):
        assert await scene.log_in() == LATER
        await asyncio.sleep(0.6)  # well beyond what the relay waits by itself at first
    assert len(scene.failing.token_requests) == 1
    (line,) = complaints(caplog)
    assert line["retry_seconds"] == RETRY_AFTER_SECONDS


async def test_without_a_named_time_it_is_asked_again_soon(scene: Scene) -> None:
    scene.failing.will(answer({}, 503), GARBAGE)

    async def it_works() -> bool:
        reply = await scene.log_in()
        assert reply in {LATER, WELCOME}
        return reply == WELCOME

    await until(it_works)
    assert len(scene.failing.token_requests) == 3


# Where there is no answer because there is no connection.


async def speak_no_tls(peer: Peer) -> None:
    peer.says("220 mail.example ESMTP")
    await peer.rest()


async def say_nothing(peer: Peer) -> None:
    await peer.rest()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("DNS", "endpoint.invalid does not resolve"),
        ("refused", "refuses connections"),
        ("stranger's certificate", "has a certificate that is not trusted"),
        ("no TLS", "does not speak TLS as expected"),
        ("silent before TLS", "no answer in time"),
    ],
)
@pytest.mark.usefixtures("is_asked_once")
async def test_an_endpoint_out_of_reach_is_named_and_tried_again_later(
    start_relay: StartRelay,
    refreshers: dict[str, OidcRefresher],
    authority: trustme.CA,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trouble: str,
    said: str,
) -> None:
    async with (
        endpoints(authority) as (failing, well),
        token_mail() as mail,
        serving(speak_no_tls) as plain,
        serving(say_nothing) as silent,
    ):
        urls = {
            "DNS": "https://endpoint.invalid/token",
            "refused": "https://localhost:9/token",  # discard (RFC 863): nobody listens
            "stranger's certificate": failing.token_url,
            "no TLS": f"https://localhost:{plain}/token",
            "silent before TLS": f"https://localhost:{silent}/token",
        }
        document = document_of(urls[trouble], well, mail.port)
        scene = Scene(await start_relay(document, refreshers=refreshers), failing, well, mail)
        assert await scene.send(WELL) == 250
        if trouble == "silent before TLS":
            hurry(monkeypatch)
        assert set(await asyncio.gather(*(scene.log_in() for _ in range(LOGINS)))) == {LATER}
        assert await scene.send(WELL) == 250
        assert failing.token_requests == []
        check_complaints(caplog, Case(HANGS, LATER, said))


async def test_with_its_authority_named_the_same_endpoint_is_trusted(
    start_relay: StartRelay, refreshers: dict[str, OidcRefresher], authority: trustme.CA
) -> None:
    async with endpoints(authority) as (failing, well), token_mail() as mail:
        trusting = document_of(failing.token_url, well, mail.port, ca_file=str(failing.ca_file))
        scene = Scene(await start_relay(trusting, refreshers=refreshers), failing, well, mail)
        assert await scene.send(FAILING) == 250
        assert len(failing.token_requests) == 1


async def test_a_grant_that_dies_is_asked_for_once_and_told_when_its_token_ends(
    scene: Scene,
) -> None:
    scene.failing.lifetime_seconds = 2 * await scene.some_seconds()
    assert await scene.send(FAILING) == 250
    scene.failing.always(TROUBLE["invalid_grant"].given)
    replies: list[str] = []

    async def it_is_told() -> bool:
        replies.append(await scene.log_in())
        return replies[-1] == SIGN_IN

    await until(it_is_told)
    assert set(replies) <= {WELCOME, SIGN_IN}
    assert replies[0] == WELCOME
    asked = len(scene.failing.token_requests)
    assert {await scene.log_in() for _ in range(LOGINS)} == {SIGN_IN}
    assert len(scene.failing.token_requests) == asked == 2
