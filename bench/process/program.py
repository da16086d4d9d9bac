"""Runs a command line to the end of its process: no traceback, whatever becomes of its streams.

A caller can close a standard stream, the disk behind it can be full, its reader can leave, and
Ctrl+C can come at any moment, also while modules are imported. None of that is our error.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_FAILED = 1
StreamT = TypeVar("StreamT", bound=io.TextIOWrapper)


def run_program(name: str, main: Callable[[], object]) -> NoReturn:
    """Call `main`, write out what it printed, and end the process with the exit code it asks for.

    Exit code 1 when standard output cannot be written to.
    """
    output = _take_streams()
    code: object = 0
    told: OSError | None = None
    try:
        main()
    except SystemExit as ending:
        code, told = ending.code, output.error  # a command that caught it has said so
    except KeyboardInterrupt:  # if a library took the signal for itself
        code = 128 + signal.SIGINT
    except OSError as error:
        code = _FAILED
        if error is not output.error:
            _say(f"{name}: {error}")
    _finish(output)
    if output.error is not None:
        code = code or _FAILED
        is_read_enough = isinstance(output.error, BrokenPipeError)  # as head(1) does
        if told is None and not is_read_enough:
            _say(f"{name}: standard output cannot be written to: {output.error.strerror}")
    _finish(sys.stderr)  # type: ignore[arg-type]  # as it was taken
    sys.exit(code)  # type: ignore[arg-type]  # what SystemExit had


class _StandardOutput(io.TextIOWrapper):
    """Standard output that remembers why it could not be written to."""

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write, or remember why not and raise that."""
        try:
            return super().write(text)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Write out what is held, or remember why not and raise that."""
        try:
            super().flush()
        except OSError as error:
            self.error = error
            raise


class _StandardError(io.TextIOWrapper):
    """Standard error: what cannot be told there cannot be told, and changes nothing else."""

    def write(self, text: str, /) -> int:
        """Write if that is possible."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Write out what is held if that is possible."""
        with suppress(OSError):
            super().flush()


def _finish(stream: io.TextIOWrapper) -> None:
    """Write out what a stream holds, and whatever is left after that to nowhere.

    The interpreter would else try once more when it ends, and complain.
    """
    with suppress(OSError, ValueError):  # ValueError: it is closed
        stream.flush()
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _take_streams() -> _StandardOutput:
    """Take the standard streams, opening those that the caller closed to nowhere."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    # Python has none for a descriptor that was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stderr = _rewrapped(sys.stderr or os.fdopen(2, "w"), _StandardError)
    sys.stdout = output = _rewrapped(sys.stdout or os.fdopen(1, "w"), _StandardOutput)
    return output


def _rewrapped(stream: TextIO, kind: type[StreamT]) -> StreamT:
    """Return the stream as one of another kind, which takes its place."""
    was = cast("io.TextIOWrapper", stream)
    settings = (was.encoding, was.errors, None, was.line_buffering, was.write_through)
    return kind(was.detach(), *settings)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
