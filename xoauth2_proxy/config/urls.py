"""What the URL of a server that is sent secrets may be."""

from __future__ import annotations

from urllib.parse import urlsplit

from xoauth2_proxy.network import is_loopback


def fault_of_url(url: str) -> str:
    """Return what is wrong with the URL of a server that is sent secrets; "" for nothing.

    TLS, or this machine: nobody on the way reads what is sent there.
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
