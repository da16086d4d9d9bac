"""Looks into the files that OAuth settings name: client certificates and service accounts' keys.

What is wrong with them is told by `check`, not by the first token that cannot be had. Each check
raises `ValueError` with what is wrong.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.config.environment import check_file
from xoauth2_proxy.config.urls import fault_of_url
from xoauth2_proxy.files import read_at_most

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

_MAX_FILE_BYTES = 256 * 1024  # a chain of certificates and a key have a tenth of it
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address


def check_client_certificate(file: Path) -> None:
    """Return if `file` holds a certificate that Microsoft Entra takes, and its private key."""
    # Not above: cryptography takes 9 MiB, and most configurations name no such file.
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    octets = _content(file)
    try:
        certificate = x509.load_pem_x509_certificates(octets)[0]
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: the key is encrypted
        raise ValueError(
            f"the file {file} must hold a certificate and its private key (PEM, unencrypted)"
        ) from None
    if not isinstance(key, RSAPrivateKey):
        # learn.microsoft.com/entra/identity-platform/certificate-credentials: PS256, RS256.
        raise ValueError(f"the key in {file} is no RSA key, and Microsoft Entra takes no other")
    if key.public_key() != certificate.public_key():
        raise ValueError(f"the key in {file} is not that of its first certificate")


def certificate_end(file: Path) -> date:
    """Return the last day of the first certificate in `file`."""
    from cryptography import x509

    return x509.load_pem_x509_certificates(_content(file))[0].not_valid_after_utc.date()


def certificate_fault(file: Path) -> str:
    """Return why clients would refuse the first certificate in `file` now; "" for no reason."""
    from cryptography import x509

    with suppress(ValueError):  # a file that is not PEM is told elsewhere
        certificate = x509.load_pem_x509_certificates(_content(file))[0]
        now = datetime.now(UTC)
        if certificate.not_valid_after_utc < now:
            return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; clients refuse it"
        if certificate.not_valid_before_utc > now:
            return f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d} only"
    return ""


def check_service_account(file: Path) -> None:
    """Return if `file` is a service account's key file."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

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
        load_pem_private_key(account["private_key"].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: the key is encrypted
        raise ValueError(
            f"in the file {file}, private_key is no private key (PEM, unencrypted)"
        ) from None
    url = account.get("token_uri", _TOKEN_URI)
    if fault := fault_of_url(url) if isinstance(url, str) else "must be text":
        raise ValueError(f"in the file {file}, token_uri {fault}")


def _content(file: Path) -> bytes:
    check_file(file)
    try:
        return read_at_most(file, _MAX_FILE_BYTES)
    except ValueError as error:
        raise ValueError(f"the file {file} {error}") from None
