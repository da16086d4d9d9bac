"""Looks at what OAuth settings point to: certificates, key files and programs.

What is wrong with them is told by `check`, not by the first token that cannot be had.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.config.environment import check_file
from xoauth2_proxy.config.values import fault_of_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date
    from pathlib import Path

    from xoauth2_proxy.config.problems import Problems

_MAX_FILE_BYTES = 256 * 1024  # a chain of certificates and a key have a tenth of it

# cryptography is imported by those who read a key: it takes 9 MiB, and most files name none.


def certificate_end(file: Path, path: str, problems: Problems) -> date | None:
    """Return the last day of the client certificate in `file`, if its private key is there too."""
    octets = _content(file, path, problems)
    if octets is None:
        return None
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificates(octets)[0]
        key = load_pem_private_key(octets, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: the key is encrypted
        problems.add(
            path, f"the file {file} must hold a certificate and its private key (PEM, unencrypted)"
        )
        return None
    if not isinstance(key, RSAPrivateKey):
        # learn.microsoft.com/entra/identity-platform/certificate-credentials: PS256, RS256.
        problems.add(path, f"the key in {file} is no RSA key, and Microsoft Entra takes no other")
    elif key.public_key() != certificate.public_key():
        problems.add(path, f"the key in {file} is not that of its first certificate")
    return certificate.not_valid_after_utc.date()


def check_service_account(file: Path, path: str, problems: Problems) -> None:
    """Note a problem at `path` unless `file` is a service account's key file."""
    octets = _content(file, path, problems)
    if octets is None:
        return
    try:
        account = json.loads(octets)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        problems.add(path, f"the file {file} is not JSON as Google Cloud hands it out")
    elif fault := _fault_of_service_account(account):
        problems.add(path, f"in the file {file}, {fault}")


def found_program(
    words: Sequence[str], directory: Path, environ: Mapping[str, str], path: str, problems: Problems
) -> tuple[str, ...]:
    """Return the command with its program's whole path, or note a problem at `path`.

    A program without a slash is looked for on the PATH, another one from `directory`.
    """
    name = words[0]
    if not name or any("\0" in word for word in words):
        problems.add(path, "must begin with a program, and hold no NUL")
        return ()
    if "/" in name:
        file = directory / name
        found = str(file) if file.is_file() and os.access(file, os.X_OK) else None
        place = str(file)
    else:
        found = shutil.which(name, path=environ.get("PATH", os.defpath))
        place = f"{name} on the PATH"
    if found is None:
        problems.add(path, f"there is no program {place}")
        return ()
    return (os.path.abspath(found), *words[1:])


def _content(file: Path, path: str, problems: Problems) -> bytes | None:
    if not check_file(file, path, problems):
        return None
    try:
        with file.open("rb") as opened:
            octets = opened.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        problems.add(path, f"the file {file} cannot be read: {error.strerror}")
        return None
    if len(octets) > _MAX_FILE_BYTES:
        problems.add(path, f"the file {file} is larger than {_MAX_FILE_BYTES} bytes")
        return None
    return octets


def _fault_of_service_account(account: dict[str, Any]) -> str:
    for key in ("client_email", "private_key"):
        if not isinstance(account.get(key), str) or not account[key]:
            return f"there is no {key}"
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        load_pem_private_key(account["private_key"].encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "private_key is no private key (PEM, unencrypted)"
    url = account.get("token_uri", "https://oauth2.googleapis.com/token")
    fault = fault_of_url(url) if isinstance(url, str) else "must be text"
    return f"token_uri {fault}" if fault else ""
