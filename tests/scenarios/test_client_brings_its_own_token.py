"""A client's own access token: judged before 235 is said, then used for its mail."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import upstream_at
from tests.support.relay import MAILBOX, OTHER_MAILBOX
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import encoded, message
from xoauth2_proxy.sandbox.faults import Fault, Step
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.sandbox import Sandbox
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

REAL = "someone@gmail.com"
MECHANISMS = ("XOAUTH2", "OAUTHBEARER")
REFUSED = "535 5.7.8 Authentication credentials invalid"
FORGED = MockTokens(b"not the sandbox's own signing key").mint(MAILBOX)


def credentials(mechanism: str, login: str, token: str) -> str:
    if mechanism == "XOAUTH2":
        return encoded(f"user={login}\x01auth=Bearer {token}\x01\x01")
    return encoded(f"n,a={login},\x01auth=Bearer {token}\x01\x01")


async def log_in(
    client: Client, mechanism: str, login: str, token: str, *, at_once: bool = True
) -> Reply:
    """Return the last reply of AUTH; the error challenge, if there is one, is answered."""
    line = credentials(mechanism, login, token)
    await client.ehlo()
    if at_once:
        answer = await client.command(f"AUTH {mechanism} {line}")
    else:
        assert (await client.command(f"AUTH {mechanism}")).code == 334
        answer = await client.command(line)
    if answer.code == 334:
        explanation = json.loads(base64.b64decode(answer.text[0]))
        assert explanation["status"] in {"401", "invalid_token"}
        answer = await client.command("" if mechanism == "XOAUTH2" else "AQ==")
    return answer


def real_account(sandbox: Sandbox, **upstream: object) -> dict[str, object]:
    """Return the configuration of an account without refresher, whose provider is `sandbox`."""
    account = {"email": REAL, "provider": "gmail", "allow_any_password": True}
    return {"accounts": [account | {"upstream": upstream_at(sandbox) | upstream}]}


@pytest.mark.parametrize("at_once", [True, False], ids=["initial response", "two steps"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_mock_mailboxs_token_is_verified_here(
    relay: Relay, mechanism: str, at_once: bool
) -> None:
    async with await relay.connect() as client:
        token = relay.sandbox.tokens.mint(MAILBOX)
        answer = await log_in(client, mechanism, MAILBOX.upper(), token, at_once=at_once)
        assert str(answer) == "235 2.7.0 Authentication successful"
        assert relay.sandbox.counters.connections_opened == 0
        assert (await client.send(message())).code == 250
    (kept,) = relay.sandbox.received
    assert (kept.mailbox, kept.content) == (MAILBOX, message())


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("fault", ["expired", "another mailbox's", "forged", "invented", "unknown"])
async def test_a_mock_token_that_is_not_good_is_refused_after_the_challenge(
    relay: Relay, mechanism: str, fault: str
) -> None:
    tokens = relay.sandbox.tokens
    login = "nobody@example.com" if fault == "unknown" else MAILBOX
    token = {
        "expired": tokens.mint(MAILBOX, ttl_seconds=-1),
        "another mailbox's": tokens.mint(OTHER_MAILBOX),
        "forged": FORGED,
        "invented": "ya29.invented",
        "unknown": tokens.mint(MAILBOX),
    }[fault]
    async with await relay.connect() as client:
        await client.ehlo()
        challenge = await client.command(f"AUTH {mechanism} {credentials(mechanism, login, token)}")
        assert challenge.code == 334
        assert str(await client.command("")) == REFUSED
        assert (await client.command("MAIL FROM:<a@b>")).code == 530
        # The session is not spoilt by it.
        assert (await log_in(client, mechanism, MAILBOX, tokens.mint(MAILBOX))).code == 235
    assert (
        await relay.metric(
            "xoauth2_proxy_auth_attempts_total", mechanism=mechanism, result="rejected"
        )
        == 1
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_real_mailboxs_token_is_tried_upstream_before_235(
    start_relay: StartRelay, provider: Sandbox, mechanism: str
) -> None:
    relay = await start_relay(real_account(provider))
    async with await relay.connect() as client:
        answer = await log_in(client, mechanism, REAL, provider.tokens.mint(REAL))
        assert answer.code == 235
        assert provider.counters.auth_accepted == 1
        for number in range(3):
            assert (await client.send(message(f"number {number}"))).code == 250
    # The connection that proved the token carried the mail.
    assert provider.counters.connections_opened == 1
    assert [kept.mailbox for kept in provider.received] == [REAL] * 3
    assert await relay.metric("xoauth2_proxy_token_refreshes_total") == 0


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_token_that_the_provider_refuses_is_refused(
    start_relay: StartRelay, provider: Sandbox, mechanism: str
) -> None:
    relay = await start_relay(real_account(provider))
    async with await relay.connect() as client:
        await client.ehlo()
        line = credentials(mechanism, REAL, provider.tokens.mint(OTHER_MAILBOX))
        assert (await client.command(f"AUTH {mechanism} {line}")).code == 334
        assert str(await client.command("")) == REFUSED
        assert provider.counters.auth_refused == 1
        assert (await client.command("MAIL FROM:<a@b>")).code == 530
        good = provider.tokens.mint(REAL)
        assert (await log_in(client, mechanism, REAL, good)).code == 235
        assert (await client.send(message())).code == 250
    assert provider.received.total == 1


@pytest.mark.parametrize(
    "fault",
    [
        reply_fault(Step.AUTH, "454 4.7.0 Temporary authentication failure"),
        reply_fault(Step.CONNECT, "421 4.3.2 Overloaded"),
        reply_fault(Step.CONNECT, "554 5.3.2 No service"),
        reply_fault(Step.STARTTLS, "454 4.7.0 TLS not available"),
    ],
    ids=lambda fault: f"{fault.step} {fault.text[:3]}",
)
async def test_passing_trouble_upstream_is_told_as_passing(
    start_relay: StartRelay, provider: Sandbox, fault: Fault
) -> None:
    relay = await start_relay(real_account(provider))
    provider.add_fault(fault)
    async with await relay.connect() as client:
        answer = await log_in(client, "XOAUTH2", REAL, provider.tokens.mint(REAL))
        assert str(answer) == "454 4.7.0 Temporary authentication failure"
        assert (await log_in(client, "XOAUTH2", REAL, provider.tokens.mint(REAL))).code == 235


async def test_an_unreachable_provider_is_passing_trouble(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(real_account(provider))
    await provider.stop()
    async with await relay.connect() as client:
        answer = await log_in(client, "XOAUTH2", REAL, provider.tokens.mint(REAL))
        assert str(answer) == "454 4.7.0 Temporary authentication failure"


async def test_a_password_that_can_never_work_is_refused_for_good_with_the_reason(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(real_account(provider))
    async with await relay.connect() as client:
        await client.ehlo()
        for _ in range(2):  # the second time, the failure is remembered
            answer = await client.auth_plain(REAL, "anything")
            assert str(answer) == (
                "534 5.7.9 This mailbox needs XOAUTH2 or OAUTHBEARER; a password cannot work"
            )
        token = provider.tokens.mint(REAL)
        assert (await log_in(client, "XOAUTH2", REAL, token)).code == 235
    rejected = {"mechanism": "PLAIN", "result": "rejected"}
    assert await relay.metric("xoauth2_proxy_auth_attempts_total", **rejected) == 2


async def test_a_wrong_password_does_not_tell_that_the_mailbox_needs_a_token(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    upstream = upstream_at(provider)
    account = {"email": REAL, "provider": "gmail", "password": "right", "upstream": upstream}
    relay = await start_relay({"accounts": [account]})
    async with await relay.connect() as client:
        await client.ehlo()
        assert str(await client.auth_plain(REAL, "wrong")) == REFUSED
        assert (await client.auth_plain(REAL, "right")).code == 534


async def test_a_token_that_ends_between_messages_is_refused_as_permanent(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(real_account(provider))
    async with await relay.connect() as client:
        assert (await log_in(client, "XOAUTH2", REAL, provider.tokens.mint(REAL))).code == 235
        provider.revoke_all()
        provider.close_connections()
        answer = await client.send(message())
    assert (answer.code, answer.enhanced) == (550, "5.7.8")
    (line,) = answer.text
    assert line.startswith("The provider refused the relay's login: 535 ")
    assert provider.received.total == 0
