"""Recognizes loopback hosts, and reads the host from a `Host` header."""

from __future__ import annotations

import ipaddress


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
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def host_of(host_and_port: str) -> str:
    """Return the host of a `Host` header in lower case, without port and brackets."""
    if host_and_port.startswith("["):
        return host_and_port[1:].partition("]")[0].lower()
    return host_and_port.partition(":")[0].lower()
