"""Thousands of clients stall within their messages while a well-behaved one is served.

    python -m tests.support.stall_trial --sessions 4000
    python -m tests.support.stall_trial --sessions 4000 --drip-seconds 4 --same-mailbox

Prints the proxy's memory against the budget for content, and how the good client fared. Exit code 1
if the memory exceeds what the budget and the sessions explain, or the good client is not served.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.process.open_files import raise_open_file_limit
from bench.process.process_meter import ProcessMeter
from tests.support.proxy_process import ProxyProcess
from tests.support.smtp_client import Client, message

if TYPE_CHECKING:
    from collections.abc import Coroutine

_MIB = 1 << 20
_SESSION_BYTES = 16 * 1024  # of memory that a session needs without any content, generously
# Octets that the allocator takes for each of content: buffers that grow and shrink leave gaps.
_ALLOCATED = 2.0
_ARRIVALS = 200  # clients that connect at the same time
_GOOD_BYTES = 60_000
_GOOD_PAUSE_SECONDS = 0.25
_PATIENCE_SECONDS = 60.0


@dataclass
class Figures:
    """What was seen."""

    outcomes: Counter[str] = field(default_factory=Counter)  # of the clients that stall
    seconds: list[float] = field(default_factory=list)  # of the good client's messages
    refused: Counter[int] = field(default_factory=Counter)  # its replies that were not 250
    lost: int = 0  # its connections
    peak_bytes: int = 0
    used_bytes: int = 0  # of the budget, at most, as the proxy's metrics tell


def document(budget_bytes: int, mailboxes: int) -> dict[str, object]:
    """Return a configuration with mailboxes for the clients that stall, and one for the other."""
    return {
        "accounts": [
            {"email": email, "provider": "mock", "password": "secret"}
            for email in (*map(bad, range(mailboxes)), GOOD)
        ],
        "listener": {"max_connections": 20_000},
        "relay": {"buffer_total_bytes": budget_bytes},
    }


GOOD = "test.account1@outlook.com"


def bad(number: int) -> str:
    """Return a mailbox of clients that stall."""
    return f"test.account{number + 1}@gmail.com"


async def log_in(proxy: ProxyProcess, mailbox: str, source: str) -> Client:
    """Return a client at this address that may send content."""
    reader, writer = await asyncio.open_connection(
        proxy.host, proxy.port, local_addr=(source, 0), limit=4096
    )
    client = Client(reader, writer)
    client.greeting = await client.reply()
    await client.ehlo()
    if (await client.auth_plain(mailbox, "secret")).code != 235:
        raise ConnectionError("no login")
    return client


async def stall(
    proxy: ProxyProcess, number: int, options: argparse.Namespace, figures: Figures
) -> None:
    """Send a part of a message, and then nothing or an octet now and then."""
    source = f"127.0.{1 + number // 200}.{1 + number % 200}"
    async with _arriving:
        client = await log_in(proxy, bad(number % options.mailboxes), source)
        await client.envelope("to@example.net")
        answer = await client.command("DATA")
        if answer.code != 354:
            figures.outcomes[f"{answer.code} at DATA"] += 1
            return
        client.write(message(size_bytes=options.sends_bytes))
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(options.drip_seconds or 3600.0):
                    answer = await client.reply()
                    figures.outcomes[f"{answer.code} {answer.enhanced} within the content"] += 1
                    return
            client.write(b"x")
    except (EOFError, OSError):
        figures.outcomes["closed without a reply"] += 1
    except asyncio.CancelledError:
        figures.outcomes["still there at the end"] += 1
        raise
    finally:
        client.writer.transport.abort()


_arriving = asyncio.Semaphore(_ARRIVALS)


async def send_now_and_then(proxy: ProxyProcess, mailbox: str, figures: Figures) -> None:
    """Be the good client: each message over a connection of its own, again if it must be."""
    content = message(size_bytes=_GOOD_BYTES)
    while True:
        began = time.monotonic()
        while True:
            try:
                client = await log_in(proxy, mailbox, "127.0.0.1")
                async with client:
                    await client.envelope("to@example.net")
                    answer = await client.command("DATA")
                    if answer.code == 354:
                        client.write(content + b".\r\n")
                        answer = await client.reply()
            except (EOFError, OSError):
                figures.lost += 1
            else:
                if answer.is_positive:
                    break
                figures.refused[answer.code] += 1
            await asyncio.sleep(_GOOD_PAUSE_SECONDS)
        figures.seconds.append(time.monotonic() - began)
        await asyncio.sleep(_GOOD_PAUSE_SECONDS)


async def watch(meter: ProcessMeter, proxy: ProxyProcess, figures: Figures) -> None:
    """Note the memory now and then."""
    while True:
        figures.peak_bytes = max(figures.peak_bytes, meter.memory().now_bytes)
        figures.used_bytes = max(figures.used_bytes, await content_bytes(proxy))
        await asyncio.sleep(0.5)


async def content_bytes(proxy: ProxyProcess) -> int:
    """Return what /metrics says of the content held."""
    _, page = await proxy.get("/metrics")
    for line in page.splitlines():
        if line.startswith("xoauth2_proxy_content_bytes "):
            return int(float(line.rpartition(" ")[2]))
    return 0


async def trial(options: argparse.Namespace, directory: Path) -> int:
    """Run it, print the figures, and return the exit code."""
    raise_open_file_limit()
    budget_bytes = options.budget_mib * _MIB
    async with ProxyProcess(
        directory,
        document(budget_bytes, options.mailboxes),
        *("--sandbox", "--loop", options.loop, "--log-level", "error"),
    ) as proxy:
        meter = ProcessMeter(proxy.process.pid)
        good = bad(0) if options.same_mailbox else GOOD
        alone, under = Figures(), Figures()
        await for_a_while(send_now_and_then(proxy, good, alone), 5.0)
        base_bytes = meter.memory().now_bytes
        began = time.monotonic()
        stalling = [
            asyncio.create_task(stall(proxy, number, options, under))
            for number in range(options.sessions)
        ]
        watching = asyncio.create_task(watch(meter, proxy, under))
        sending = asyncio.create_task(send_now_and_then(proxy, good, under))
        await asyncio.wait(stalling, timeout=options.seconds)
        seconds = time.monotonic() - began
        for task in (*stalling, watching, sending):
            task.cancel()
        await asyncio.gather(*stalling, watching, sending, return_exceptions=True)
    bound_bytes = base_bytes + _ALLOCATED * budget_bytes + options.sessions * _SESSION_BYTES
    print(f"{options.sessions} sessions that stall, {seconds:.0f} s, {options.loop}")
    print(f"  what became of them: {dict(under.outcomes)}")
    print(
        f"  memory: {base_bytes / _MIB:.0f} MiB before, {under.peak_bytes / _MIB:.0f} MiB at most; "
        f"bound {bound_bytes / _MIB:.0f} MiB ({options.budget_mib} MiB of content, "
        f"{under.used_bytes / _MIB:.0f} MiB used at most)"
    )
    print(f"  the good client alone: {described(alone)}")
    print(f"  the good client meanwhile: {described(under)}")
    return int(under.peak_bytes > bound_bytes or not under.seconds)


async def for_a_while(work: Coroutine[None, None, None], seconds: float) -> None:
    """Let a coroutine run for a while."""
    task = asyncio.create_task(work)
    await asyncio.wait([task], timeout=seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def described(figures: Figures) -> str:
    """Return how the good client fared."""
    found = sorted(figures.seconds)
    if not found:
        return "not served"
    return (
        f"{len(found)} messages, p50 {statistics.median(found):.3f} s, "
        f"p95 {found[int(0.95 * (len(found) - 1))]:.3f} s, at most {found[-1]:.3f} s; "
        f"told to try again {dict(figures.refused) or 'never'}, {figures.lost} connections lost"
    )


def main() -> int:
    """Read the options and run the trial."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=4000)
    parser.add_argument("--mailboxes", type=int, default=1, help="of the clients that stall")
    parser.add_argument("--sends-bytes", type=int, default=128_000, help="before it stalls")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it lasts at most")
    parser.add_argument("--drip-seconds", type=float, default=0.0, help="between octets; 0: none")
    parser.add_argument("--budget-mib", type=int, default=256)
    parser.add_argument("--same-mailbox", action="store_true", help="for the good client as well")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="uvloop")
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(trial(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    sys.exit(main())
