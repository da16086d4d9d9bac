"""Explains why an address cannot be listened on, and which options change it."""

from __future__ import annotations

import errno
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_REASONS = {
    errno.EADDRINUSE: "the port is in use: stop what uses it, or choose another port ({where})",
    errno.EACCES: "ports below 1024 need root's rights: choose another port ({where})",
    errno.EADDRNOTAVAIL: "this machine has no such address: choose one of its own ({where})",
}


class CannotListen(OSError):
    """An address cannot be listened on; the text gives the address, cause and remedy."""

    def __str__(self) -> str:
        return str(self.args[-1])


@contextmanager
def explain_listen_error(what: str, host: str, port: int, where: str) -> Iterator[None]:
    """Convert an `OSError` raised while listening into `CannotListen`.

    `what` names who connects there, `where` the options and keys that set the address. Of several
    hosts the error names the one (its `filename`).
    """
    try:
        yield
    except CannotListen:
        raise
    except socket.gaierror as error:
        host = error.filename or host
        why = f"the name {host} is not known: write an address of this machine ({where})"
        raise CannotListen(f"cannot listen for {what}: {why}") from None
    except OSError as error:
        host = error.filename or host
        usual = f"{error.strerror or error} ({where})"
        why = _REASONS.get(error.errno or 0, usual).format(where=where)
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise CannotListen(
            error.errno or 0, f"cannot listen on {place} for {what}: {why}"
        ) from None
