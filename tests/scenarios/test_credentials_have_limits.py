"""What a credential may send, as its clients see it: one relay, and two workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.by_worker import clients_of_both
from tests.support.smtp_client import message
from tests.support.waiting import until

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess
    from tests.support.smtp_client import Client

MAILBOX = "scanner@example.com"


def document(**limits: object) -> dict[str, object]:
    credential = {"name": "copier", "password": "of the copier", **limits}
    account = {"email": MAILBOX, "provider": "mock", "password": "secret"}
    return {"accounts": [account | {"credentials": [credential]}]}


async def test_messages_beyond_a_limit_are_put_off_and_the_session_goes_on(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(document(messages_per_day=2))
    async with await relay.log_in("copier", "of the copier") as client:
        for _ in range(2):
            assert (await client.send(message())).code == 250
        answer = await client.command("MAIL FROM:<a@example.com>")
        assert (answer.code, answer.enhanced) == (452, "4.7.1")
        assert (await client.command("NOOP")).code == 250
    async with await relay.log_in(MAILBOX, "secret") as client:
        assert (await client.send(message())).code == 250
    assert len(list(relay.sandbox.received)) == 3


async def test_one_connection_more_is_told_421_and_a_closed_one_makes_room(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(document(max_connections=1))
    async with await relay.log_in("copier", "of the copier"):
        async with await relay.connect() as second:
            await second.ehlo()
            answer = await second.auth_plain("copier", "of the copier")
            assert (answer.code, answer.enhanced) == (421, "4.7.0")
            assert await second.closed()
        async with await relay.log_in(MAILBOX, "secret"):
            pass
    for _ in range(100):
        async with await relay.connect() as again:
            await again.ehlo()
            if (await again.auth_plain("copier", "of the copier")).code == 235:
                return
    pytest.fail("the place was never free again")


async def test_a_device_without_a_login_has_limits_too(start_relay: StartRelay) -> None:
    credential = {"name": "copier", "networks": ["127.0.0.1"], "max_connections": 1}
    account = {"email": MAILBOX, "provider": "mock", "credentials": [credential]}
    relay = await start_relay({"accounts": [account]})
    async with await relay.connect() as first, await relay.connect() as second:
        await first.ehlo()
        await second.ehlo()
        assert (await first.send(message())).code == 250
        assert (await first.send(message())).code == 250
        assert (await second.command("MAIL FROM:<a@example.com>")).code == 421


@pytest.mark.one_loop
async def test_the_limits_hold_for_all_workers_together(start_process: StartProcess) -> None:
    proxy = await start_process(document(messages_per_day=100), "--sandbox", "--workers", "2")

    async def begins(client: Client) -> bool:
        answer = await client.command("MAIL FROM:<a@example.com>")
        assert answer.code in (250, 452)
        await client.command("RSET")
        return answer.code == 250

    async with clients_of_both(proxy) as clients:
        for client in clients:
            assert (await client.auth_plain("copier", "of the copier")).code == 235
        first, *others = clients
        assert all([await begins(first) for _ in range(100)])
        assert not await begins(first)
        sent = 0

        async def are_told_too() -> bool:
            nonlocal sent
            now = sum([await begins(one) for one in others])
            sent += now
            return now == 0

        await until(are_told_too)  # the other worker hears of it a moment later
        assert sent < 100
