"""Runs a command line and ends the process without a traceback, even if a stream fails.

A caller can close a standard stream, its disk can be full, its reader can exit, and Ctrl+C can come
at any moment, even during imports. None of these is a bug of ours.
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
    """Call `main`, flush its output, and end the process with its exit code.

    The exit code is 1 if standard output cannot be written to.
    """
    output = _take_streams()
    code: object = 0
    told: OSError | None = None
    try:
        main()
    except SystemExit as ending:
        code, told = ending.code, output.error  # a command that caught it has reported it
    except KeyboardInterrupt:  # if a library has set its own handler
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
    """Standard output that keeps the error of a failed write."""

    error: OSError | None = None

    def write(self, text: str, /) -> int:
        """Write; on failure, keep the error and raise it."""
        try:
            return super().write(text)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flush; on failure, keep the error and raise it."""
        try:
            super().flush()
        except OSError as error:
            self.error = error
            raise


class _StandardError(io.TextIOWrapper):
    """Standard error that ignores failed writes."""

    def write(self, text: str, /) -> int:
        """Write if that is possible."""
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with suppress(OSError):
            super().flush()


def _finish(stream: io.TextIOWrapper) -> None:
    """Flush a stream; on failure, discard the rest of its buffer.

    Otherwise the interpreter would try again on exit and print an error.
    """
    with suppress(OSError, ValueError):  # ValueError: it is closed
        stream.flush()
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def _take_streams() -> _StandardOutput:
    """Replace the standard streams; open those that the caller closed on the null device."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    # Python has no stream for a descriptor that was closed at its start.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stderr = _rewrapped(sys.stderr or os.fdopen(2, "w"), _StandardError)
    sys.stdout = output = _rewrapped(sys.stdout or os.fdopen(1, "w"), _StandardOutput)
    return output


def _rewrapped(stream: TextIO, kind: type[StreamT]) -> StreamT:
    """Return a stream of another class that replaces this one."""
    was = cast("io.TextIOWrapper", stream)
    settings = (was.encoding, was.errors, None, was.line_buffering, was.write_through)
    return kind(was.detach(), *settings)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
