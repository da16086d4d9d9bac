"""Whether the state directory is another user's, whose proxy could not read what we put there.

Root may read and write everywhere, and is sent away as well: what root makes is root's.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from xoauth2_proxy.config import StoreKind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xoauth2_proxy.config.sections import StoreSection


def other_user(state_dir: Path, store: StoreSection) -> str:
    """Return whose it is and how to run a command as that user; "" if it is ours. Blocks."""
    for directory in _directories(state_dir, store):
        owner = directory.stat().st_uid
        if owner != os.geteuid():
            name, word = _called(owner)
            return (
                f"{directory} belongs to {name}, whose proxy could not read what we put there; "
                f"run this as that user: sudo -u {word} xoauth2-proxy …"
            )
    return ""


def _directories(state_dir: Path, store: StoreSection) -> Iterator[Path]:
    if store.kind is not StoreKind.FILE:
        return
    if store.directory.is_dir():
        yield store.directory
    elif state_dir.is_dir() and os.geteuid() == 0:
        yield state_dir  # in which we would make it


def _called(user: int) -> tuple[str, str]:
    """Return the user in words, and as sudo takes it."""
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # a container's, for example
        return f"user {user}", f"'#{user}'"
    return name, name
