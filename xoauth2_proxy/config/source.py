"""Where a running relay's configuration comes from, and what a change of it can do at once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from xoauth2_proxy.config.load import begin_reading, finish_reading, load_config

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from xoauth2_proxy.config.account_loader import Roster
    from xoauth2_proxy.config.settings import Config, Overrides

# What is read once, when the relay starts: its sockets, its limits and its store.
_READ_ONCE = ("listener", "admin", "relay", "store", "alerts")
_KEYS = {"is_key_in_keyring": "keyring"}  # fields that are called otherwise than the file's keys


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """What to read the configuration from, as the command line said; it can be pickled."""

    path: Path | None
    overrides: Overrides
    state_dir: Path

    def load(self, known_refreshers: Collection[str], environ: Mapping[str, str]) -> Config:
        """Return the configuration as it is now. Raises `ConfigError`; blocks."""
        return load_config(
            self.path,
            self.overrides,
            state_dir=self.state_dir,
            known_refreshers=known_refreshers,
            environ=environ,
        )

    def roster(
        self,
        known_refreshers: Collection[str],
        environ: Mapping[str, str],
        without: Collection[str] = frozenset(),
    ) -> Roster:
        """Return the accounts that a further one must agree with. Raises `ConfigError`; blocks.

        `without` are keys of added accounts that are to be left out.
        """
        reading = begin_reading(
            self.path,
            self.overrides,
            state_dir=self.state_dir,
            known_refreshers=known_refreshers,
            environ=environ,
        )
        return finish_reading(reading, without)[1]


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the JSON paths whose change from `old` to `new` takes effect only after a restart."""
    return [
        f"{section}.{_KEYS.get(field.name, field.name)}"
        for section in _READ_ONCE
        for field in fields(getattr(old, section))
        if getattr(getattr(old, section), field.name) != getattr(getattr(new, section), field.name)
    ]
