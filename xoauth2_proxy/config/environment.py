"""Where the files, variables and programs that a configuration names are looked up."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.files import read_at_most

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MAX_SECRET_BYTES = 64 * 1024  # the longest secret seen, a Microsoft refresh token, has 2 KiB
_SECRET_ITSELF = "must be the text itself, no variable and no file"  # noqa: S105 - no secret
_FOR_THE_FILE = "is for the operator's file; write it into an entry of `providers`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The directories and variables that the values of a configuration refer to.

    What cannot be looked up raises `ValueError` with the reason, for a validator to pass on.
    """

    directory: Path  # of the configuration file: relative paths start there
    state_dir: Path
    environ: Mapping[str, str] = field(repr=False)
    # The values were sent to the admin server, now or earlier. A client that may add mailboxes does
    # not own this machine, so nothing is looked up for it.
    is_posted: bool = False
    secret_files: set[Path] = field(default_factory=set, repr=False, compare=False)  # found so far

    def variable(self, name: str) -> str:
        """Return the secret in an environment variable."""
        if self.is_posted:
            raise ValueError(_SECRET_ITSELF)
        if not self.environ.get(name):
            fault = "is empty" if name in self.environ else "is not set"
            raise ValueError(f"the environment variable {name} {fault}")
        return self.environ[name]

    def secret_in(self, name: str) -> str:
        """Return the secret in a file, without the end of its last line."""
        if self.is_posted:
            raise ValueError(_SECRET_ITSELF)
        path = self.directory / name
        try:
            secret = read_at_most(path, _MAX_SECRET_BYTES).decode()
        except UnicodeDecodeError:
            raise ValueError(f"the file {path} is not UTF-8 text") from None
        except ValueError as error:
            raise ValueError(f"the file {path} {error}") from None
        secret = secret.removesuffix("\n").removesuffix("\r")
        if not secret:
            raise ValueError(f"the file {path} is empty")
        self.secret_files.add(path)
        return secret

    def path(self, name: str) -> Path:
        """Return the path of a file."""
        if self.is_posted:
            raise ValueError(_FOR_THE_FILE)
        return self.directory / name

    def command(self, words: Sequence[str]) -> tuple[str, ...]:
        """Return the command with its program's whole path.

        A program without a slash is looked for on the PATH, another one from the directory.
        """
        if self.is_posted:
            raise ValueError(_FOR_THE_FILE)
        name = words[0]
        if not name or any("\0" in word for word in words):
            raise ValueError("must begin with a program, and hold no NUL")
        if "/" in name:
            place = found = str(self.directory / name)
            is_there = os.path.isfile(found) and os.access(found, os.X_OK)
        else:
            found = shutil.which(name, path=self.environ.get("PATH", os.defpath)) or ""
            place, is_there = f"{name} on the PATH", bool(found)
        if not is_there:
            raise ValueError(f"there is no program {place}")
        return (os.path.abspath(found), *words[1:])
