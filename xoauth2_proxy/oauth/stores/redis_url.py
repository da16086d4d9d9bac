"""Validates the URL of a Redis server. Needs no Redis module, because `check` uses it too."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from xoauth2_proxy.network import is_loopback

_SCHEMES = frozenset({"redis", "rediss", "unix"})
_PARAMETERS = frozenset({"db", "ssl_ca_certs"})  # others could turn off checks
_FORMS = "must be a rediss://, redis:// or unix:// URL"


def redis_location(url: str, *, is_encrypted: bool) -> str:
    """Return the server's location for messages: host and port, or a socket's path.

    `is_encrypted` says whether grants are encrypted before they are sent. Raises `ValueError`: the
    URL is not valid; the text says what it must be, and quotes no password.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 6379
        unknown = parse_qs(parts.query, keep_blank_values=True).keys() - _PARAMETERS
    except ValueError:
        raise ValueError(_FORMS) from None
    is_socket = parts.scheme == "unix"
    place = parts.path if is_socket else host
    if not url.isprintable() or parts.scheme not in _SCHEMES or not place:
        raise ValueError(_FORMS)
    if unknown or parts.fragment:
        raise ValueError(f"must have no parameters but {' and '.join(sorted(_PARAMETERS))}")
    if parts.scheme == "redis" and not is_encrypted and not is_loopback(host):
        raise ValueError(
            f"would send tokens to {host} without TLS and without encryption, for anyone on the "
            "way to read; write rediss://, or give store.key"
        )
    return f"redis at {place}" if is_socket else f"redis at {host}:{port}"
