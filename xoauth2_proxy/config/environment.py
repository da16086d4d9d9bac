"""Where the files, variables and programs that a configuration names are looked up.

A check raises `ValueError` with what is wrong, so that a validator can call it as it is.
"""

from __future__ import annotations

import os
import shutil
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The directories and variables that the values of a configuration refer to."""

    directory: Path  # of the configuration file: relative paths start there
    state_dir: Path
    environ: Mapping[str, str] = field(repr=False)
    # The values were sent to a running relay, or kept by it. Who may add mailboxes is not thereby
    # the owner of this machine: nothing is looked up for them.
    is_posted: bool = False


def check_file(file: Path) -> None:
    """Return if `file` is there and may be read. Raises `ValueError`."""
    if not os.path.isfile(file):
        raise ValueError(f"there is no file {file}")
    if not os.access(file, os.R_OK):
        raise ValueError(f"the file {file} may not be read")


def check_authorities(file: Path) -> None:
    """Return if `file` holds certificates (PEM). Raises `ValueError`."""
    check_file(file)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError):
        raise ValueError(f"the file {file} holds no certificates (PEM)") from None


def check_key_pair(cert: Path, key: Path) -> None:
    """Return if a TLS server can use the certificate with the key. Raises `ValueError`."""
    try:
        # An encrypted key would ask for its password at the terminal; refuse it instead.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError):
        raise ValueError(
            f"{cert} and {key} cannot be used: each must be PEM, the key must be the "
            "certificate's and not encrypted"
        ) from None


def found_program(words: Sequence[str], environment: Environment) -> tuple[str, ...]:
    """Return the command with its program's whole path. Raises `ValueError`.

    A program without a slash is looked for on the PATH, another one from the configuration file's
    directory.
    """
    name = words[0]
    if not name or any("\0" in word for word in words):
        raise ValueError("must begin with a program, and hold no NUL")
    if "/" in name:
        file = environment.directory / name
        found = str(file) if file.is_file() and os.access(file, os.X_OK) else None
        place = str(file)
    else:
        found = shutil.which(name, path=environment.environ.get("PATH", os.defpath))
        place = f"{name} on the PATH"
    if found is None:
        raise ValueError(f"there is no program {place}")
    return (os.path.abspath(found), *words[1:])
