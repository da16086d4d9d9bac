"""Guards a command's standard streams: errors and Ctrl+C end it without a traceback.

A closed or full output ends the process with one line on standard error; a closed pipe and Ctrl+C
end it silently. Only small modules are imported, since Ctrl+C may arrive during the imports.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import TextIO

_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130  # 130: 128 + SIGINT, as shells count


class OutputFailed(BaseException):
    """Standard output cannot be written. Not an `Exception`, so handlers of those miss it."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror)
        self.error = error


def run(work: Callable[[], None]) -> NoReturn:
    """Call `work`, which may print and raise `SystemExit`, then end the process."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else: nohup ignores it
        signal.signal(signal.SIGINT, end_at_interrupt)
    _open_missing()
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Errors(2, "w", closefd=False), sys.stderr)
    try:
        work()
        sys.stdout.flush()
    except SystemExit as ended:
        _end(ended)
    except OutputFailed as failed:
        _report_unwritable_output(failed)
    except KeyboardInterrupt:
        os._exit(_EXIT_INTERRUPTED)
    except Exception as error:
        _report_internal_error(error)
    sys.exit(0)


def _end(ended: SystemExit) -> NoReturn:
    try:
        sys.stdout.flush()
    except OutputFailed as failed:
        _report_unwritable_output(failed)
    raise ended


def _report_unwritable_output(failed: OutputFailed) -> NoReturn:
    if failed.error.errno != errno.EPIPE:
        _print_error(f"cannot write to standard output: {failed.error.strerror}")
    # Not `sys.exit`: the interpreter would retry the write and print a traceback.
    os._exit(_EXIT_FAILED)


def _report_internal_error(error: Exception) -> NoReturn:
    """Report the error's type and place, but not its text, which may quote a secret."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = ""
    if place is not None:
        where = f" at {os.path.basename(place.tb_frame.f_code.co_filename)}:{place.tb_lineno}"
    _print_error(f"internal error: {type(error).__name__}{where}; please report it as a bug")
    sys.exit(_EXIT_FAILED)


def _print_error(text: str) -> None:
    sys.stderr.write(f"xoauth2-proxy: {text}\n")
    sys.stderr.flush()


def end_at_interrupt(_signal: int, _frame: FrameType | None) -> None:
    """Handle SIGINT by ending the process at once."""
    # Not by an exception: it could be raised anywhere, for example during an import.
    os._exit(_EXIT_INTERRUPTED)


def _open_missing() -> None:
    """Open the null device on each of the three descriptors that is closed.

    Otherwise the next file or socket would take its number. A closed standard output is opened for
    reading only: writing then fails, instead of losing the output silently.
    """
    for descriptor, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)  # takes the lowest free number: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process


class _Output(io.FileIO):
    def write(self, octets: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(octets)
        except OSError as error:
            raise OutputFailed(error) from None


class _Errors(io.FileIO):
    """Drops what it cannot write, since there is nowhere left to report it."""

    def write(self, octets: bytes, /) -> int:  # type: ignore[override]
        try:
            return super().write(octets)
        except OSError:
            return len(octets)


def _text(raw: io.FileIO, before: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream to replace `before`; characters it cannot encode become `?`."""
    is_unbuffered = bool(getattr(before, "write_through", False))
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="replace",
        line_buffering=is_unbuffered or raw.fileno() == 2 or raw.isatty(),
    )
