"""Tells whether the state directory is another user's, whose proxy could not read our files.

Root, who can write everywhere, is refused as well: the files would belong to root.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.stores import StoreKind

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.config.sections import StoreSection


def other_user(state_dir: Path, store: StoreSection) -> str:
    """Return whose it is and how to run a command as that user; "" if it is ours. Blocks."""
    directory = store.directory
    if store.kind is not StoreKind.FILE:
        return ""
    if not directory.is_dir():
        if not state_dir.is_dir() or os.geteuid() != 0:
            return ""
        directory = state_dir  # in which we would make it
    owner = directory.stat().st_uid
    if owner == os.geteuid():
        return ""
    try:
        name = word = pwd.getpwuid(owner).pw_name
    except KeyError:  # a container's, for example
        name, word = f"user {owner}", f"'#{owner}'"
    return (
        f"{directory} belongs to {name}, whose proxy could not read what we put there; "
        f"run this as that user: sudo -u {word} xoauth2-proxy …"
    )
