"""Compares what a message costs now with what it cost at a stored commit: `make bench-check`.

`python -m tests.support.ratio_check` measures the workloads `kept` and `reconnect` with
`xoauth2-bench cost`, and prints the proxy's CPU time as a multiple of splice's beside the stored
one; `--store` replaces what is stored. Spreads that touch say nothing, nor does a machine where
anything else runs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STORED = ROOT / "docs" / "cost-ratios.json"
WORKLOADS = ("kept", "reconnect")


@dataclass(frozen=True)
class Measured:
    """Ratios of one sitting: the proxy's CPU time a message to splice's, for each repeat."""

    commit: str
    date: str
    cpu: str
    ratios: dict[str, list[float]]  # by workload


def measured_in(document: dict[str, Any], commit: str) -> Measured:
    """Return the ratios in a document of `xoauth2-bench cost --json`.

    Raises `ValueError` if a relay failed or was not measured.
    """
    ratios = {}
    for workload in document["workloads"]:
        costs = {}
        for row in workload["results"]:
            if row["error"]:
                raise ValueError(f"{workload['name']}, {row['relay']}: {row['error']}")
            costs[row["relay"]] = [one["cpu_us_per_message"] for one in row["repeats"]]
        pairs = zip(costs["proxy"], costs["splice"], strict=True)
        ratios[workload["name"]] = [round(proxy / splice, 3) for proxy, splice in pairs]
    date = document["timestamp"].partition("T")[0]
    return Measured(commit, date, document["environment"]["cpu"], ratios)


def verdict(now: list[float], stored: list[float]) -> str:
    """Return "higher" or "lower" where the two spreads do not touch, else "same"."""
    if min(now) > max(stored):
        return "higher"
    return "lower" if max(now) < min(stored) else "same"


def table(now: Measured, stored: Measured) -> list[str]:
    """Return the comparison, a line for each workload."""
    lines = [f"stored: commit {stored.commit}, {stored.date}, {stored.cpu}"]
    lines.append(f"now:    commit {now.commit}, {now.date}, {now.cpu}")
    for name, ratios in now.ratios.items():
        before = stored.ratios.get(name)
        was = _spread(before) if before else "not stored"
        told = verdict(ratios, before) if before else ""
        lines.append(f"{name:10} now {_spread(ratios)}   stored {was}   {told}".rstrip())
    return lines


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("diff", "HEAD") else "")


def main() -> int:
    """Measure, compare and print; return 1 where a ratio is higher than the stored ones."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5, help="how often each is measured")
    parser.add_argument("--store", action="store_true", help="replace what is stored")
    given = parser.parse_args()
    command = [sys.executable, "-m", "bench", "cost", "--json", "--repeat", str(given.repeat)]
    command += ["--relay", "splice", "--relay", "proxy"]
    for name in WORKLOADS:
        command += ["--workload", name]
    print(f"measuring {', '.join(WORKLOADS)}, {given.repeat} times each", flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        return done.returncode
    now = measured_in(json.loads(done.stdout), _commit())
    if given.store or not STORED.exists():
        STORED.write_text(json.dumps(asdict(now), indent=2) + "\n", "utf-8")
        print("\n".join(table(now, now)[1:]))
        return 0
    stored = Measured(**json.loads(STORED.read_text("utf-8")))
    print("\n".join(table(now, stored)))
    return int(
        any(
            verdict(one, stored.ratios[name]) == "higher"
            for name, one in now.ratios.items()
            if name in stored.ratios
        )
    )


if __name__ == "__main__":
    sys.exit(main())
