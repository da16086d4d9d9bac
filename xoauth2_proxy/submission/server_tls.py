"""Makes what a listener needs for TLS: its certificate and key, and the versions it takes.

OpenSSL 3 speaks TLS 1.0 and 1.1 at security level 0 only, and the ciphers that Python chooses have
none for them. So a listener for old clients has ciphers of its own.
"""

from __future__ import annotations

import ssl
import warnings
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_CIPHERS_FOR_OLD_CLIENTS = "ALL:!aNULL:!eNULL:@SECLEVEL=0"


class TlsVersion(StrEnum):
    """A version of TLS."""

    TLS_1_0 = "1.0"
    TLS_1_1 = "1.1"
    TLS_1_2 = "1.2"
    TLS_1_3 = "1.3"

    @property
    def is_broken(self) -> bool:
        """Whether RFC 8996 forbids it."""
        return self in (TlsVersion.TLS_1_0, TlsVersion.TLS_1_1)


_MINIMUM = {
    TlsVersion.TLS_1_0: ssl.TLSVersion.TLSv1,
    TlsVersion.TLS_1_1: ssl.TLSVersion.TLSv1_1,
    TlsVersion.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    TlsVersion.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}


def server_context(cert: Path, key: Path, oldest: TlsVersion) -> ssl.SSLContext:
    """Return a context for a server; blocks. Raises `OSError`: the files cannot be used."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if oldest.is_broken:
        context.set_ciphers(_CIPHERS_FOR_OLD_CLIENTS)
    with warnings.catch_warnings():  # of the versions that are deprecated; the operator is warned
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = _MINIMUM[oldest]
    # Last: at a higher security level, an old client's short key would be refused. An encrypted
    # key would ask for its password at the terminal; refuse it instead.
    context.load_cert_chain(cert, key, password=lambda: "")
    return context


def fault_of_key_pair(cert: Path, key: Path, oldest: TlsVersion) -> str:
    """Return why a TLS server cannot use the certificate with the key; "" if it can."""
    try:
        server_context(cert, key, oldest)
    except OSError:
        return (
            f"{cert} and {key} cannot be used: each must be PEM, the key must be the "
            "certificate's and not encrypted"
        )
    return ""
