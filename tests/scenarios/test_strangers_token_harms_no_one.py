"""Made-up tokens cost their stranger an answer, and the mailbox's own clients nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import upstream_at
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import encoded, message
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.sandbox import Sandbox
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

REAL = "someone@gmail.com"
UNTIL_ENDED = 3600.0  # seconds of a delay that the test ends
WAITING = "<Pool 1 leased or opening, 0 idle, 1 waiting>"


def one_connection(provider: Sandbox) -> dict[str, object]:
    """Return an account whose clients bring tokens, and which may have one connection."""
    account = {"email": REAL, "provider": "gmail", "allow_any_password": True}
    limits = {"max_connections": 1}
    return {"accounts": [account | {"upstream": upstream_at(provider), "limits": limits}]}


def auth(token: str) -> str:
    return "AUTH XOAUTH2 " + encoded(f"user={REAL}\x01auth=Bearer {token}\x01\x01")


async def greeted(relay: Relay) -> Client:
    client = await relay.connect()
    await client.ehlo()
    return client


async def turned_away(stranger: Client) -> Reply:
    """Return the answer to the token that the stranger has sent."""
    answer = await stranger.reply()
    return await stranger.command("") if answer.code == 334 else answer


async def test_a_message_that_waits_behind_a_strangers_attempt_is_delivered(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(one_connection(provider))
    token = provider.tokens.mint(REAL)
    async with await greeted(relay) as good, await greeted(relay) as stranger:
        assert (await good.command(auth(token))).code == 235
        provider.add_fault(Fault(Step.AUTH, Action.DELAY, seconds=UNTIL_ENDED))
        stranger.write(auth("ya29.made-up-by-a-stranger").encode() + b"\r\n")
        await provider.arrived(Step.AUTH, 2)
        sending = asyncio.create_task(good.send(message()))
        await until(lambda: repr(relay.app._pool) == WAITING)
        provider.end_delays()
        assert (await turned_away(stranger)).code == 535
        assert (await sending).code == 250
    assert [kept.mailbox for kept in provider.received] == [REAL]
    assert provider.counters.peak_by_mailbox == {REAL: 1}


@pytest.mark.parametrize("answer", ["535 5.7.8 No", "454 4.7.0 Later", "421 4.7.0 Go away"])
async def test_whatever_the_provider_says_of_a_strangers_token(
    start_relay: StartRelay, provider: Sandbox, answer: str
) -> None:
    relay = await start_relay(one_connection(provider))
    token = provider.tokens.mint(REAL)
    async with await greeted(relay) as good, await greeted(relay) as stranger:
        assert (await good.command(auth(token))).code == 235
        # The reply to the stranger comes late: the good client's message waits for it.
        provider.add_fault(Fault(Step.EHLO, Action.DELAY, seconds=UNTIL_ENDED))
        provider.add_fault(reply_fault(Step.AUTH, answer))
        stranger.write(auth("ya29.made-up-by-a-stranger").encode() + b"\r\n")
        await provider.arrived(Step.EHLO, 3)
        sending = asyncio.create_task(good.send(message()))
        await until(lambda: repr(relay.app._pool) == WAITING)
        provider.end_delays()
        assert (await turned_away(stranger)).code in {454, 535}
        assert (await sending).code == 250
    assert provider.received.total == 1


async def test_many_strangers_crowd_nobody_out(start_relay: StartRelay, provider: Sandbox) -> None:
    relay = await start_relay(one_connection(provider))
    token = provider.tokens.mint(REAL)
    strangers = [await greeted(relay) for _ in range(20)]
    async with await greeted(relay) as good:
        assert (await good.command(auth(token))).code == 235
        for number, stranger in enumerate(strangers):
            stranger.write(auth(f"ya29.made-up-by-a-stranger-{number}").encode() + b"\r\n")
        for number in range(10):
            assert (await good.send(message(f"number {number}"))).code == 250
        for stranger in strangers:
            assert (await turned_away(stranger)).code in {454, 535}
            await stranger.close()
    assert provider.received.total == 10
    assert provider.counters.peak_by_mailbox == {REAL: 1}


async def test_a_token_once_proved_lets_in_while_a_stranger_is_tried(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(one_connection(provider))
    token = provider.tokens.mint(REAL)
    async with (
        await greeted(relay) as first,
        await greeted(relay) as again,
        await greeted(relay) as stranger,
    ):
        assert (await first.command(auth(token))).code == 235
        provider.add_fault(Fault(Step.AUTH, Action.STALL))
        stranger.write(auth("ya29.made-up-by-a-stranger").encode() + b"\r\n")
        await provider.arrived(Step.AUTH, 2)
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert (await again.command(auth(token))).code == 235


async def test_only_a_few_made_up_tokens_wait_to_be_tried(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(one_connection(provider))
    provider.add_fault(Fault(Step.AUTH, Action.STALL, nth=None))
    strangers = [await greeted(relay) for _ in range(10)]
    for number, stranger in enumerate(strangers):
        stranger.write(auth(f"ya29.made-up-by-a-stranger-{number}").encode() + b"\r\n")
    answers = [asyncio.create_task(stranger.reply()) for stranger in strangers]
    # One is being tried and five wait; the others are told so, not kept.
    told = [await answer for answer in asyncio.as_completed(answers[6:])]
    assert [str(answer)[:9] for answer in told] == ["454 4.7.0"] * 4
    assert not any(answer.done() for answer in answers[:6])
    assert provider.arrivals(Step.AUTH) <= 1
    for answer in answers:
        answer.cancel()
    await asyncio.gather(*answers, return_exceptions=True)
    for stranger in strangers:
        await stranger.close()


async def test_clients_with_one_and_the_same_token_all_get_in(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    relay = await start_relay(one_connection(provider))
    token = provider.tokens.mint(REAL)
    clients = [await greeted(relay) for _ in range(20)]
    answers = await asyncio.gather(*(client.command(auth(token)) for client in clients))
    assert [answer.code for answer in answers] == [235] * 20
    assert provider.arrivals(Step.AUTH) == 1
    for client in clients:
        await client.close()
