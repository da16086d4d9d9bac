"""A device that cannot log in sends from its address, and from no other."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.smtp_client import Client, message
from xoauth2_proxy import replies

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay

MAILBOX = "copiers@example.com"


def document(*networks: str) -> dict[str, object]:
    credential = {"name": "hall", "networks": networks}
    account = {"email": MAILBOX, "provider": "mock", "credentials": [credential]}
    return {"accounts": [account]}


async def test_a_copier_sends_without_auth_from_its_address(start_relay: StartRelay) -> None:
    relay = await start_relay(document("127.0.0.0/8"))
    async with await relay.connect() as client:
        await client.ehlo()
        for _ in range(2):
            assert (await client.send(message())).is_positive
    assert [one.mailbox for one in relay.sandbox.received] == [MAILBOX] * 2


async def test_what_its_provider_would_not_take_is_refused_at_mail(
    start_relay: StartRelay,
) -> None:
    listed = document("127.0.0.0/8")
    listed["accounts"][0]["limits"] = {"max_message_bytes": 70_000}  # type: ignore[index]
    relay = await start_relay(listed)
    async with await relay.connect() as client:
        await client.ehlo()
        assert await client.command("MAIL FROM:<a@example.com> SIZE=70001") == replies.TOO_LARGE
        assert await client.send(message(size_bytes=70_001)) == replies.TOO_LARGE
        assert (await client.send(message())).is_positive


async def test_it_does_not_from_another(start_relay: StartRelay) -> None:
    relay = await start_relay(document("10.0.0.0/8", "127.0.0.2"))
    async with await relay.connect() as client:
        await client.ehlo()
        assert await client.command("MAIL FROM:<a@example.com>") == replies.AUTH_REQUIRED
    assert not list(relay.sandbox.received)


@pytest.mark.parametrize(
    ("header", "is_let_in"),
    [
        (b"PROXY UNKNOWN\r\n", False),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", False),  # LOCAL
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8" + bytes(216), False),  # a Unix socket
        (b"PROXY TCP4 10.1.2.3 127.0.0.1 4000 25\r\n", False),
        (b"PROXY TCP4 127.0.0.9 127.0.0.1 4000 25\r\n", True),
    ],
)
async def test_the_address_of_a_load_balancer_lets_nobody_in(
    start_relay: StartRelay, header: bytes, is_let_in: bool
) -> None:
    listener = {"proxies": ["127.0.0.1"]}
    relay = await start_relay(document("127.0.0.0/8") | {"listener": listener})
    async with Client(*await asyncio.open_connection(relay.host, relay.port)) as client:
        client.write(header)
        client.greeting = await client.reply()
        await client.ehlo()
        answer = await client.command("MAIL FROM:<a@example.com>")
        assert answer == (replies.SENDER_OK if is_let_in else replies.AUTH_REQUIRED)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_start_up_lines_list_who_needs_no_password(tmp_path: Path, workers: str) -> None:
    listed = document("127.0.0.1", "10.0.0.0/8")
    public = {"name": "cloud", "networks": ["203.0.113.0/24"], "allow_public_networks": True}
    listed["accounts"][0]["credentials"].append(public)  # type: ignore[index]
    async with ProxyProcess(tmp_path, listed, "--sandbox", "--workers", workers) as proxy:
        found = [line for line in proxy.stderr.splitlines() if "without a password" in line]
        async with await proxy.connect() as client:
            await client.ehlo()
            assert (await client.send(message())).is_positive
    local, cloud = found
    assert "INFO" in local
    assert "WARNING" in cloud
    assert 'networks="127.0.0.1/32, 10.0.0.0/8"' in local
    assert "credential=hall" in local
    assert "networks=203.0.113.0/24" in cloud
