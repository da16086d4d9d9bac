"""The sockets on which mail clients connect: each listener has one or more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.admin.health import ListenerState
from xoauth2_proxy.service.addresses import explain_listen_error
from xoauth2_proxy.submission.acceptor import listening_sockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from xoauth2_proxy.config import Config
    from xoauth2_proxy.service.certificates import Certificates
    from xoauth2_proxy.submission.policy import ListenerTls

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ListenerAddresses:
    """Where one listener listens, and how it is protected."""

    name: str
    tls: ListenerTls
    addresses: tuple[Address, ...]  # at least one


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a running relay."""

    listeners: tuple[ListenerAddresses, ...]  # at least one
    admin: Address

    @property
    def smtp(self) -> Address:
        """The first address of the first listener."""
        return self.listeners[0].addresses[0]


def listener_states(
    listeners: Iterable[ListenerAddresses], certificates: Certificates
) -> tuple[ListenerState, ...]:
    """Return what health tells of the listeners."""
    return tuple(
        ListenerState(
            one.name,
            tuple(map(text_of, one.addresses)),
            one.tls,
            partial(certificates.expires, place),
        )
        for place, one in enumerate(listeners)
    )


def text_of(address: Address) -> str:
    """Return an address as host and port."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class ListeningSockets:
    """The listening sockets of all listeners, in the order of the configuration."""

    def __init__(self, sockets: Iterable[Iterable[socket.socket]]) -> None:
        self.by_listener = tuple(map(tuple, sockets))

    @classmethod
    def open(cls, config: Config) -> ListeningSockets:
        """Listen on all addresses; blocks. Raises `OSError`: one cannot be listened on."""
        opened: list[list[socket.socket]] = []
        try:
            for path, listener in zip(config.listener_paths, config.listeners, strict=True):
                where = f"{path}.host and {path}.port in the configuration"
                if len(config.listeners) == 1:
                    where = f"--host, --port, or {where}"
                with explain_listen_error("mail clients", listener.host[0], listener.port, where):
                    opened.append(listening_sockets(listener.host, listener.port))
        except BaseException:
            cls(opened).close()
            raise
        return cls(opened)

    def close(self) -> None:
        """Stop listening here; other processes that have the sockets go on."""
        for sockets in self.by_listener:
            for one in sockets:
                one.close()

    def addresses(self, config: Config) -> tuple[ListenerAddresses, ...]:
        """Return what the listeners are called and where they are."""
        return tuple(
            ListenerAddresses(
                listener.name,
                listener.tls_mode,
                tuple((host, port) for host, port, *_ in (one.getsockname() for one in sockets)),
            )
            for listener, sockets in zip(config.listeners, self.by_listener, strict=True)
        )
