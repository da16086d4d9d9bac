"""Runs the benchmarker's servers: event loop, stop signals and ready file.

SIGTERM and SIGINT end a server properly, with exit code 0; the ready file is written atomically.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path


def run(main: Coroutine[None, None, None]) -> None:
    """Run `main` to its end on uvloop if it is installed, else on asyncio's loop."""
    handler = signal.getsignal(signal.SIGINT)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main)
    signal.signal(signal.SIGINT, handler)  # asyncio leaves the signal to Python's own handler


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the factory of the event loop; None is asyncio's default."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def stop_signal() -> asyncio.Event:
    """Return an event that SIGTERM and SIGINT will set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def write_ready_file(ready_file: Path, facts: Mapping[str, object]) -> None:
    """Write the process id and `facts` as JSON."""
    draft = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
    draft.write_text(json.dumps({"pid": os.getpid(), **facts}))
    draft.replace(ready_file)
