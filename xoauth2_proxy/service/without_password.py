"""Tells the operator which clients may send without a password."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeAlias

from xoauth2_proxy import log
from xoauth2_proxy.network import is_local_network

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.network import Network

_MAX_LINES = 100

_log = log.logger("credentials")

_Open: TypeAlias = "tuple[str, str, tuple[Network, ...]]"  # account, credential, networks


def log_without_password(accounts: Iterable[Account], former: Iterable[Account] = ()) -> None:
    """Log a line for each credential that needs no password; those of public networks warn.

    Nothing is logged if they are the same as among `former` accounts.
    """
    found = _open_to_networks(accounts)
    if found == _open_to_networks(former):
        return
    for account, credential, networks in found[:_MAX_LINES]:
        is_local = all(map(is_local_network, networks))
        _log.event(
            logging.INFO if is_local else logging.WARNING,
            "clients of these addresses may send without a password",
            account=account,
            credential=credential,
            networks=", ".join(map(str, networks)),
        )
    if len(found) > _MAX_LINES:
        _log.event(
            logging.WARNING,
            "more clients may send without a password than are listed",
            credentials=len(found) - _MAX_LINES,
        )


def _open_to_networks(accounts: Iterable[Account]) -> list[_Open]:
    return [
        (account.key, one.name, one.networks)
        for account in accounts
        for one in account.credentials
        if one.password is None and one.enabled
    ]
