"""The settings that all sessions of a listener share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import address_of
from xoauth2_proxy.smtp.sasl import DEFAULT_MECHANISMS

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from xoauth2_proxy.network import Network


class ListenerTls(StrEnum):
    """How a listener protects connections."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"  # TLS from the first octet (RFC 8314 §3.3)
    AUTO = "auto"  # the client's first octet decides


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPolicy:
    """What a listener offers its clients, and what it allows them."""

    hostname: str
    listener: str = "default"  # the listener's name
    max_message_bytes: int
    max_recipients: int
    buffer_bytes: int  # content beyond this is sent upstream while it arrives
    idle_seconds: float  # how long a client may be silent
    login_seconds: float = 120.0  # how long a client may take until it has logged in
    message_seconds: float = 1800.0  # how long a message may take from MAIL to its end
    max_commands: int = 2000  # since the last message
    max_bad_commands: int = 10  # beyond it the peer is not an SMTP client
    tls_context: ssl.SSLContext | None  # None: STARTTLS is not offered
    tls: ListenerTls = ListenerTls.STARTTLS  # without a context: none
    may_auth_in_clear: bool
    mechanisms: tuple[str, ...] = DEFAULT_MECHANISMS  # of `sasl.MECHANISMS`, as EHLO lists them
    strict: bool = False  # refuse what is unambiguous but against RFC 5321
    unannounced: tuple[str, ...] = ()  # taken although EHLO does not list them
    auth_equals_line: bool = False  # list the mechanisms once more, as programs of 1997 did
    networks: tuple[Network, ...] = ()  # that may connect; (): all
    # Load balancers whose PROXY header is trusted; no other peer's is.
    proxies: tuple[Network, ...] = ()

    @property
    def looks_first(self) -> bool:
        """Whether something comes before the greeting: a PROXY header, or perhaps TLS."""
        return bool(self.proxies) or self.tls in (ListenerTls.IMPLICIT, ListenerTls.AUTO)

    def speaks_proxy(self, peer: str) -> bool:
        """Whether `peer` is a load balancer that names its client in a PROXY header."""
        return bool(self.proxies) and _is_in(peer, self.proxies)

    def may_connect(self, address: str) -> bool:
        """Whether clients of this address may connect."""
        return not self.networks or _is_in(address, self.networks)


def _is_in(peer: str, networks: Iterable[Network]) -> bool:
    address = address_of(peer)
    return address is not None and any(address in one for one in networks)
