"""The TCP ports on which a process and its children listen, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

_LISTEN = "0A"


def listening_ports(pid: int) -> set[int]:
    """Return the ports on which the process or one of its descendants listens."""
    sockets = {inode for one in _family(pid) for inode in _sockets_of(one)}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTEN and words[9] in sockets:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return ports


def _family(pid: int) -> set[int]:
    family = {pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            family |= _family(int(child))
    return family


def _sockets_of(pid: int) -> set[str]:
    links = (os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir())
    return {link[8:-1] for link in links if link.startswith("socket:[")}
