"""Recognizes loopback hosts, checks servers' URLs, reads `Host` headers and failures of TLS."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


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
