"""Floods of connections: who still gets in. Clients come from many addresses by a PROXY header."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.submission.admission import GRACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

CONNECTIONS = "xoauth2_proxy_client_connections_total"


def behind_a_balancer(**listener: object) -> dict[str, object]:
    """Return a configuration whose clients are named by a balancer on this machine."""
    account = {"email": MAILBOX, "provider": "mock", "password": PASSWORD}
    return {"accounts": [account], "listener": {"proxies": ["127.0.0.1"], **listener}}


@pytest.fixture
async def clients() -> AsyncIterator[AsyncExitStack]:
    """Closes the clients that a test enters."""
    async with AsyncExitStack() as stack:
        yield stack


async def come(relay: Relay, clients: AsyncExitStack, address: str) -> Client:
    """Return a client from this address that has read its greeting, or a refusal."""
    client = Client(*await asyncio.open_connection(relay.host, relay.port))
    await clients.enter_async_context(client)
    family = "TCP6" if ":" in address else "TCP4"
    server = "::2" if ":" in address else "192.0.2.250"
    client.write(f"PROXY {family} {address} {server} 4000 25\r\n".encode())
    client.greeting = await client.reply()
    return client


async def serves(client: Client) -> bool:
    await client.ehlo()
    logged_in = await client.auth_plain(MAILBOX, PASSWORD)
    return logged_in.code == 235 and (await client.send(message())).is_positive


async def test_400_idle_sockets_of_one_address_shut_nobody_out(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(behind_a_balancer(max_connections=100))
    greetings = [(await come(relay, clients, "192.0.2.1")).greeting for _ in range(400)]
    assert [greeting.code for greeting in greetings] == [220] * 80 + [421] * 320
    assert greetings[-1] == replies.TOO_MANY_FROM_ADDRESS
    assert await serves(await come(relay, clients, "192.0.2.2"))
    assert await relay.metric(CONNECTIONS, result="refused") == 320


async def test_addresses_of_one_ipv6_network_count_as_one(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(behind_a_balancer(max_connections_per_address=2))
    codes = [
        (await come(relay, clients, address)).greeting.code
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
    ]
    assert codes == [220, 220, 421, 220]


async def test_an_address_that_logged_in_lately_gets_into_a_listener_full_of_strangers(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(behind_a_balancer(max_connections=20))
    async with await come(relay, clients, "192.0.2.99") as scanner:
        assert await serves(scanner)
        assert (await scanner.command("QUIT")).code == 221
        assert await scanner.closed()
    strangers = [await come(relay, clients, f"192.0.2.{number}") for number in range(20)]
    assert (await come(relay, clients, "192.0.2.50")).greeting == replies.TOO_MANY_CONNECTIONS
    assert await serves(await come(relay, clients, "192.0.2.99"))
    assert await strangers[0].reply() == replies.DISPLACED
    assert await strangers[0].closed()
    assert await relay.metric(CONNECTIONS, result="displaced") == 1


@pytest.mark.simulated_time
async def test_a_newcomer_takes_the_place_of_who_had_time_to_log_in(
    start_relay: StartRelay, clients: AsyncExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr("xoauth2_proxy.submission.listener.time.monotonic", loop.time)
    relay = await start_relay(behind_a_balancer(max_connections=3))
    logged_in = await come(relay, clients, "192.0.2.1")
    assert await serves(logged_in)
    strangers = [await come(relay, clients, f"192.0.2.{number}") for number in (2, 3)]
    await asyncio.sleep(GRACE_SECONDS)
    assert (await come(relay, clients, "192.0.2.4")).greeting.code == 220
    assert await strangers[0].reply() == replies.DISPLACED
    assert (await strangers[1].command("NOOP")).is_positive
    assert (await logged_in.command("NOOP")).is_positive


async def test_a_balancers_own_checks_are_not_limited_as_one_address(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(behind_a_balancer(max_connections_per_address=1))
    for _ in range(3):
        client = Client(*await asyncio.open_connection(relay.host, relay.port))
        await clients.enter_async_context(client)
        client.write(b"PROXY UNKNOWN\r\n")
        assert (await client.reply()).code == 220


async def test_programs_of_this_machine_are_not_limited_as_one_address(
    start_relay: StartRelay,
) -> None:
    settings = behind_a_balancer(proxies=[], max_connections_per_address=1)
    relay = await start_relay(settings)
    async with await relay.connect() as one, await relay.connect() as other:
        assert one.greeting.code == other.greeting.code == 220


async def test_a_client_that_left_frees_its_place(
    start_relay: StartRelay, clients: AsyncExitStack
) -> None:
    relay = await start_relay(behind_a_balancer(max_connections_per_address=1))
    async with await come(relay, clients, "192.0.2.1") as first:
        assert first.greeting.code == 220
        assert (await come(relay, clients, "192.0.2.1")).greeting.code == 421

    async def gets_in() -> bool:
        return (await come(relay, clients, "192.0.2.1")).greeting.code == 220

    await until(gets_in)


# What one session may do.


async def test_commands_without_a_message_are_limited(start_relay: StartRelay) -> None:
    relay = await start_relay(behind_a_balancer(proxies=[], max_commands=10))
    async with await relay.log_in() as client:  # EHLO and AUTH
        for _ in range(3):  # each begins a count of its own
            assert (await client.send(message())).is_positive
            for _ in range(7):
                assert (await client.command("NOOP")).is_positive
        for _ in range(3):
            assert (await client.command("NOOP")).is_positive
        assert await client.command("NOOP") == replies.TOO_MANY_COMMANDS
        assert await client.closed()


async def test_bad_commands_are_limited(start_relay: StartRelay) -> None:
    relay = await start_relay(behind_a_balancer(proxies=[], max_bad_commands=3))
    async with await relay.connect() as client:
        assert (await client.command("FOO")).code == 500
        assert (await client.command("FOO")).code == 500
        assert await client.command("FOO") == replies.TOO_MANY_BAD_COMMANDS
        assert await client.closed()
