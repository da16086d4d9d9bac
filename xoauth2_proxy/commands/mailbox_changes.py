"""`xoauth2-proxy remove` and `revoke`: by the proxy that runs, or in its store when none does.

A proxy that runs is asked, so that it stops using what it holds in its memory.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import login_key
from xoauth2_proxy.commands.admin_api import AdminApi, NoAnswer, Refused
from xoauth2_proxy.commands.suggestions import likely
from xoauth2_proxy.errors import ProxyError, TokenStoreUnavailable
from xoauth2_proxy.oauth import sign_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts
    from xoauth2_proxy.oauth.stores import TokenStore

DONE, FAILED, WRONG_USAGE = 0, 1, 2  # exit codes

_ELSEWHERE = (
    "no proxy answered at {shown}, so this was done in its files; one that runs with another admin "
    "address goes on until it is restarted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """Which mailbox, and which proxy is asked."""

    mailbox: str
    url: str = field(repr=False)  # somebody may have written a password into it
    token: str = field(repr=False)
    is_url_given: bool  # then nothing is done in files


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFiles:
    """What a proxy has on this machine."""

    config: Config
    open_store: Callable[[], TokenStore]
    open_added: Callable[[], RuntimeAccounts]


async def remove(options: ChangeOptions, files: ProxyFiles | None, console: Console) -> int:
    """Remove a mailbox that was added; return the exit code. `files` is None: only ask."""
    api = AdminApi(options.url, options.token)
    try:
        await api.remove(options.mailbox)
    except Refused as error:
        return _refused(error, console)
    except NoAnswer as error:
        if files is None or options.is_url_given or not error.is_absent:
            return _unanswered(error, api, console)
        code = await _remove_in_files(options.mailbox, files, console)
        if code == DONE:
            console.tell(_ELSEWHERE.format(shown=api.shown))
        return code
    console.say(f"Removed: {options.mailbox}. Its sign-in is forgotten.")
    return DONE


async def revoke(options: ChangeOptions, files: ProxyFiles | None, console: Console) -> int:
    """Give a mailbox's grant back to its provider; return the exit code."""
    api = AdminApi(options.url, options.token)
    try:
        left_over = await api.revoke(options.mailbox)
    except Refused as error:
        return _refused(error, console)
    except NoAnswer as error:
        if files is None or options.is_url_given or not error.is_absent:
            return _unanswered(error, api, console)
        code = await _revoke_in_store(options.mailbox, files, console)
        if code == DONE:
            console.tell(_ELSEWHERE.format(shown=api.shown))
        return code
    console.say(f"Revoked: {options.mailbox}. It sends no mail until somebody signs it in again.")
    for one in left_over:
        console.tell(f"But: {one}")
    return DONE


async def _remove_in_files(mailbox: str, files: ProxyFiles, console: Console) -> int:
    key, config = login_key(mailbox), files.config
    added = files.open_added()
    if key not in await asyncio.to_thread(added.keys):
        account = _find(mailbox, config)
        if account is None:
            return _unknown(mailbox, config, console)
        console.complain(
            f"{account.email} is defined in the configuration file: remove it there, or write "
            '"enabled": false'
        )
        return WRONG_USAGE
    store = files.open_store()
    try:
        await asyncio.to_thread(added.remove, key)
        async with store.lock(key):
            await store.delete(key)
    except OSError as error:
        console.complain(f"{mailbox} cannot be removed: {error.strerror or error}")
        return FAILED
    except TokenStoreUnavailable as error:
        console.complain(f"{mailbox} is removed, but its sign-in is still in the store: {error}")
        return FAILED
    finally:
        await store.close()
    console.say(f"Removed: {mailbox}. Its sign-in is forgotten.")
    return DONE


async def _revoke_in_store(mailbox: str, files: ProxyFiles, console: Console) -> int:
    account = _find(mailbox, files.config)
    if account is None:
        return _unknown(mailbox, files.config, console)
    store = files.open_store()
    try:
        if await store.load(account.key) is None and not account.oauth.refresh_token:
            console.complain(f"{account.email} has no grant to revoke")
            return FAILED
        with ThreadPoolExecutor(1, "oauth") as threads:
            is_revoked = await sign_in.revoke(store, account, threads)
    except ProxyError as error:
        console.complain(f"{account.email} was not revoked: {error}")
        return FAILED
    finally:
        await store.close()
    console.say(f"Revoked: {account.email}. It sends no mail until somebody signs it in again.")
    if not is_revoked:
        console.tell(
            "The provider offers no way to revoke, or nobody had signed in: the sign-in is "
            "forgotten here; end the application's access on the provider's own pages as well."
        )
    return DONE


def _find(mailbox: str, config: Config) -> Account | None:
    key = login_key(mailbox)
    return next((one for one in config.accounts if one.key == key), None)


def _unknown(mailbox: str, config: Config, console: Console) -> int:
    guess = likely(mailbox, [one.email for one in config.accounts])
    console.complain("; ".join(filter(None, (f"there is no enabled account {mailbox}", guess))))
    return WRONG_USAGE


def _refused(error: Refused, console: Console) -> int:
    console.complain(str(error))
    return FAILED


def _unanswered(error: NoAnswer, api: AdminApi, console: Console) -> int:
    console.complain(f"the proxy could not be asked at {api.shown}: {error}; look at --url")
    return FAILED
