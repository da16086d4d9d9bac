"""Several listeners in one relay: each with its addresses, its name and its cap."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from xoauth2_proxy import replies
from xoauth2_proxy.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": PASSWORD}]
TWO: list[dict[str, object]] = [
    {"name": "office", "port": 0},
    {"name": "hall", "port": 0, "host": ["127.0.0.2", "::1"]},
]


@pytest.mark.both_loops
async def test_each_listener_takes_a_message_on_each_address(start_relay: StartRelay) -> None:
    relay = await start_relay({"accounts": ACCOUNTS, "listeners": TWO})
    assert list(relay.addresses) == ["office", "hall"]
    assert [host for host, _ in relay.addresses["hall"]] == ["127.0.0.2", "::1"]
    for host, port in (*relay.addresses["office"], *relay.addresses["hall"]):
        async with await Client.connect(host, port) as client:
            await send(client)
    assert relay.sandbox.received.total == 3


async def send(client: Client) -> None:
    await client.ehlo()
    assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
    assert (await client.send(message())).code == 250


@pytest.mark.both_loops
async def test_each_listener_has_its_own_cap(start_relay: StartRelay) -> None:
    listeners = [one | {"max_connections": 1} for one in TWO]
    relay = await start_relay({"accounts": ACCOUNTS, "listeners": listeners})
    (office,), (hall, _) = relay.addresses.values()
    async with await Client.connect(*office), await Client.connect(*hall) as second:
        assert second.greeting.code == 220
        async with await Client.connect(*office) as third:
            assert third.greeting == replies.TOO_MANY_CONNECTIONS


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
async def test_the_program_names_each_listener(
    start_process: StartProcess, workers: tuple[str, ...]
) -> None:
    document = {"accounts": ACCOUNTS, "listeners": TWO}
    proxy = await start_process(document, "--sandbox", *workers)
    assert list(proxy.listeners) == ["office", "hall"]
    assert len(proxy.listeners["hall"]) == 2
    for address in (*proxy.listeners["office"], *proxy.listeners["hall"]):
        assert address in proxy.stdout
        host, _, port = address.rpartition(":")
        async with await Client.connect(host.strip("[]"), int(port)) as client:
            await send(client)
    words = ["status", "--url", proxy.admin_url]
    shown = await asyncio.to_thread(CliRunner().invoke, cli, words)
    for name, found in proxy.listeners.items():
        assert f"listener {name} ({', '.join(found)}): TLS none\n" in shown.stdout
    assert await proxy.stop() == 0
    assert "(hall)" in proxy.stdout


async def test_every_worker_serves_tls_and_text_on_one_port(
    start_process: StartProcess, authority: trustme.CA, tmp_path: Path
) -> None:
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    listener = {"tls": "auto", "tls_cert": "relay.pem", "tls_key": "relay.pem"}
    document = {"accounts": ACCOUNTS, "listener": listener}
    proxy = await start_process(document, "--sandbox", "--workers", "2")
    for _ in range(3):
        async with await Client.connect_tls("127.0.0.1", proxy.port, trust, "localhost") as client:
            await send(client)
        async with await proxy.connect() as client:
            await send(client)
    assert await proxy.stop() == 0
