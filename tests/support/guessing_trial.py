"""A trial: 10,000 wrong passwords from 50 addresses, while 20 devices send through the proxy.

It takes about ten minutes, since guessers are made to wait; run it on a quiet machine:
`python -m tests.support.guessing_trial`. It prints the devices' latency
without and with the guessers, what the guessers were told, and how many lines were logged. It exits
with 1 if a device was turned away, or if the devices' 99th percentile rose beyond 1.5 times.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import argon2

from tests.support.proxy_process import ProxyProcess
from tests.support.smtp_client import Client, message
from xoauth2_proxy.accounts.local_password import digest_of_key, new_key

if TYPE_CHECKING:
    from collections.abc import Awaitable

MAILBOX = "devices@example.com"
DEVICES, GUESSERS, GUESSES = 20, 50, 10_000
ALLOWED_RATIO = 1.5
_PAUSE_SECONDS = 0.5  # of a device between two messages
_GUESSES_A_SECOND = 150.0  # of all guessers together; those that are told 421 connect again


def device_address(number: int) -> str:
    """Return the address of a device; the first has that of a guesser, as behind one router."""
    return guesser_address(0) if number == 0 else f"127.0.1.{number}"


def guesser_address(number: int) -> str:
    return f"127.0.2.{number + 1}"


def document(keys: list[str]) -> dict[str, object]:
    """A mailbox with a credential for each device, and one whose password a person chose."""
    credentials: list[dict[str, object]] = [
        {"name": f"device-{number}", "password": digest_of_key(key)}
        for number, key in enumerate(keys)
    ]
    # What OWASP's password storage cheat sheet asks for at least.
    hasher = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
    chosen = {"email": MAILBOX, "provider": "mock", "password": hasher.hash("x")}
    return {"accounts": [chosen | {"credentials": credentials}]}


async def connect(port: int, address: str) -> Client:
    client = Client(*await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0)))
    client.greeting = await client.reply()
    return client


class Device:
    """A device that logs in and sends a message, again and again, and notes how long it takes."""

    def __init__(self, port: int, number: int, key: str) -> None:
        self._port, self._number, self._key = port, number, key
        self.latencies: list[float] = []
        self.refused: Counter[str] = Counter()

    async def send_until(self, end: asyncio.Event) -> None:
        await asyncio.sleep(_PAUSE_SECONDS * self._number / DEVICES)
        while not end.is_set():
            began = time.perf_counter()
            try:
                await self.send_once()
            except (EOFError, OSError, AssertionError) as error:
                self.refused[str(error) or type(error).__name__] += 1
            else:
                self.latencies.append(time.perf_counter() - began)
            with suppress(TimeoutError):
                async with asyncio.timeout(_PAUSE_SECONDS):
                    await end.wait()

    async def send_once(self) -> None:
        """Connect, log in and send a message. Raises `AssertionError` if that is refused."""
        async with await connect(self._port, device_address(self._number)) as client:
            await client.ehlo()
            answer = await client.auth_plain(f"device-{self._number}", self._key)
            assert answer.code == 235, str(answer)
            answer = await client.send(message())
            assert answer.code == 250, str(answer)


async def guess(port: int, number: int, count: int) -> Counter[int]:
    """Try wrong passwords from one address; return the codes of the answers."""
    codes: Counter[int] = Counter()
    client: Client | None = None
    due = time.perf_counter()
    for attempt in range(count):
        due += GUESSERS / _GUESSES_A_SECOND
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        login = (f"device-{attempt % DEVICES}", MAILBOX, f"nobody-{attempt}")[attempt % 3]
        wrong = base64.b64encode(f"\0{login}\0wrong {number} {attempt}".encode()).decode()
        try:
            if client is None:
                client = await connect(port, guesser_address(number))
                await client.ehlo()
            answer = await client.command(f"AUTH PLAIN {wrong}")
        except (EOFError, OSError):
            codes[0] += 1
            client = None
            continue
        codes[answer.code] += 1
        if answer.code == 421:
            await client.close()
            client = None
    return codes


async def guess_from_all(port: int, count: int) -> Counter[int]:
    found = await asyncio.gather(
        *(guess(port, number, count // GUESSERS) for number in range(GUESSERS))
    )
    return sum(found, Counter())


async def guess_elsewhere(port: int, count: int) -> dict[str, int]:
    """Let another process guess, so that the devices' own clock is not held up by it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.guessing_trial"),
        *("--guess-at", str(port), "--guesses", str(count)),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate()
    found: dict[str, int] = json.loads(told)
    return found


async def measure(devices: list[Device], work: Awaitable[object]) -> list[float]:
    """Let the devices send while `work` goes on; return their latencies in seconds."""
    end = asyncio.Event()
    for device in devices:
        device.latencies = []
    sending = [asyncio.create_task(device.send_until(end)) for device in devices]
    await work
    end.set()
    await asyncio.gather(*sending)
    return sorted(latency for device in devices for latency in device.latencies)


def p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98]


async def trial(count: int, baseline_seconds: float, workers: int) -> int:
    keys = [new_key() for _ in range(DEVICES)]
    with tempfile.TemporaryDirectory() as directory:
        proxied = ProxyProcess(
            Path(directory), document(keys), "--sandbox", "--workers", str(workers)
        )
        async with proxied as proxy:
            devices = [Device(proxy.port, number, key) for number, key in enumerate(keys)]
            await measure(devices, asyncio.ensure_future(asyncio.sleep(3.0)))  # warm up
            quiet = await measure(devices, asyncio.ensure_future(asyncio.sleep(baseline_seconds)))
            lines = proxy.stderr.count("turned away")
            began = time.perf_counter()
            guessing = asyncio.ensure_future(guess_elsewhere(proxy.port, count))
            loud = await measure(devices, guessing)
            seconds = time.perf_counter() - began
            lines = proxy.stderr.count("turned away") - lines
            refused = sum((device.refused for device in devices), Counter())
    ratio = p99(loud) / p99(quiet)
    print(f"guesses: {count} from {GUESSERS} addresses in {seconds:.0f} s, {workers} worker(s)")
    print(f"answers to guesses, by code (0: none): {guessing.result()}")
    print(f"log lines about guessers: {lines}")
    for name, found in (("without guessers", quiet), ("with guessers", loud)):
        median = statistics.median(found)
        print(
            f"{len(found)} messages of {DEVICES} devices {name}: "
            f"p50 {median * 1000:.1f} ms, p99 {p99(found) * 1000:.1f} ms"
        )
    print(f"p99 with guessers / without: {ratio:.2f}; devices turned away: {dict(refused)}")
    return int(bool(refused) or ratio > ALLOWED_RATIO)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--guesses", type=int, default=GUESSES)
    options.add_argument("--baseline-seconds", type=float, default=60.0)
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--guess-at", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.guess_at:
        print(json.dumps(asyncio.run(guess_from_all(given.guess_at, given.guesses))))
        return 0
    return asyncio.run(trial(given.guesses, given.baseline_seconds, given.workers))


if __name__ == "__main__":
    sys.exit(main())
