"""Where the configuration comes from: it is loaded at the start, again, and with more accounts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.config.account_loader import AccountLoader
    from xoauth2_proxy.config.config import Config
    from xoauth2_proxy.config.overrides import Overrides


@dataclass(frozen=True, slots=True)
class ConfigSource:
    """What to read the configuration from, as the command line said; it can be pickled."""

    path: Path | None
    overrides: Overrides
    state_dir: Path

    def load(self, refreshers: Mapping[str, RefresherInfo], environ: Mapping[str, str]) -> Config:
        """Return the configuration as it is now. Raises `ConfigError`; blocks."""
        return self._load(refreshers, environ)[0]

    def check_account(
        self, document: object, refreshers: Mapping[str, RefresherInfo], environ: Mapping[str, str]
    ) -> Account:
        """Return the account that `document` makes, as `check_accounts` does."""
        return self.check_accounts([("", document)], refreshers, environ)[0]

    def check_accounts(
        self,
        documents: Iterable[tuple[str, object]],
        refreshers: Mapping[str, RefresherInfo],
        environ: Mapping[str, str],
        *,
        replaced: Collection[str] = frozenset(),
        has_token: bool = True,
    ) -> list[Account]:
        """Return the accounts that the documents make, in their order; blocks.

        They are judged beside each other and beside the accounts there are now, but for those whose
        keys are in `replaced`. Each document comes with its JSON path. `has_token` is False if the
        admin server that runs was started without a token: any user of this machine can ask then.

        Raises:
            ConfigError: with every problem, or with those of the configuration file.
        """
        # Not above: pydantic takes a while to import.
        from xoauth2_proxy.config.account_loader import is_disabled
        from xoauth2_proxy.config.problems import Problem, beneath, raise_if_any

        _, loader = self._load(refreshers, environ, without=replaced)
        there = len(loader.accounts)
        problems: list[Problem] = []
        for path, document in documents:
            if is_disabled(document):
                problems += beneath(path, [("enabled", "must be true, or left out")])
            problems += loader.load(document, path, "the request", has_token=has_token)
        raise_if_any(problems)
        return loader.accounts[there:]

    def _load(
        self,
        refreshers: Mapping[str, RefresherInfo],
        environ: Mapping[str, str],
        without: Collection[str] = frozenset(),
    ) -> tuple[Config, AccountLoader]:
        from xoauth2_proxy.config.environment import Environment
        from xoauth2_proxy.config.load import load

        directory = self.path.absolute().parent if self.path else Path.cwd()
        environment = Environment(directory=directory, state_dir=self.state_dir, environ=environ)
        return load(self.path, self.overrides, environment, refreshers, without)
