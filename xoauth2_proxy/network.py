"""Recognizes loopback hosts and local networks, checks URLs, reads `Host` headers, TLS failures."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import urlsplit

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# Networks that no packet from the Internet comes from: RFC 1918, 1122, 3927, 4193, 4291. Not
# `is_private` of `ipaddress`, which holds for 0.0.0.0/0 in some versions, and for networks that
# providers share among customers.
_LOCAL_NETWORKS: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # RFC 4291 §2.5.5.2

# What `localhost` means to a server, whatever a hosts file says: some clients try ::1 alone.
LOCALHOST = ("127.0.0.1", "::1")


@lru_cache(maxsize=4096)  # asked for each client
def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address; no name is looked up.

    An IPv6 address may have a zone, and may hold an IPv4 address (RFC 4291 §2.5.5.2).
    """
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return plain_address(address).is_loopback


def plain_address(address: Address) -> Address:
    """Return the address; an IPv4 address in an IPv6 one as IPv4 (RFC 4291 §2.5.5.2)."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def plain_peer(peer: str) -> str:
    """Return the address of a connection's other end; on a socket for both kinds, IPv4 as IPv4."""
    return peer.removeprefix("::ffff:") if "." in peer else peer


def parse_network(text: str) -> Network:
    """Return the network that `text` is, as 192.0.2.0/24; a mere address is one of its own.

    Raises `ValueError` with what is wrong.
    """
    try:
        found = ipaddress.ip_network(text, strict=False)
        is_exact = "/" not in text or ipaddress.ip_interface(text).ip == found.network_address
    except ValueError:
        raise ValueError("must be a network like 192.0.2.0/24, or an IP address") from None
    if not is_exact:
        raise ValueError(f"has bits beyond the prefix; did you mean {found}?")
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), found.prefixlen - _MAPPED.prefixlen))
    return found


def network_text(network: Network) -> str:
    """Return a network as people write it: one of a single address without its prefix."""
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if is_single else network)


def is_local_network(network: Network) -> bool:
    """Whether all of the network is loopback, private, link-local or unique local."""
    return any(
        network.version == local.version and network.subnet_of(local)  # type: ignore[arg-type]
        for local in _LOCAL_NETWORKS
    )


def fault_of_url(url: str) -> str:
    """Return what is wrong with the URL of a server that is sent secrets; "" for nothing.

    It needs TLS or must be this machine, so that what is sent cannot be read on the way.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be a URL"
    if not url.isascii() or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        return "must be a URL, without blanks and in ASCII"
    if not host or parts.scheme not in {"https", "http"}:
        return "must be a URL that begins with https:// and names a host"
    if parts.scheme == "http" and not is_loopback(host):
        return "must begin with https://; http:// is for loopback only"
    if "@" in parts.netloc:
        return "must not hold a user name or a password"
    return "must not hold a fragment (#)" if "#" in url else ""


def is_without_tls(error: BaseException) -> bool:
    """Whether a TLS handshake failed because the server answered in clear.

    OpenSSL takes the first octets for a record: of an unknown version or, since 3.2, too long.
    """
    return getattr(error, "reason", "") in {"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG"}


def host_of(host_and_port: str) -> str:
    """Return the host of a `Host` header in lower case, without port and brackets."""
    if host_and_port.startswith("["):
        return host_and_port[1:].partition("]")[0].lower()
    return host_and_port.partition(":")[0].lower()
