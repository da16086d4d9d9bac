"""Takes the listening sockets that a service manager hands over: systemd's sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from xoauth2_proxy.service.addresses import CannotListen

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

_FIRST_DESCRIPTOR = 3  # those before it are the standard streams
_MAX_DESCRIPTORS = 1000
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
_UNIT = ".socket"  # how a descriptor's name ends that is its unit's


def take_sockets(
    listeners: Sequence[str],
    environ: MutableMapping[str, str] = os.environ,
    first_descriptor: int = _FIRST_DESCRIPTOR,
) -> dict[str, list[socket.socket]]:
    """Return the sockets handed over to this process, by the name of their listener.

    A socket is for the listener whose name it has, with or without `.socket` behind; if there is
    one listener, all are its own. The variables are removed, so no child takes them for its own.

    Raises:
        CannotListen: a descriptor is no listening TCP socket, or no listener has its name.
    """
    found = {name: environ.pop(name, "") for name in _VARIABLES}
    if found["LISTEN_PID"] != str(os.getpid()) or not found["LISTEN_FDS"].isdecimal():
        return {}
    names = found["LISTEN_FDNAMES"].split(":")
    taken: dict[str, list[socket.socket]] = {}
    try:
        for place in range(min(int(found["LISTEN_FDS"]), _MAX_DESCRIPTORS)):
            name = names[place] if place < len(names) else ""
            opened = _socket(first_descriptor + place, name)
            taken.setdefault(name, []).append(opened)
        return _by_listener(taken, listeners)
    except BaseException:
        for one in (one for sockets in taken.values() for one in sockets):
            one.close()
        raise


def _socket(descriptor: int, name: str) -> socket.socket:
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        raise _not_listening(descriptor, name) from None
    is_tcp = found.family in (socket.AF_INET, socket.AF_INET6)
    if (
        not is_tcp
        or found.type != socket.SOCK_STREAM
        or not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        found.close()
        raise _not_listening(descriptor, name)
    found.set_inheritable(False)
    found.setblocking(False)
    return found


def _not_listening(descriptor: int, name: str) -> CannotListen:
    return CannotListen(
        f"the descriptor {descriptor} ({name or 'without a name'}) that the service manager handed "
        "over is no listening TCP socket: use ListenStream= with a port, and Accept=no"
    )


def _by_listener(
    taken: dict[str, list[socket.socket]], listeners: Sequence[str]
) -> dict[str, list[socket.socket]]:
    if len(listeners) == 1:
        everything = [one for sockets in taken.values() for one in sockets]
        return {listeners[0]: everything} if everything else {}
    found: dict[str, list[socket.socket]] = {}
    for name, sockets in taken.items():
        listener = name if name in listeners else name.removesuffix(_UNIT)
        if listener not in listeners:
            raise CannotListen(
                f"the service manager handed over a socket named {name or '(nothing)'}, and no "
                f"listener has that name: set FileDescriptorName= to one of {', '.join(listeners)}"
            )
        found.setdefault(listener, []).extend(sockets)
    return found
