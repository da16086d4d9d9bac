"""Configuration files for tests: written, loaded, and their problems by JSON path."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, RefresherInfo
from xoauth2_proxy.config import Config, ConfigSource, Overrides
from xoauth2_proxy.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK_ACCOUNT: dict[str, object] = {
    "email": "someone@example.com",
    "provider": "mock",
    "password": "opens sesame",
}


def account(**changes: object) -> dict[str, object]:
    """A mock account that loads, with `changes`; a change to None leaves the key out."""
    merged = LOOPBACK_ACCOUNT | changes
    return {key: value for key, value in merged.items() if value is not None}


@dataclass
class ConfigFile:
    """A directory with one configuration file, and the surroundings it is loaded in."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)
    known_refreshers: dict[str, RefresherInfo] = field(
        default_factory=lambda: dict(BUILT_IN_REFRESHERS)
    )

    @property
    def path(self) -> Path:
        return self.directory / "accounts.json"

    @property
    def state_dir(self) -> Path:
        return self.directory / "state"

    def write(self, text: str | bytes) -> None:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.path.chmod(0o600)  # else there is a warning of the secrets in it

    def add(self, name: str, content: str = "x") -> Path:
        """Put another file beside the configuration file."""
        path = self.directory / name
        path.touch(0o600)  # as a file with a secret should be
        path.write_text(content)
        return path

    def load(self, document: object = None, overrides: Overrides | None = None) -> Config:
        """Load `document`, or what was written before if there is none."""
        if document is not None:
            self.write(json.dumps(document))
        source = ConfigSource(self.path, overrides or Overrides(), self.state_dir)
        return source.load(self.known_refreshers, self.environ)

    def load_one(self, **changes: object) -> Config:
        """Load a file of the one account that `changes` make."""
        return self.load({"accounts": [account(**changes)]})

    def problems(
        self, document: object = None, overrides: Overrides | None = None
    ) -> dict[str, str]:
        """Return what is wrong with `document`, by JSON path; {} if it loads."""
        found: list[tuple[str, str]] = []
        try:
            self.load(document, overrides)
        except ConfigError as error:
            found = error.problems
        assert len(dict(found)) == len(found), f"two problems at one path: {found}"
        return dict(found)

    def problems_of_one(self, **changes: object) -> dict[str, str]:
        """Return what is wrong with a file of the one account that `changes` make."""
        return self.problems({"accounts": [account(**changes)]})
