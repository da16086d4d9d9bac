"""`xoauth2-proxy remove` and `revoke`: by the proxy that runs, or in its store when none does.

A running proxy does it itself, because it also holds tokens in its memory.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.admin_api import AdminApi, NoAnswer, Refused
from xoauth2_proxy.commands.configured_account import (
    DONE,
    FAILED,
    WRONG_USAGE,
    Failed,
    configured_account,
)
from xoauth2_proxy.errors import ProxyError, TokenStoreUnavailable
from xoauth2_proxy.oauth import sign_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeOptions:
    """Which mailbox, and which proxy is asked."""

    mailbox: str
    url: str = field(repr=False)  # it may contain a password
    token: str = field(repr=False)
    is_url_given: bool  # then nothing is done in files


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyFiles:
    """What a proxy has on this machine."""

    config: Config
    open_store: Callable[[], TokenStore]
    open_added: Callable[[], RuntimeAccounts]
    open_made: Callable[[], RuntimeCredentials]
    refresher: Callable[[str], Refresher | None]  # by name


async def remove(options: ChangeOptions, files: ProxyFiles | None, console: Console) -> int:
    """Remove a mailbox that was added; return the exit code. `files` is None: only ask."""
    done = f"Removed: {options.mailbox}. Its sign-in is forgotten."
    return await _change(AdminApi.remove, _remove_in_files, done, options, files, console)


async def revoke(options: ChangeOptions, files: ProxyFiles | None, console: Console) -> int:
    """Give a mailbox's grant back to its provider; return the exit code."""
    done = f"Revoked: {options.mailbox}. It sends no mail until it is signed in again."
    return await _change(AdminApi.revoke, _revoke_in_store, done, options, files, console)


async def _change(
    by_proxy: Callable[[AdminApi, str], Awaitable[list[str]]],
    in_files: Callable[[str, ProxyFiles], Awaitable[list[str]]],
    done: str,
    options: ChangeOptions,
    files: ProxyFiles | None,
    console: Console,
) -> int:
    api = AdminApi(options.url, options.token)
    try:
        notes = [f"But: {one}" for one in await by_proxy(api, options.mailbox)]
    except Refused as error:
        console.complain(str(error))
        return FAILED
    except NoAnswer as error:
        if files is None or options.is_url_given or not error.is_absent:
            console.complain(f"the proxy could not be asked at {api.shown}: {error}; look at --url")
            return FAILED
        try:
            notes = await in_files(options.mailbox, files)
        except Failed as failure:
            console.complain(str(failure))
            return failure.code
        notes.append(
            f"no proxy answered at {api.shown}, so this was done in its files; one that runs with "
            "another admin address goes on until it is restarted"
        )
    console.say(done)
    for note in notes:
        console.tell(note)
    return DONE


async def _remove_in_files(mailbox: str, files: ProxyFiles) -> list[str]:
    key, added = login_key(mailbox), files.open_added()
    if key not in await asyncio.to_thread(added.keys):
        account = configured_account(mailbox, files.config)
        raise Failed(
            f"{account.email} is defined in the configuration file: remove it there, or write "
            '"enabled": false',
            WRONG_USAGE,
        )
    store = files.open_store()
    try:
        await asyncio.to_thread(added.remove, key)
        await asyncio.to_thread(files.open_made().remove_all_of, key)
        async with store.lock(key):
            await store.delete(key)
    except OSError as error:
        raise Failed(f"{mailbox} cannot be removed: {error.strerror or error}") from None
    except TokenStoreUnavailable as error:
        raise Failed(
            f"{mailbox} is removed, but its sign-in is still in the store: {error}"
        ) from None
    finally:
        await store.close()
    return []


async def _revoke_in_store(mailbox: str, files: ProxyFiles) -> list[str]:
    account = configured_account(mailbox, files.config)
    store = files.open_store()
    try:
        is_kept_here = not account.refresher_info.kept_in
        has_none = await store.load(account.key) is None and not account.oauth.refresh_token
        if is_kept_here and has_none:
            raise Failed(f"{account.email} has no grant to revoke")
        with ThreadPoolExecutor(1, "oauth") as threads:
            refresher = files.refresher(account.refresher)
            is_revoked = await sign_in.revoke(store, account, threads, refresher)
    except ProxyError as error:
        raise Failed(f"{account.email} was not revoked: {error}") from None
    finally:
        await store.close()
    if is_revoked:
        return []
    return [
        "The provider offers no way to revoke, or no one had signed in: the sign-in is forgotten "
        "here; end the application's access on the provider's own pages as well."
    ]
