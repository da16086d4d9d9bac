"""Opens the mailboxes and the store of a proxy's configuration for a program."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xoauth2_proxy.commands.state_owner import other_user
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.service.components import open_configured_store
from xoauth2_proxy.token_manager.service import TokenService

if TYPE_CHECKING:
    from pathlib import Path


def open_service(path: Path, state_dir: Path) -> TokenService:
    """Return the tokens of the configuration's mailboxes. Blocks.

    Raises:
        ConfigError: the configuration is invalid, or its store cannot be shared or opened.
    """
    refreshers = RefresherRegistry(state_dir)
    try:
        config = ConfigSource(path, Overrides(), state_dir).load(refreshers, os.environ)
    finally:
        refreshers.close()
    store = config.store
    if store.kind is StoreKind.MEMORY:
        # Two processes would refresh the same grant, each with a refresh token of its own.
        raise ConfigError([("store.kind", "is memory, which only the proxy can read; use file")])
    if whose := other_user(state_dir, store):
        raise ConfigError([("store.directory", whose)])
    try:
        return TokenService(
            lambda: open_configured_store(store),
            state_dir,
            config.accounts,
            reserved={account.key for account in config.disabled},
        )
    except ValueError as error:
        raise ConfigError([("store", str(error))]) from None
