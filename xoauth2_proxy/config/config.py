"""The loaded configuration: checked, with every secret and path resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.config.listener_section import ListenerSection
    from xoauth2_proxy.config.section import Section
    from xoauth2_proxy.config.sections import (
        AdminSection,
        AlertsSection,
        RelaySection,
        StoreSection,
    )
    from xoauth2_proxy.mailboxes.interface import ProviderInfo

# Read once, when the proxy starts, as the listeners are: its sockets, its limits and its store.
SECTIONS = ("admin", "relay", "store", "alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the proxy is started with."""

    accounts: tuple[Account, ...]  # the enabled ones, of the file and those added since
    disabled: tuple[DisabledAccount, ...]
    providers: tuple[ProviderInfo, ...]  # the built-in ones and the file's
    listeners: tuple[ListenerSection, ...]  # at least one
    listener_paths: tuple[str, ...]  # where each of them is written
    admin: AdminSection
    relay: RelaySection
    store: StoreSection
    alerts: AlertsSection
    runtime_accounts: frozenset[str]  # keys of the accounts that were added while running
    runtime_credentials: frozenset[str]  # keys of the credentials that were made while running
    sandbox_accounts: frozenset[str]  # keys of mock accounts that are left to the sandbox
    warnings: tuple[str, ...]  # for the operator, at the start

    @property
    def disabled_accounts(self) -> int:
        """The number of disabled accounts."""
        return len(self.disabled)


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the JSON paths whose change from `old` to `new` takes effect only after a restart."""
    if len(old.listeners) != len(new.listeners):
        changed = ["listeners"]
    else:
        pairs = zip(new.listener_paths, old.listeners, new.listeners, strict=True)
        changed = [path for where, before, now in pairs for path in _changes(where, before, now)]
    for name in SECTIONS:
        changed += _changes(name, getattr(old, name), getattr(new, name))
    return changed


def _changes(path: str, old: Section, new: Section) -> list[str]:
    return [f"{path}.{key}" for key, value in old if value != getattr(new, key)]
