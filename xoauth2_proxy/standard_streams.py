"""Standard input, output and error of a process: whatever happens to them, no traceback appears.

A closed or full output ends the process with one line on standard error; a closed pipe and Ctrl+C
end it quietly. Only the standard library's smallest modules are imported: Ctrl+C may come at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType
    from typing import TextIO

_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130  # 130: 128 + SIGINT, as shells count


class OutputFailed(BaseException):
    """Standard output took no more. Like `SystemExit`, it passes by who handles own errors."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.error = error


def run(work: Callable[[], None]) -> NoReturn:
    """Call `work`, which prints and may raise `SystemExit`, and end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: nohup ignores it
        signal.signal(signal.SIGINT, _interrupted)
    _open_missing()
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)
    try:
        work()
        sys.stdout.flush()
    except SystemExit as ended:
        _end(ended)
    except OutputFailed as failed:
        _complain_of(failed)
    except KeyboardInterrupt:
        os._exit(_EXIT_INTERRUPTED)
    except Exception as error:
        _complain_of_ourselves(error)
    sys.exit(0)


@contextlib.contextmanager
def keyboard_interrupts() -> Iterator[None]:
    """Let Ctrl+C raise `KeyboardInterrupt` meanwhile, for work that has something to put in order.

    Elsewhere it ends the process at once.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before is _interrupted:
            signal.signal(signal.SIGINT, before)


def _end(ended: SystemExit) -> NoReturn:
    try:
        sys.stdout.flush()
    except OutputFailed as failed:
        _complain_of(failed)
    raise ended


def _complain_of(failed: OutputFailed) -> NoReturn:
    if failed.error.errno != errno.EPIPE:
        _say(f"cannot write to standard output: {failed.error.strerror}")
    # Not `sys.exit`: the interpreter would try to write the rest again, and complain in its words.
    os._exit(_EXIT_FAILED)


def _complain_of_ourselves(error: Exception) -> NoReturn:
    """Say what a developer needs; not the error's text, which may quote a secret."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = ""
    if place is not None:
        where = f" at {os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}"
    _say(f"internal error: {type(error).__name__}{where}; please report it as a bug")
    sys.exit(_EXIT_FAILED)


def _say(text: str) -> None:
    sys.stderr.write(f"xoauth2-proxy: {text}\n")
    sys.stderr.flush()


def _interrupted(_signal: int, _frame: FrameType | None) -> None:
    # Not by an exception: it would be raised anywhere, in the middle of an import for example.
    os._exit(_EXIT_INTERRUPTED)


def _open_missing() -> None:
    """Give the closed among the three descriptors to the null device.

    Otherwise the next file or socket would be opened as one of them. As standard output it is open
    for reading, so that writing fails: nothing is thought to have been printed.
    """
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process


class _Output(io.FileIO):
    def write(self, octets: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(octets)
        except OSError as error:
            raise OutputFailed(error) from None


class _Errors(io.FileIO):
    """Drops what it cannot write: there is no place left to complain."""

    def write(self, octets: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(octets)
        except OSError:
            return len(octets)


def _text(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    """Return the text stream in place of the one before; what it cannot encode becomes a `?`."""
    is_unbuffered = bool(getattr(before, "write_through", False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=is_unbuffered or raw.fileno() == 2 or raw.isatty(),
    )
