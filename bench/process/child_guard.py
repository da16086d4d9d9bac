"""Ends a server that the benchmark started if the benchmark itself is killed.

`python -m bench.process.child_guard FOLDER MODULE [ARGUMENT …]` runs `python -m MODULE …` in its
own process group until that ends. Its standard input is a pipe that the benchmark holds open. When
the pipe closes, however the benchmark ended, the guard ends the server and removes its folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading

_END_SECONDS = 10.0  # SIGTERM to SIGKILL


def main() -> None:
    """Run the server and end with its exit code."""
    folder, *module = sys.argv[1:]
    is_ending = threading.Event()
    # The benchmark signals the whole group, so the server has the signal too. A handler is used
    # because the server would inherit an ignored signal.
    signal.signal(signal.SIGTERM, lambda *_: is_ending.set())
    server = subprocess.Popen(  # noqa: S603 - the benchmark's own words
        [sys.executable, "-m", *module], stdin=subprocess.DEVNULL
    )
    if is_ending.is_set():  # the signal may have come before the server was started
        server.terminate()
    is_alone = threading.Event()
    threading.Thread(target=_outlive, args=(server, is_alone), daemon=True).start()
    code = server.wait()
    if is_alone.is_set():
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code if code >= 0 else 128 - code)


def _outlive(server: subprocess.Popen[bytes], is_alone: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    is_alone.set()
    server.terminate()
    try:
        server.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    main()
