"""Runs whose users sign in at a running proxy: their options, and what they may not leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from tests.support.proxy_process import ProxyProcess


def at(proxy: ProxyProcess, *more: str) -> tuple[str, ...]:
    """Return the options of a run at this proxy."""
    target = ("--port", str(proxy.port), "--admin-url", proxy.admin_url)
    return (*target, "--state-dir", str(proxy.directory), *more)


async def fetched(url: str) -> dict[str, Any]:
    """Return the JSON object at a URL."""
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        answer = await response.json()
        assert isinstance(answer, dict)
        return answer


async def accounts_added(proxy: ProxyProcess) -> list[str]:
    """Return the mailboxes that were added while the proxy ran."""
    accounts = (await fetched(f"{proxy.admin_url}/accounts"))["accounts"]
    return [one["email"] for one in accounts if one["source"] == "added"]


async def sandbox_stats(proxy: ProxyProcess) -> dict[str, Any]:
    """Return the counts of the proxy's sandbox."""
    sandbox = (await fetched(f"{proxy.admin_url}/health"))["sandbox"]["http"]
    return await fetched(f"{sandbox}/stats")


async def grants_left(proxy: ProxyProcess) -> int:
    """Return how many grants of the proxy's sandbox have begun and not ended."""
    stats = await sandbox_stats(proxy)
    return int(stats["grants_begun"]) - int(stats["grants_ended"])


async def assert_nothing_is_left(proxy: ProxyProcess) -> None:
    """Hold the proxy and its sandbox against what was there before."""
    assert await accounts_added(proxy) == []
    assert await grants_left(proxy) == 0
