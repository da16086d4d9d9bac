"""`xoauth2-proxy hash-password`: prints what a configuration can hold instead of a password."""

from __future__ import annotations

import getpass
import signal
import sys
from typing import TextIO

import argon2

_MAX_CHARACTERS = 4096
_EXIT_USAGE, _EXIT_INTERRUPTED = 2, 130


def run(given: TextIO) -> int:
    """Print the argon2 hash of a password; return the exit code.

    A person types it twice without seeing it; from a pipe or file the first line is taken.
    """
    try:
        password = _typed() if given.isatty() else _read(given)
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write("\n")
        return _EXIT_INTERRUPTED
    except ValueError as error:
        sys.stderr.write(f"xoauth2-proxy: {error}\n")
        return _EXIT_USAGE
    sys.stdout.write(f"{argon2.PasswordHasher().hash(password)}\n")
    return 0


def _typed() -> str:
    # Both raise KeyboardInterrupt here, after which `getpass` lets the terminal echo again.
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(one, signal.default_int_handler) for one in signals]
    try:
        password = getpass.getpass("Password: ")
        again = getpass.getpass("Once more: ")
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
    if password != again:
        raise ValueError("the two passwords differ; nothing was hashed")
    return _checked(password)


def _read(given: TextIO) -> str:
    try:
        return _checked(given.readline(_MAX_CHARACTERS + 1).rstrip("\r\n"))
    except (OSError, UnicodeError) as error:
        raise ValueError(
            f"standard input cannot be read as text ({type(error).__name__})"
        ) from None


def _checked(password: str) -> str:
    if not password:
        raise ValueError(
            "there is no password: type one, or give one on standard input, as in "
            "`xoauth2-proxy hash-password < password.txt`"
        )
    if len(password) > _MAX_CHARACTERS:
        raise ValueError(f"a password has {_MAX_CHARACTERS} characters at most")
    return password
