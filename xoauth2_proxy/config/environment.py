"""Where a configuration's files and variables are looked up."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xoauth2_proxy.config.problems import Problems
    from xoauth2_proxy.config.secret import SecretReference


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The directory that relative paths start from, and the environment."""

    directory: Path
    environ: Mapping[str, str] = field(repr=False)

    def secret(self, reference: SecretReference, path: str, problems: Problems) -> str:
        """Return the secret behind `reference`, or "" with a problem at `path`."""
        try:
            return reference.resolve(self.environ, self.directory)
        except ValueError as error:
            problems.add(path, str(error))
            return ""


def check_file(file: Path, path: str, problems: Problems) -> bool:
    """Note a problem at `path` unless `file` is there and may be read; return whether it is."""
    if not os.path.isfile(file):
        problems.add(path, f"there is no file {file}")
        return False
    if not os.access(file, os.R_OK):
        problems.add(path, f"the file {file} may not be read")
        return False
    return True


def check_authorities(file: Path, path: str, problems: Problems) -> None:
    """Note a problem at `path` unless `file` holds certificates."""
    if not check_file(file, path, problems):
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except (OSError, ssl.SSLError):
        problems.add(path, f"the file {file} holds no certificates (PEM)")


def check_key_pair(cert: Path, key: Path, path: str, problems: Problems) -> None:
    """Note a problem at `path` unless a TLS server can use the certificate with the key."""
    if not (cert.is_file() and key.is_file()):
        return  # told already
    try:
        # An encrypted key would ask for its password at the terminal; refuse it instead.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError):
        problems.add(
            path,
            f"{cert} and {key} cannot be used: each must be PEM, the key must be the "
            "certificate's and not encrypted",
        )


def is_loopback(host: str) -> bool:
    """Whether `host` can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
