"""A token that the provider refuses is forgotten, fetched anew once and tried once more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.relay import MAILBOX
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import message
from tests.support.token_scripts import WrittenRefresher
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointUnavailable
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from xoauth2_proxy.errors import TokenError

REFRESHES = "xoauth2_proxy_token_refreshes_total"
STRANGE = MockTokens(b"another provider's signing key!!").mint(MAILBOX)


async def test_a_revoked_token_is_replaced_and_the_message_delivered(relay: Relay) -> None:
    async with await relay.log_in() as client:
        relay.sandbox.revoke_all()
        assert (await client.send(message())).code == 250
    counters = relay.sandbox.counters
    # Refused: the error challenge was answered with an empty line, and the 535 read.
    assert (counters.auth_refused, counters.auth_accepted) == (1, 1)
    assert counters.connections_opened == 2
    assert await relay.metric(REFRESHES, provider="mock", result="ok") == 2
    assert [kept.content for kept in relay.sandbox.received] == [message()]


async def test_connections_that_find_out_together_share_one_new_token(relay: Relay) -> None:
    clients = [await relay.log_in() for _ in range(10)]
    relay.sandbox.revoke_all()
    answers = await asyncio.gather(
        *(client.send(message(f"number {number}")) for number, client in enumerate(clients))
    )
    assert {answer.code for answer in answers} == {250}
    assert relay.sandbox.received.total == 10
    assert await relay.metric(REFRESHES) == 2
    for client in clients:
        await client.close()


async def test_connections_opened_before_a_revocation_go_on(relay: Relay) -> None:
    async with await relay.log_in() as client:
        assert (await client.send(message("before"))).code == 250
        relay.sandbox.revoke_all()
        assert (await client.send(message("after"))).code == 250
    assert relay.sandbox.counters.auth_refused == 0


@pytest.mark.parametrize("code", [535, 534, 550])
async def test_a_token_refused_twice_is_told_as_permanent(
    start_relay: StartRelay, code: int
) -> None:
    refresher = WrittenRefresher(STRANGE)
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    if code != 535:
        relay.sandbox.add_fault(reply_fault(Step.AUTH, f"{code} 5.7.9 No", nth=None))
    async with await relay.log_in() as client:
        answer = await client.send(message())
        assert (answer.code, answer.enhanced) == (550, "5.7.8")
        (line,) = answer.text
        assert line.startswith(f"The provider refused the relay's login: {code} ")
        assert relay.sandbox.counters.auth_refused == 2
        assert refresher.requests == 2
        # The next message tries again, for the provider may have minded something else; but a new
        # token is not asked for within the minute.
        relay.sandbox.clear_faults()
        assert (await client.send(message())).code == 550
    assert relay.sandbox.arrivals(Step.AUTH) == 3
    assert refresher.requests == 2
    assert relay.sandbox.received.total == 0


async def test_a_provider_that_minded_something_else_is_served_once_it_is_mended(
    relay: Relay,
) -> None:
    said = "535 5.7.139 SmtpClientAuthentication is disabled"
    for nth in (1, 2):
        relay.sandbox.add_fault(reply_fault(Step.AUTH, said, nth=nth))
    async with await relay.log_in() as client:
        assert (await client.send(message())).code == 550
        assert (await client.send(message())).code == 250
    assert await relay.metric(REFRESHES) == 2


@pytest.mark.parametrize("said", ["454 4.7.0 Try again", "421 4.7.0 Try again", "432 4.7.12 No"])
async def test_a_passing_refusal_does_not_cost_the_token(relay: Relay, said: str) -> None:
    relay.sandbox.add_fault(reply_fault(Step.AUTH, said))
    async with await relay.log_in() as client:
        answer = await client.send(message())
        assert str(answer) == "451 4.7.0 Temporary authentication failure"
        assert (await client.send(message())).code == 250
    assert await relay.metric(REFRESHES) == 1
    assert relay.sandbox.received.total == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GrantRevoked("invalid_grant"), "550 5.7.8"),
        (TokenEndpointUnavailable("timed out"), "451 4.7.0"),
    ],
)
async def test_without_a_new_token_the_message_is_refused(
    start_relay: StartRelay, error: TokenError, told: str
) -> None:
    refresher = WrittenRefresher(STRANGE, error)
    relay = await start_relay(one_account(), refreshers={"mock": refresher})
    async with await relay.log_in() as client:
        assert str(await client.send(message())).startswith(told)
    assert (refresher.requests, relay.sandbox.arrivals(Step.AUTH)) == (2, 1)
    assert relay.sandbox.received.total == 0
