"""Many users sign in before a run, and runs are stopped at random moments; tells what is left.

    python -m tests.support.sign_in_trials code --users 200 --interruptions 10
    python -m tests.support.sign_in_trials browser --users 20 --interruptions 10

For a long run now and then: not part of the tests. Exit code 1 if anything is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmark.runs import command
from tests.support.proxy_process import ProxyProcess
from tests.support.sign_in_runs import accounts_added, at, grants_left

_RUN_SECONDS = 900.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Trials:
    """Runs at one proxy with its sandbox."""

    proxy: ProxyProcess
    temporary: Path
    method: str
    users: int

    def arguments(self, results: Path) -> tuple[str, ...]:
        """Return the options of a run: two messages a user."""
        users = ("--accounts", str(self.users), "--sign-in", self.method)
        load = ("--num-emails", str(2 * self.users), "--concurrent", str(min(self.users, 20)))
        return at(self.proxy, *users, *load, "--output", str(results), "--yes")

    async def whole(self, folder: Path) -> float:
        """Run once to the end; print the figures, and return the seconds that it took."""
        results, began = folder / "run.json", time.monotonic()
        async with command(folder, *self.arguments(results), environment=self.place) as running:
            code, _, errors = await running.end(_RUN_SECONDS)
        if code:
            raise SystemExit(f"the run failed with {code}: {errors}")
        seconds = time.monotonic() - began
        document = json.loads(results.read_text())
        users, sent = document["sign_in"], document["results"]
        print(
            f"{users['signed_in']} of {users['wanted']} users signed in ({self.method}) in "
            f"{users['wall_seconds']:.1f} s, p50 {users['duration']['p50_seconds']:.3f} s, p95 "
            f"{users['duration']['p95_seconds']:.3f} s; {sent['successful']} of {sent['planned']} "
            f"messages sent; {seconds:.1f} s in all; left: {await self.left() or 'nothing'}"
        )
        return seconds

    async def stopped(self, folder: Path, number: signal.Signals, after: float, times: int) -> bool:
        """Run and send signals; print what is left, and return whether it is nothing."""
        options = self.arguments(folder / "stopped.json")
        async with command(folder, *options, environment=self.place) as running:
            await asyncio.sleep(after)
            for _ in range(times):
                if running.process.returncode is None:
                    if number is signal.SIGINT:  # a terminal sends it to the browser, too
                        os.killpg(running.process.pid, number)
                    else:
                        running.process.send_signal(number)
                    await asyncio.sleep(0.1)
            code, _, errors = await running.end(_RUN_SECONDS)
        lines = errors.strip().splitlines() or ["(it had not begun)"]
        is_expected = code in {128 + number, -number, 0} and "Traceback" not in errors
        left = await self.left()
        print(
            f"{times} × {number.name} after {after:6.2f} s: exit code {code}; "
            f"last said: {lines[-1][:70]!r}; left: {left or 'nothing'}"
        )
        return is_expected and not left

    async def left(self) -> str:
        """Return what is left at the proxy, at the sandbox and on the machine."""
        added, grants = await accounts_added(self.proxy), await grants_left(self.proxy)
        found = [f"{len(added)} accounts"] if added else []
        found += [f"{grants} grants"] if grants else []
        if files := sorted(one.name for one in self.temporary.iterdir()):
            found.append(f"files {files}")
        return ", ".join(found)

    @property
    def place(self) -> dict[str, str]:
        """Where the run's temporary files are."""
        return {"TMPDIR": str(self.temporary)}


async def main(method: str, users: int, interruptions: int, seed: int) -> int:
    """Run once to the end and then `interruptions` times to a signal; return the exit code."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as name:
        folder = Path(name)
        temporary, state = folder / "t", folder / "p"
        temporary.mkdir()
        state.mkdir(mode=0o700)
        is_clean = True
        async with ProxyProcess(state, None, "--sandbox") as proxy:
            trials = Trials(proxy, temporary, method, users)
            seconds = await trials.whole(folder)
            for number in range(interruptions):
                times = 2 if number % 4 == 3 else 1
                after = chance.uniform(0, seconds)
                is_clean &= await trials.stopped(folder, _SIGNALS[number % 2], after, times)
        return 0 if is_clean else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("method", choices=["code", "browser", "mint"])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--interruptions", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(asyncio.run(main(given.method, given.users, given.interruptions, given.seed)))
