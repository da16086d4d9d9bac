"""`xoauth2-proxy token`: prints a mailbox's access token, for programs that log in themselves.

The token comes from the store that the proxy uses, by the proxy's rules: a stored token is used
until it is due, and one process at a time asks the provider. Exit codes: 0 done; 1 there is no
token, and why; 2 wrong usage.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.doctor.tokens import trouble_of
from xoauth2_proxy.commands.suggestions import unknown
from xoauth2_proxy.errors import TokenError
from xoauth2_proxy.mailboxes.additions import MAX_CONCURRENT_REQUESTS
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import rfc3339
from xoauth2_proxy.oauth.refresh import TokenRefreshes
from xoauth2_proxy.oauth.token_info import TokenInfo, brings_own_token, info_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

DONE, NO_TOKEN, WRONG_USAGE = 0, 1, 2  # exit codes

_VERSION = 1  # of the JSON document


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOptions:
    """Which mailboxes' tokens, what is done with them, and what of them is printed."""

    mailbox: str = ""
    is_all: bool = False  # of every mailbox that gets tokens; no token is printed then
    is_forced: bool = False  # the provider is asked, whatever is stored
    is_cleared: bool = False  # the stored token is deleted
    is_info: bool = False  # what is known of the token, without the token
    is_json: bool = False  # of the information
    may_show: bool = False  # print the token to a terminal

    @property
    def is_printed(self) -> bool:
        """Whether the token itself is printed."""
        return not (self.is_all or self.is_cleared or self.is_info)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What came of one mailbox."""

    account: Account
    token: AccessToken | None = None  # None: it was not asked for
    info: TokenInfo | None = None
    error: TokenError | None = None

    @property
    def code(self) -> int:
        is_missing = self.info is not None and self.token is None and not self.info.has_token
        return NO_TOKEN if self.error or is_missing else DONE


async def run(
    accounts: Sequence[Account],
    store: TokenStore,
    refreshers: Mapping[str, Refresher],
    options: TokenOptions,
    console: Console,
) -> int:
    """Do with the tokens what is asked; return the exit code."""
    known = {account.key: account for account in accounts}
    account = known.get(login_key(options.mailbox))
    if account is None and not options.is_all:
        names = (one.email for one in accounts)
        console.complain(unknown("account", options.mailbox, names))
        return WRONG_USAGE
    if options.is_printed and console.out.is_terminal and not options.may_show:
        console.complain(
            "an access token opens the mailbox, and this is a terminal: send it to a program, or "
            "add --show; --info describes the token without showing it"
        )
        return WRONG_USAGE
    chosen = [account] if account is not None else accounts
    with_tokens = [one for one in chosen if not brings_own_token(one)]
    if not with_tokens:
        whose = "the clients of all mailboxes" if options.is_all else "its clients"
        name = f"{options.mailbox} has no token here" if not options.is_all else "there is no token"
        console.complain(f"{name}: {whose} bring their own")
        return NO_TOKEN
    refreshes = TokenRefreshes(refreshers, store, Metrics(), time)
    try:
        outcomes = await _outcomes(with_tokens, refreshes, options)
    finally:
        await refreshes.close()
    if options.is_json:
        _show_json(outcomes, options, console)
    for number, outcome in enumerate(outcomes):
        if number and options.is_info and not options.is_json:
            console.say("")
        _tell(outcome, options, console)
    return max(outcome.code for outcome in outcomes)


async def _outcomes(
    accounts: Sequence[Account], refreshes: TokenRefreshes, options: TokenOptions
) -> list[_Outcome]:
    limit = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

    async def one(account: Account) -> _Outcome:
        async with limit:
            try:
                return await _outcome(account, refreshes, options)
            except TokenError as error:
                return _Outcome(account=account, error=error)

    return await asyncio.gather(*map(one, accounts))


async def _outcome(account: Account, refreshes: TokenRefreshes, options: TokenOptions) -> _Outcome:
    if options.is_cleared:
        await refreshes.clear(account)
        return _Outcome(account=account)
    token = None
    if options.is_forced or not options.is_info:
        token = await refreshes.refresh(account, is_forced=options.is_forced)
    info = info_of(account, await refreshes.grant(account), EpochSeconds(time.time()))
    return _Outcome(account=account, token=token, info=info)


def _tell(outcome: _Outcome, options: TokenOptions, console: Console) -> None:
    account, token = outcome.account, outcome.token
    if outcome.error is not None:
        trouble = trouble_of(account, outcome.error)
        failed = (
            f"{account.email} was not cleared"
            if options.is_cleared
            else f"no token for {account.email}"
        )
        console.complain(f"{failed}: {trouble.text}; {trouble.remedy}")
    elif options.is_cleared:
        console.say(
            f"Cleared: {account.email}. Its sign-in stays; a proxy that runs keeps its own copy of "
            "the token until that is renewed."
        )
    elif options.is_info:
        if outcome.info is not None and not options.is_json:
            for name, value in outcome.info.to_json().items():
                shown = "–" if value in (None, "") else value
                console.say(f"{name.replace('_', ' '):18}{shown}")
    elif options.is_all and token is not None:
        ends_at = rfc3339(time.time() + token.expires_at - time.monotonic())
        console.say(f"Renewed: {account.email}, until {ends_at}")
    elif token is not None:
        console.out.file.write(token.value + "\n")


def _show_json(outcomes: Sequence[_Outcome], options: TokenOptions, console: Console) -> None:
    found = [outcome.info.to_json() for outcome in outcomes if outcome.info is not None]
    if options.is_all:
        console.show_json({"version": _VERSION, "tokens": found})
    elif found:
        console.show_json({"version": _VERSION, **found[0]})
