"""Where the sandbox of a state directory listens: it writes a file, which other processes read.

The file outlives the sandbox, so that the next one takes the same port for HTTP if it is free. The
address is part of what a sign-in belongs to, and a sign-in is to outlive a restart.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.files import read_at_most, written_beside
from xoauth2_proxy.network import is_loopback

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class SandboxAddresses:
    """The addresses of a sandbox; the default is what `xoauth2-bench sandbox` uses."""

    host: str = "localhost"
    smtp_port: int = 2600
    http_url: str = "http://127.0.0.1:2601"  # without a slash at the end; also the issuer

    @property
    def http_port(self) -> int:
        """The port for HTTP."""
        return urlsplit(self.http_url).port or 80

    def write(self, state_dir: Path) -> None:
        """Replace the file of this state directory, whose `sandbox` directory exists."""
        path = _path(state_dir)
        with written_beside(path, json.dumps(asdict(self)).encode(), 0o600) as temporary:
            temporary.replace(path)


def last_known(state_dir: Path) -> SandboxAddresses | None:
    """Return where the sandbox of this state directory listens, or did last; None if unknown."""
    try:
        document = json.loads(read_at_most(_path(state_dir), _MAX_BYTES))
        known = SandboxAddresses(
            host=str(document["host"]),
            smtp_port=int(document["smtp_port"]),
            http_url=str(document["http_url"]),
        )
        parts = urlsplit(known.http_url)
        is_usable = parts.scheme == "http" and parts.port and is_loopback(parts.hostname or "")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if is_usable and is_loopback(known.host) else None


def _path(state_dir: Path) -> Path:
    return state_dir.absolute() / "sandbox" / "addresses.json"
