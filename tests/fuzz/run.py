"""The long run: `python -m tests.fuzz.run [--seconds 300] [--target session …]`.

With atheris (the extra `fuzz`) inputs are found by the coverage they reach, else by the behaviour
they bring about. What breaks something is written to `found`; once it is mended, the input belongs
among the seeds of its target, under a name that says what it was.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import FOUND, TARGETS, dictionary, seeds, words

_PROGRESS_SECONDS = 10.0
_MAX_FOUND = 5  # of one target; then it is its turn no longer
_ROOT = Path(__file__).parents[2]
# Where most of the time goes: what faces strangers.
_WEIGHTS = {"session": 3, "transaction": 4, "verified": 2, "upstream": 3, "content": 2}


def main() -> int:
    parser = argparse.ArgumentParser(description="Fuzz the relay.")
    parser.add_argument("--seconds", type=float, default=300.0, help="in total, for all targets")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this; repeatable")
    parser.add_argument("--engine", choices=["atheris", "plain"], help="default: the better one")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("input", nargs="*", type=Path, help="run only these files, once each")
    given = parser.parse_args()
    names = given.target or list(TARGETS)
    if given.input:
        return sum(_replay(name, given.input) for name in names) and 1
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = given.engine or ("atheris" if has_atheris else "plain")
    weights = {name: _WEIGHTS.get(name, 1) for name in names}
    print(f"engine {engine}, seed {given.seed}, {given.seconds:.0f} s for {', '.join(names)}")
    before = _found()
    for name in names:
        seconds = given.seconds * weights[name] / sum(weights.values())
        print(f"== {name}: {seconds:.0f} s", flush=True)
        if engine == "atheris":
            _run_atheris(name, seconds, given.seed)
        else:
            _run_plain(name, seconds, given.seed)
    found = sorted(_found() - before)
    for file in found:
        print(f"FOUND {file}")
    print(f"{len(found)} inputs broke something" if found else "nothing was found")
    return 1 if found else 0


def _found() -> set[Path]:
    return {path.relative_to(_ROOT) for path in FOUND.glob("*/*")}


def _keep(name: str, octets: bytes) -> Path:
    folder = FOUND / name
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / hashlib.sha256(octets).hexdigest()[:16]
    file.write_bytes(octets)
    return file


def _replay(name: str, files: list[Path]) -> int:
    target, broken = TARGETS[name](), 0
    for file in files:
        try:
            print(f"{name} {file}: {target.check(file.read_bytes())}")
        except Exception:
            broken += 1
            traceback.print_exc()
    target.close()
    return broken


def _run_plain(name: str, seconds: float, seed: int) -> None:
    """Mutate the seeds and whatever behaves in a new way."""
    target, choice = TARGETS[name](), random.Random(seed)
    mutator = Mutator(list(seeds(name).values()), words(name), target.max_bytes)
    begun = told = time.monotonic()
    runs, places = 0, set[object]()
    while (now := time.monotonic()) - begun < seconds and len(places) < _MAX_FOUND:
        octets = mutator.next(choice)
        runs += 1
        try:
            mutator.learn(octets, target.check(octets))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            if (place := (where.filename, where.lineno)) not in places:
                places.add(place)
                print(f"FOUND {_keep(name, octets)}", flush=True)
                traceback.print_exc()
        if now - told >= _PROGRESS_SECONDS:
            told = now
            print(_progress(name, runs, now - begun, mutator), flush=True)
    print(_progress(name, runs, time.monotonic() - begun, mutator))
    target.close()


def _progress(name: str, runs: int, seconds: float, mutator: Mutator) -> str:
    rate = runs / max(seconds, 0.001)
    return f"{name}: {runs} runs, {rate:.0f} a second, {mutator.behaviours} behaviours"


def _run_atheris(name: str, seconds: float, seed: int) -> None:
    """Let libFuzzer drive one target, in a process of its own: it ends with what it finds."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        for file, octets in seeds(name).items():
            (Path(corpus) / file).write_bytes(octets)
        target = TARGETS[name]()
        artifacts = Path(corpus).with_name(Path(corpus).name + "-found")
        artifacts.mkdir()
        options = [
            *(f"-max_total_time={max(1, round(seconds))}", f"-max_len={target.max_bytes}"),
            *(f"-dict={dictionary(name)}", f"-seed={seed or 1}", f"-artifact_prefix={artifacts}/"),
            *("-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"),
        ]
        target.close()
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *options, corpus]
        subprocess.run(command, check=False, cwd=_ROOT)
        for artifact in artifacts.iterdir():
            print(f"FOUND {_keep(name, artifact.read_bytes())}", flush=True)
        shutil.rmtree(artifacts)


if __name__ == "__main__":
    sys.exit(main())
