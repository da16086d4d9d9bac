"""Writes a file atomically; writes to devices and pipes directly."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(octets: bytes, path: Path) -> None:
    """Write the file, replacing an existing one, readable by all users.

    A symbolic link is kept and its target is written. A device or pipe is written to directly.

    Raises:
        OSError: it could not be written; an existing file is unchanged.
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
