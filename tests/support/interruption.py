"""Sends a program a signal while it imports a module, whatever the speed of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    import signal
    from pathlib import Path

# Python runs `sitecustomize` before the program.
_SITE = """
import os, sys

class Interruption:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["SIGNAL_AT"]:
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))

sys.meta_path.insert(0, Interruption)
"""


def interrupted_at(
    module: str, number: signal.Signals, directory: Path, *arguments: object
) -> tuple[int, str]:
    """Run `python -m` with the arguments; send it the signal when it looks for the module.

    Returns the exit code and everything that was printed.
    """
    (directory / "sitecustomize.py").write_text(_SITE)
    places = os.pathsep.join([str(directory), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=PATIENCE_SECONDS, check=False,
        env=os.environ | {"PYTHONPATH": places, "SIGNAL_AT": module, "SIGNAL": str(int(number))},
    )  # fmt: skip
    return ended.returncode, ended.stdout
