"""Writes a file whole or not at all, and what is no file as it is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(octets: bytes, path: Path) -> None:
    """Write the file, replacing what is there, readable by everybody.

    A symbolic link stays, and what it leads to is written. A device or pipe is written to.

    Raises:
        OSError: it could not be written; a file is as it was.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as stream:
            stream.write(octets)
        return
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
