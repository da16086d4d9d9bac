"""Stopped at any moment of the sign-ins: no account stays at the proxy, and no grant."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.benchmark.runs import command
from tests.support.held_provider import HeldProvider, held_provider
from tests.support.proxy_process import ProxyProcess
from tests.support.sign_in_runs import accounts_added, at
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.benchmark.runs import Command

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[HeldProvider]:
    async with held_provider(tmp_path / "provider") as served:
        yield served


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[ProxyProcess]:
    directory = tmp_path / "proxy"
    directory.mkdir()
    async with ProxyProcess(directory, None, "--sandbox") as process:
        yield process


def arguments(proxy: ProxyProcess, provider: HeldProvider, *more: str) -> tuple[str, ...]:
    run = ("--accounts", "4", "--sign-in", "code", "--duration", "60", "--yes", "--timeout", "30")
    return at(proxy, *provider.options, *run, *more)


async def interrupted(running: Command, number: signal.Signals) -> str:
    running.process.send_signal(number)
    code, out, errors = await running.end()
    assert code == 128 + number, out + errors
    assert "Traceback" not in errors
    return errors


async def assert_nothing_is_left(proxy: ProxyProcess, provider: HeldProvider) -> None:
    assert await accounts_added(proxy) == []
    begun, ended = provider.grants
    assert begun == ended


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "moment",
    ["GET /.well-known/openid-configuration", "GET /oauth/authorize", "POST /oauth/authorize"],
)
async def test_stopped_before_there_is_a_grant(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider, moment: str, number: signal.Signals
) -> None:
    provider.hold(moment)
    async with command(tmp_path, *arguments(proxy, provider)) as running:
        await provider.is_held()
        running.process.send_signal(number)
        await running.error_text("Stopping")
        provider.release.set()
        code, out, errors = await running.end()
    assert (code, out) == (128 + number, ""), errors
    assert "Stopped before a message was sent" in errors
    assert provider.grants == (0, 0)
    await assert_nothing_is_left(proxy, provider)


async def test_stopped_while_a_client_is_registered_which_is_kept(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.hold("POST /oauth/register", afterwards=True)
    async with command(tmp_path, *arguments(proxy, provider)) as running:
        await provider.is_held()
        running.process.send_signal(signal.SIGINT)
        await running.error_text("Stopping")
        provider.release.set()
        code, _, errors = await running.end()
    assert code == 130, errors
    assert len(list((proxy.directory / "bench-clients").iterdir())) == 1
    assert "GET /oauth/authorize" not in provider.asked
    await assert_nothing_is_left(proxy, provider)


@pytest.mark.parametrize("is_answered", [True, False], ids=["answered", "not answered"])
async def test_stopped_while_a_code_is_exchanged(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider, is_answered: bool
) -> None:
    provider.hold("POST /oauth/token", afterwards=True)
    async with command(tmp_path, *arguments(proxy, provider, "--sign-ins-at-once", "1")) as running:
        # The question whether the server knows the client is not asked: it was registered now.
        await provider.is_held()
        assert provider.grants == (1, 0)
        running.process.send_signal(signal.SIGTERM)
        await running.error_text("Stopping")
        provider.is_dropped = not is_answered
        provider.release.set()
        code, _, errors = await running.end()
    assert code == 143, errors
    assert provider.grants == (1, 1)
    await assert_nothing_is_left(proxy, provider)


async def test_stopped_in_the_pause_between_two_beginnings(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    async with command(tmp_path, *arguments(proxy, provider, "--stagger", "3600")) as running:
        await until(lambda: provider.grants == (1, 0))
        await interrupted(running, signal.SIGINT)
    assert provider.grants == (1, 1)
    await assert_nothing_is_left(proxy, provider)


async def test_stopped_twice_ends_at_once_and_removes_what_there_is(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    async def all_but_one() -> bool:
        return provider.grants == (3, 0)

    def third_waits(number: int) -> None:
        if number == 4:
            provider.hold("GET /oauth/authorize")

    provider.answers["GET /oauth/authorize"] = third_waits
    async with command(tmp_path, *arguments(proxy, provider)) as running:
        await provider.is_held()
        await until(all_but_one)
        running.process.send_signal(signal.SIGINT)
        await running.error_text("Stopping")
        await interrupted(running, signal.SIGINT)
    await assert_nothing_is_left(proxy, provider)


async def test_stopped_in_the_load_writes_partial_results(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    results = tmp_path / "run.json"
    options = arguments(proxy, provider, "--output", str(results), "--concurrent", "2")
    async with command(tmp_path, *options) as running:
        await running.error_text("Sending messages")
        assert len(await accounts_added(proxy)) == 4
        await provider.sandbox.received.wait_until(1)
        await interrupted(running, signal.SIGTERM)
    assert '"partial": true' in results.read_text()
    assert '"signed_in": 4' in results.read_text()
    await assert_nothing_is_left(proxy, provider)
