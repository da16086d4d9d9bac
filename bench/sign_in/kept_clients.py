"""Keeps the client that was registered at a provider, for the next run: one private file each."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.sign_in.authorization_server import RegisteredClient
from xoauth2_proxy.files import private_directory, replace_durably

if TYPE_CHECKING:
    from pathlib import Path

_DIRECTORY = "bench-clients"


def file_of(state_dir: Path, issuer: str) -> Path:
    """Return the file for an issuer's client, which need not exist."""
    host = "".join(one if one.isalnum() else "-" for one in urlsplit(issuer).netloc)
    digest = hashlib.sha256(issuer.rstrip("/").encode()).hexdigest()[:12]
    return state_dir / _DIRECTORY / f"{host}-{digest}.json"


def load(state_dir: Path, issuer: str) -> RegisteredClient | None:
    """Return the client kept for an issuer; None if there is none that can be read."""
    try:
        kept = json.loads(file_of(state_dir, issuer).read_bytes())
        if kept["issuer"] != issuer:
            return None
        uris = tuple(map(str, kept["redirect_uris"]))
        return RegisteredClient(str(kept["client_id"]), str(kept["client_secret"]), uris)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save(state_dir: Path, issuer: str, client: RegisteredClient) -> Path:
    """Keep a client for an issuer in place of any other; return the file. Raises `OSError`."""
    path = file_of(state_dir, issuer)
    private_directory(path.parent)
    document = {
        "issuer": issuer,
        "client_id": client.client_id,
        "client_secret": client.secret,
        "redirect_uris": list(client.redirect_uris),
    }
    replace_durably(path, json.dumps(document, indent=2).encode() + b"\n", 0o600)
    return path
