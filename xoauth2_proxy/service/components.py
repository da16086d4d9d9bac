"""Builds the refreshers and the token store, and reads the configuration again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xoauth2_proxy.files import state_directory_problem
from xoauth2_proxy.mailboxes.runtime_accounts import open_runtime_accounts
from xoauth2_proxy.mailboxes.runtime_credentials import open_runtime_credentials
from xoauth2_proxy.oauth.refreshers import registry
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.oauth.stores.factory import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.config import Config, ConfigSource
    from xoauth2_proxy.config.sections import StoreSection
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.strict_json import Json


class StandardComponents:
    """The built-in and plug-in refreshers, and the configured store."""

    def __init__(self, source: ConfigSource, config: Config) -> None:
        """Raises `ValueError` if the store cannot be opened."""
        self._source = source
        self._has_token = bool(config.admin.token)  # the running server's, which reads it once
        self._registry = registry.RefresherRegistry(source.state_dir)
        self.all_refreshers: Callable[[], list[RefresherInfo]] = self._registry.all_installed
        self.store = open_configured_store(config.store)
        # The accounts that were added while the relay ran.
        cipher = config.store.cipher()
        self.added = open_runtime_accounts(source.state_dir, cipher)
        self.made = open_runtime_credentials(source.state_dir, cipher)  # credentials, likewise

    def refreshers(self, config: Config) -> Mapping[str, Refresher]:
        """Return the refreshers that the configuration's accounts use. Raises `OSError`."""
        return self._refreshers({account.refresher for account in config.accounts})

    def refresher(self, name: str) -> Refresher | None:
        """Return one refresher by name, even if no account uses it. Raises `OSError`."""
        return self._refreshers([name]).get(name)

    def load(self) -> Config:
        """Read the configuration again, blocking. Raises `ConfigError`."""
        return self._source.load(self._registry, os.environ)

    def check(
        self, documents: Sequence[tuple[str, Json]], replaced: Collection[str]
    ) -> list[Account]:
        """Return the accounts that the documents make, blocking. Raises `ConfigError`."""
        return self._source.check_accounts(
            documents,
            self._registry,
            os.environ,
            replaced=replaced,
            has_token=self._has_token,
        )

    def close(self) -> None:
        """Release threads. The store's user closes the store."""
        self._registry.close()

    def _refreshers(self, wanted: Iterable[str]) -> Mapping[str, Refresher]:
        try:
            return self._registry.refreshers(wanted)
        except ValueError as error:  # a malformed key file: reported like an unreadable file
            unusable = OSError(str(error))
            unusable.strerror = str(error)
            raise unusable from None


def unusable_store(config: Config) -> str | None:
    """Return why the file store cannot be used and what to do, or None if it can."""
    if config.store.kind is not StoreKind.FILE:
        return None
    return state_directory_problem(config.store.directory)


def open_configured_store(config: StoreSection) -> TokenStore:
    """Return the configured store. Raises `ValueError` if it cannot be opened."""
    return open_store(
        config.kind,
        config.directory,
        url=config.url,
        key=config.key,
        is_key_in_keyring=config.keyring,
    )
