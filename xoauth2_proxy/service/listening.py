"""The sockets on which mail clients connect: each listener has one or more."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.admin.health import ListenerState
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.service.addresses import CannotListen, explain_listen_error
from xoauth2_proxy.service.inherited_sockets import take_sockets
from xoauth2_proxy.submission.acceptor import listening_sockets
from xoauth2_proxy.submission.policy import ListenerTls

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

    from xoauth2_proxy.config import Config
    from xoauth2_proxy.config.listener_section import ListenerSection
    from xoauth2_proxy.service.certificates import Certificates

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
        """Listen on all addresses, but for listeners whose sockets were handed over; blocks.

        Raises `OSError`: an address cannot be listened on.
        """
        inherited = take_sockets([one.name for one in config.listeners])
        opened: list[list[socket.socket]] = []
        try:
            for path, listener in zip(config.listener_paths, config.listeners, strict=True):
                sockets = inherited.pop(listener.name, None)
                if sockets is None:
                    is_only = len(config.listeners) == 1
                    opened.append(_listen(path, listener, is_only=is_only))
                else:
                    opened.append(sockets)
                    _check_inherited(config, path, listener, sockets)
        except BaseException:
            cls([*opened, *inherited.values()]).close()
            raise
        return cls(opened)

    def close(self) -> None:
        """Stop listening here; other processes that have the sockets go on."""
        for sockets in self.by_listener:
            for one in sockets:
                one.close()

    def is_on_loopback(self, place: int) -> bool:
        """Whether only this machine can connect to the listener at `place`."""
        return _exposed(self.by_listener[place]) is None

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


def _listen(path: str, listener: ListenerSection, *, is_only: bool) -> list[socket.socket]:
    where = f"{path}.host and {path}.port in the configuration"
    if is_only:
        where = f"--host, --port, or {where}"
    with explain_listen_error("mail clients", listener.host[0], listener.port, where):
        return listening_sockets(listener.host, listener.port)


def _check_inherited(
    config: Config, path: str, listener: ListenerSection, sockets: Iterable[socket.socket]
) -> None:
    """Raise `CannotListen` for what the configuration allows on loopback only.

    It was checked with the address that the configuration names, which these do not have.
    """
    exposed = _exposed(sockets)
    if exposed is None:
        return
    handed_over = (
        f"the socket for {path} that was handed over is on {exposed}, which is no loopback"
    )
    if listener.tls_mode is ListenerTls.NONE and not listener.allow_insecure_auth:
        raise CannotListen(
            f"{handed_over}, and there is no TLS: clients could not log in; give tls_cert and "
            "tls_key, or allow_insecure_auth"
        )
    if any(account.allow_any_password for account in config.accounts):
        raise CannotListen(f"{handed_over}, and an account has allow_any_password")


def _exposed(sockets: Iterable[socket.socket]) -> str | None:
    """Return an address that others than this machine can reach, or None."""
    hosts = (str(one.getsockname()[0]) for one in sockets)
    return next((host for host in hosts if not is_loopback(host)), None)
