"""`xoauth2-bench`, and `python -m bench`."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    for descriptor in range(3):
        _open(descriptor)
    try:
        # Not above: it takes a moment, in which Ctrl+C is to be no traceback.
        from bench import cli
    except KeyboardInterrupt:
        sys.exit(130)
    cli.main()


def _open(descriptor: int) -> None:
    """Let a standard stream that the caller closed be one to nowhere; the event loop needs it."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one


if __name__ == "__main__":
    main()
