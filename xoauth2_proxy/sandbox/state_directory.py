"""The sandbox's part of the state directory, with its keys."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from xoauth2_proxy.files import written_beside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY_BYTES = 32  # RFC 7518 §3.2: at least the digest's size


def sandbox_directory(state_dir: Path) -> Path:
    """Return the directory of the sandbox's own state, created for the owner only."""
    directory = state_dir / "sandbox"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def load_signing_key(state_dir: Path) -> bytes:
    """Return the signing key kept under `state_dir`, created at the first call.

    Processes that race to create it get the same key. Raises `ValueError`: the file exists and is
    too short to be a key.
    """
    key = load_or_create(state_dir, "signing-key", lambda: secrets.token_bytes(KEY_BYTES))
    if len(key) < KEY_BYTES:
        path = sandbox_directory(state_dir) / "signing-key"
        raise ValueError(f"{path} is too short to be a signing key; delete it to get a new one")
    return key


def load_or_create(state_dir: Path, name: str, create: Callable[[], bytes]) -> bytes:
    """Return a file of the sandbox's directory, with what `create` returns if there is none.

    Processes that race to create it get the same octets.
    """
    path = sandbox_directory(state_dir) / name
    if not path.exists():
        # FileExistsError: another process was first, and its file is used.
        with (
            contextlib.suppress(FileExistsError),
            written_beside(path, create(), 0o600) as temporary,
        ):
            os.link(temporary, path)
    return path.read_bytes()
