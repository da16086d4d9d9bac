"""`xoauth2-proxy token`: prints a mailbox's access token, for programs that log in themselves.

The token comes from the store that the proxy uses, by the proxy's rules: a stored token is used
until it is due, and one process at a time asks the provider. Exit codes: 0 printed; 1 there is no
token, and why; 2 wrong usage.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import login_key
from xoauth2_proxy.commands.doctor.tokens import trouble_of
from xoauth2_proxy.commands.suggestions import unknown
from xoauth2_proxy.errors import TokenError
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import TokenRefreshes
from xoauth2_proxy.oauth.token_info import brings_own_token, info_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

PRINTED, NO_TOKEN, WRONG_USAGE = 0, 1, 2  # exit codes

_VERSION = 1  # of the JSON document


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """Which mailbox's token, and what of it is printed."""

    mailbox: str
    is_forced: bool = False  # the provider is asked, whatever is stored
    is_info: bool = False  # what is known of the token, without the token
    is_json: bool = False  # of the information
    may_show: bool = False  # print the token to a terminal


async def run(
    accounts: Sequence[Account],
    store: TokenStore,
    refreshers: Mapping[str, Refresher],
    options: TokenOptions,
    console: Console,
) -> int:
    """Print the token, or what is known of it; return the exit code."""
    known = {account.key: account for account in accounts}
    account = known.get(login_key(options.mailbox))
    if account is None:
        names = (one.email for one in accounts)
        console.complain(unknown("account", options.mailbox, names))
        return WRONG_USAGE
    if not options.is_info and console.out.is_terminal and not options.may_show:
        console.complain(
            "an access token opens the mailbox, and this is a terminal: send it to a program, or "
            "add --show; --info describes the token without showing it"
        )
        return WRONG_USAGE
    if brings_own_token(account):
        console.complain(f"{account.email} has no token here: its clients bring their own")
        return NO_TOKEN
    return await _print(account, store, refreshers, options, console)


async def _print(
    account: Account,
    store: TokenStore,
    refreshers: Mapping[str, Refresher],
    options: TokenOptions,
    console: Console,
) -> int:
    refreshes = TokenRefreshes(refreshers, store, Metrics(), time)
    try:
        if options.is_info and not options.is_forced:
            return _tell(account, await store.load(account.key), options, console)
        token = await refreshes.refresh(account, is_forced=options.is_forced)
        if options.is_info:
            return _tell(account, await store.load(account.key), options, console)
    except TokenError as error:
        trouble = trouble_of(account, error)
        console.complain(f"no token for {account.email}: {trouble.text}; {trouble.remedy}")
        return NO_TOKEN
    finally:
        await refreshes.close()
    console.out.file.write(token.value + "\n")
    return PRINTED


def _tell(
    account: Account, stored: StoredGrant | None, options: TokenOptions, console: Console
) -> int:
    info = info_of(account, stored, EpochSeconds(time.time()))
    facts = info.to_json()
    if options.is_json:
        console.show_json({"version": _VERSION, **facts})
    else:
        for name, value in facts.items():
            console.say(f"{name.replace('_', ' '):18}{'–' if value in (None, '') else value}")
    return PRINTED if info.has_token else NO_TOKEN
