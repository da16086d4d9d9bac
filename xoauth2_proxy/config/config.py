"""The loaded configuration: checked, with every secret and path resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.config.sections import (
        AdminSection,
        AlertsSection,
        ListenerSection,
        RelaySection,
        StoreSection,
    )
    from xoauth2_proxy.mailboxes.interface import ProviderInfo

# Read once, when the proxy starts: its sockets, its limits and its store.
SECTIONS = ("listener", "admin", "relay", "store", "alerts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the proxy is started with."""

    accounts: tuple[Account, ...]  # the enabled ones, of the file and those added since
    disabled: tuple[DisabledAccount, ...]
    providers: tuple[ProviderInfo, ...]  # the built-in ones and the file's
    listener: ListenerSection
    admin: AdminSection
    relay: RelaySection
    store: StoreSection
    alerts: AlertsSection
    runtime_accounts: frozenset[str]  # keys of the accounts that were added while running
    sandbox_accounts: frozenset[str]  # keys of mock accounts that are left to the sandbox
    warnings: tuple[str, ...]  # for the operator, at the start

    @property
    def disabled_accounts(self) -> int:
        """The number of disabled accounts."""
        return len(self.disabled)


def needs_restart(old: Config, new: Config) -> list[str]:
    """Return the JSON paths whose change from `old` to `new` takes effect only after a restart."""
    return [
        f"{section}.{key}"
        for section in SECTIONS
        for key, value in getattr(old, section)
        if value != getattr(getattr(new, section), key)
    ]
