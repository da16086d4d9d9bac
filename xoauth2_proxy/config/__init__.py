"""The configuration: what the file may say, and what the proxy is started with."""

from xoauth2_proxy.config.load import load_config
from xoauth2_proxy.config.posted_account_rules import check_account, check_accounts
from xoauth2_proxy.config.runtime_accounts import AddedAccounts, added_accounts
from xoauth2_proxy.config.schema import json_schema
from xoauth2_proxy.config.settings import (
    AdminConfig,
    AlertsConfig,
    Config,
    ListenerConfig,
    Overrides,
    ProviderConfig,
    RelayConfig,
    StoreConfig,
    StoreKind,
)
from xoauth2_proxy.config.source import ConfigSource, needs_restart

__all__ = [
    "AddedAccounts",
    "AdminConfig",
    "AlertsConfig",
    "Config",
    "ConfigSource",
    "ListenerConfig",
    "Overrides",
    "ProviderConfig",
    "RelayConfig",
    "StoreConfig",
    "StoreKind",
    "added_accounts",
    "check_account",
    "check_accounts",
    "json_schema",
    "load_config",
    "needs_restart",
]
