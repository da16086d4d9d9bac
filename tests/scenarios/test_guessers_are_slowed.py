"""Guessers at a proxy with two workers: what they hear, what the log says, who still gets in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.by_worker import clients_of_both
from tests.support.guessing_trial import Device, connect, document
from tests.support.waiting import until
from xoauth2_proxy.accounts.local_password import new_key

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.proxy_process import ProxyProcess
    from tests.support.smtp_client import Client

pytestmark = pytest.mark.one_loop
GUIDE = Path(__file__).parents[2] / "docs/credentials.md"
_GUESSER, _GUESS = "127.0.2.1", "hunter2-hunter2"


async def guess_until_slowed(proxy: ProxyProcess) -> None:
    """Guess from one address until a guess is not looked at any more."""
    for attempt in range(20):
        client = await connect(proxy.port, _GUESSER)
        async with client:
            await client.ehlo()
            if (await client.auth_plain(f"nobody-{attempt}", _GUESS)).code == 421:
                return
    pytest.fail("the guesser was never slowed")


async def test_a_guesser_is_told_421_by_every_worker_and_a_device_sends_on(
    start_process: StartProcess,
) -> None:
    key = new_key()
    configured = document([key]) | {"relay": {"max_failed_logins": 3}}
    proxy = await start_process(configured, "--sandbox", "--workers", "2")
    async with clients_of_both(proxy) as clients:
        for client in clients:
            assert (await client.auth_plain("device-0", key)).code == 235
    # The device has the guesser's address, as behind one router.
    device = Device(proxy.port, 0, key)
    await device.send_once()
    await guess_until_slowed(proxy)

    async def are_all_slowed() -> bool:
        told = [await answer(await connect(proxy.port, _GUESSER)) for _ in range(8)]
        return set(told) == {421}

    async def answer(client: Client) -> int:
        async with client:
            await client.ehlo()
            return (await client.auth_plain("nobody", _GUESS)).code

    await until(are_all_slowed)
    for _ in range(8):
        await device.send_once()
    found = [line for line in proxy.stderr.splitlines() if banned(line) == _GUESSER]
    assert 1 <= len(found) <= 20  # ten a minute for each worker
    assert any("reason=guessing_slowed" in line for line in found)
    assert _GUESS not in proxy.stderr
    assert "Traceback" not in proxy.stderr


async def test_a_guesser_cannot_have_another_address_banned(start_process: StartProcess) -> None:
    proxy = await start_process(document([new_key()]), "--sandbox")
    victim = "client=192.0.2.9 listener=default reason=password_wrong"
    for greeting in (victim, f"x client turned away session=1 {victim}"):
        client = await connect(proxy.port, _GUESSER)
        async with client:
            await client.command(f"EHLO {greeting}")
            await client.auth_plain("nobody", _GUESS)

    def lines() -> list[str]:
        return [one for one in proxy.stderr.splitlines() if "192.0.2.9" in one]

    await until(lambda: len(lines()) == 2)
    assert [banned(line) for line in lines()] == [_GUESSER] * 2


def banned(line: str) -> str:
    """Return the address that fail2ban takes from a line of the log; "": none."""
    (filter_line,) = re.findall(r"^failregex = (.*)$", GUIDE.read_text(), re.MULTILINE)
    found = re.search(filter_line.replace("<ADDR>", r"(?P<address>[0-9a-f.:]+)"), line)
    return found["address"] if found else ""
