"""Measures the token manager's cache: the time of a token that is there, and memory per token.

    python -m tests.support.token_cache_benchmark

It decides nothing, and no test runs it: the figures depend on the machine.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from statistics import median
from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.token_manager import TokenManager

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Grant

_CALLS = 50_000
_ROUNDS = 7
_THREADS = 8
_NAMES = 10_000
_TOKEN_CHARACTERS = 1500  # about as long as Microsoft's


class _Instant:
    """A provider that costs nothing."""

    async def refresh(self, grant: Grant) -> TokenResponse:
        padding = "x" * (_TOKEN_CHARACTERS - len(grant.mailbox))
        return TokenResponse(access_token=grant.mailbox + padding, lifetime_seconds=3600.0)


async def _microseconds_in_a_task(tokens: TokenManager) -> float:
    began = time.perf_counter()
    for _ in range(_CALLS):
        await tokens.get_token("billing")
    return (time.perf_counter() - began) / _CALLS * 1e6


def _microseconds_in_a_thread(tokens: TokenManager) -> float:
    get_token = tokens.blocking.get_token
    began = time.perf_counter()
    for _ in range(_CALLS):
        get_token("billing")
    return (time.perf_counter() - began) / _CALLS * 1e6


def _microseconds_in_threads(tokens: TokenManager) -> float:
    """Return the time of one call when several threads make as many as they can."""
    get_token = tokens.blocking.get_token
    calls = _CALLS // _THREADS

    def work() -> None:
        for _ in range(calls):
            get_token("billing")

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / (calls * _THREADS) * 1e6


async def _bytes_per_name() -> float:
    provider = _Instant()
    async with TokenManager() as tokens:
        names = [f"mailbox{number}@example.com" for number in range(_NAMES)]
        tokens.add_provider("first", provider)
        await tokens.get_token("first")
        gc.collect()
        tracemalloc.start()
        for name in names:
            tokens.add_provider(name, provider)
        for start in range(0, _NAMES, 100):
            await asyncio.gather(*map(tokens.get_token, names[start : start + 100]))
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return size / _NAMES


async def main() -> None:
    """Print the figures."""
    async with TokenManager() as tokens:
        tokens.add_provider("billing", _Instant())
        await tokens.get_token("billing")
        in_a_task = [await _microseconds_in_a_task(tokens) for _ in range(_ROUNDS)]
        in_a_thread = [_microseconds_in_a_thread(tokens) for _ in range(_ROUNDS)]
        in_threads = [_microseconds_in_threads(tokens) for _ in range(_ROUNDS)]
    figures = {
        "await get_token": in_a_task,
        "blocking.get_token": in_a_thread,
        f"in {_THREADS} threads": in_threads,
    }
    print(f"a token that is there, medians of {_ROUNDS} rounds of {_CALLS:,} calls")
    for name, microseconds in figures.items():
        print(f"  {name:20}{median(microseconds):6.2f} µs  (slowest {max(microseconds):.2f})")
    size = await _bytes_per_name()
    print(
        f"memory per name, {_NAMES:,} tokens of {_TOKEN_CHARACTERS} characters: {size:,.0f} bytes"
    )


if __name__ == "__main__":
    asyncio.run(main())
