"""Where a running relay's configuration comes from, and what a change of it can do at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.config.account_loader import AccountLoader
    from xoauth2_proxy.config.config import Config
    from xoauth2_proxy.config.overrides import Overrides

# What is read once, when the relay starts: its sockets, its limits and its store.
_READ_ONCE = ("listener", "admin", "relay", "store", "alerts")


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """What to read the configuration from, as the command line said; it can be pickled."""

    path: Path | None
    overrides: Overrides
    state_dir: Path

    def load(self, known_refreshers: Collection[str], environ: Mapping[str, str]) -> Config:
        """Return the configuration as it is now. Raises `ConfigError`; blocks."""
        return self._load(known_refreshers, environ)[0]

    def check_account(
        self, document: object, known_refreshers: Collection[str], environ: Mapping[str, str]
    ) -> Account:
        """Return the account that `document` makes beside those there are now; blocks.

        Raises:
            ConfigError: with JSON paths that begin in the account, or in the configuration file if
                that has become wrong itself.
        """
        (account,) = self.check_accounts([("", document)], known_refreshers, environ)
        return account

    def check_accounts(
        self,
        documents: Iterable[tuple[str, object]],
        known_refreshers: Collection[str],
        environ: Mapping[str, str],
        *,
        replaced: Collection[str] = frozenset(),
        has_token: bool = True,
    ) -> list[Account]:
        """Return the accounts that the documents make, in their order; blocks.

        They are judged beside each other and beside those there are now, but for `replaced`, the
        keys of added ones. With each document comes its JSON path. `has_token` is False where
        anybody on this machine can ask, because the admin server that runs was started without a
        token.

        Raises:
            ConfigError: with every problem, or with those of the configuration file.
        """
        _, loader = self._load(known_refreshers, environ, without=replaced)
        there = len(loader.accounts)
        is_guarded = has_token and loader.is_guarded
        problems = Problems()
        for path, document in documents:
            if isinstance(document, dict) and document.get("enabled") is False:
                problems.add(json_path(path, "enabled"), "must be true, or left out")
            _, found = loader.load_posted(document, "the request", path, is_guarded=is_guarded)
            problems.take(found)
        problems.raise_if_any()
        return loader.accounts[there:]

    def _load(
        self,
        known_refreshers: Collection[str],
        environ: Mapping[str, str],
        without: Collection[str] = frozenset(),
    ) -> tuple[Config, AccountLoader]:
        # Not above: ssl and pydantic take a while to import.
        from xoauth2_proxy.config.environment import Environment
        from xoauth2_proxy.config.load import load

        directory = self.path.absolute().parent if self.path else Path.cwd()
        environment = Environment(directory=directory, state_dir=self.state_dir, environ=environ)
        return load(self.path, self.overrides, environment, known_refreshers, without)


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the JSON paths whose change from `old` to `new` takes effect only after a restart."""
    return [
        f"{section}.{key}"
        for section in _READ_ONCE
        for key, value in getattr(old, section)
        if value != getattr(getattr(new, section), key)
    ]
