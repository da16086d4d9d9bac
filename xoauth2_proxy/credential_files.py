"""Checks the files of certificates and keys that a configuration names.

So `check` tells what is wrong with them, not the first client or token that fails.
"""

from __future__ import annotations

import json
import os
import ssl
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.files import read_at_most
from xoauth2_proxy.network import fault_of_url

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

# cryptography is imported where it is used: it takes 9 MiB, and most configurations need none.

_MAX_FILE_BYTES = 256 * 1024  # a chain of certificates and a key have a tenth of it
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


def fault_of_file(file: Path) -> str:
    """Return why `file` cannot be read; "" if it can."""
    if not os.path.isfile(file):
        return f"there is no file {file}"
    return "" if os.access(file, os.R_OK) else f"the file {file} may not be read"


def check_authorities(file: Path) -> None:
    """Return if `file` holds certificates (PEM). Raises `ValueError`."""
    if fault := fault_of_file(file):
        raise ValueError(fault)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError):
        raise ValueError(f"the file {file} holds no certificates (PEM)") from None


def fault_of_certificate(file: Path) -> str:
    """Return why clients would refuse the first certificate in `file` now; "" for no reason."""
    try:
        certificate = _certificate(_content(file))
    except ValueError:
        return ""  # a file that is not PEM is told elsewhere
    now = datetime.now(UTC)
    if certificate.not_valid_after_utc < now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; clients refuse it"
    if certificate.not_valid_before_utc > now:
        return f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d} only"
    return ""


def has_rsa_certificate(file: Path) -> bool:
    """Whether the first certificate in `file` is for an RSA key. Raises `ValueError`."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    return isinstance(_certificate(_content(file)).public_key(), RSAPublicKey)


def certificate_end(file: Path) -> date:
    """Return the last day of the first certificate in `file`. Raises `ValueError`."""
    return certificate_expiry(file).date()


def certificate_expiry(file: Path) -> datetime:
    """Return when the first certificate in `file` expires. Raises `ValueError`."""
    return _certificate(_content(file)).not_valid_after_utc


def days_until(moment: datetime) -> int:
    """Return the number of whole days until then; negative once it is past."""
    return (moment - datetime.now(UTC)).days


def check_client_certificate(file: Path) -> None:
    """Return if `file` holds a certificate and key for Microsoft Entra. Raises `ValueError`."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    octets = _content(file)
    try:
        certificate, key = _certificate(octets), _private_key(octets)
    except ValueError:
        raise ValueError(
            f"the file {file} must hold a certificate and its private key (PEM, unencrypted)"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        # learn.microsoft.com/entra/identity-platform/certificate-credentials: PS256, RS256.
        raise ValueError(f"the key in {file} is no RSA key, and Microsoft Entra takes no other")
    if key.public_key() != certificate.public_key():
        raise ValueError(f"the key in {file} is not that of its first certificate")


def check_service_account(file: Path) -> None:
    """Return if `file` is a service account's key file. Raises `ValueError`."""
    octets = _content(file)
    try:
        account = json.loads(octets)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise ValueError(f"the file {file} is not JSON as Google Cloud hands it out")
    for key in ("client_email", "private_key"):
        if not isinstance(account.get(key), str) or not account[key]:
            raise ValueError(f"in the file {file}, there is no {key}")
    try:
        _private_key(account["private_key"].encode())
    except ValueError:
        raise ValueError(
            f"in the file {file}, private_key is no private key (PEM, unencrypted)"
        ) from None
    url = account.get("token_uri", _TOKEN_URI)
    if fault := fault_of_url(url) if isinstance(url, str) else "must be text":
        raise ValueError(f"in the file {file}, token_uri {fault}")


def _certificate(pem: bytes) -> Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificates(pem)[0]


def _private_key(pem: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, password=None)
    except (TypeError, UnsupportedAlgorithm):  # TypeError: the key is encrypted
        raise ValueError("no private key") from None


def _content(file: Path) -> bytes:
    if fault := fault_of_file(file):
        raise ValueError(fault)
    try:
        return read_at_most(file, _MAX_FILE_BYTES)
    except ValueError as error:
        raise ValueError(f"the file {file} {error}") from None
