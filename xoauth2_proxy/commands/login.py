"""`xoauth2-proxy login`: signs a mailbox in, and adds it if it is new.

Nothing of a new mailbox is saved unless its owner has signed in.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import argon2

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.sign_in_methods import (
    SignInMethod,
    best_method,
    by_browser,
    by_copying,
    by_device,
)
from xoauth2_proxy.commands.state_owner import other_user
from xoauth2_proxy.commands.suggestions import likely
from xoauth2_proxy.errors import ConfigError, ProxyError, TokenEndpointUnavailable
from xoauth2_proxy.mailboxes.interface import sign_in_obstacle
from xoauth2_proxy.mailboxes.runtime_accounts import open_runtime_accounts
from xoauth2_proxy.oauth import sign_in
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refreshers import registry
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.service.components import open_configured_store
from xoauth2_proxy.upstream.connector import Connector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.commands.console import Terminal
    from xoauth2_proxy.config import Config, ConfigSource
    from xoauth2_proxy.config.sections import StoreSection
    from xoauth2_proxy.oauth.attempt import SignInResult
    from xoauth2_proxy.oauth.authorization import SignInServer
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.strict_json import Json

DONE, REFUSED, WRONG_USAGE = 0, 1, 2  # exit codes

_THREADS = 2  # one request at a time, and an abandoned one
_PASSWORD_BYTES = 18  # 24 characters: far beyond guessing, and still typed without error
# What the command line calls the keys of a new account.
_OPTIONS = {"email": "MAILBOX", "provider": "--provider"}
_METHODS = {
    SignInMethod.WEB: by_browser,
    SignInMethod.DEVICE: by_device,
    SignInMethod.PASTE: by_copying,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginOptions:
    """What the command line says."""

    mailbox: str
    provider: str = ""  # of a mailbox that is not configured; "": it is
    method: SignInMethod | None = None  # None: whichever suits
    port: int = 0  # of the redirect's address, for clients that have it registered; 0: any


class _Usage(Exception):
    """The mailbox cannot be signed in this way; the text says why, and what to do."""


async def run(options: LoginOptions, source: ConfigSource, terminal: Terminal) -> int:
    """Sign the mailbox in and return the exit code.

    Raises `ConfigError`: the configuration cannot be used.
    """
    refreshers = registry.RefresherRegistry(source.state_dir)
    config = await asyncio.to_thread(source.load, refreshers, terminal.environ)
    new_password = secrets.token_urlsafe(_PASSWORD_BYTES)
    try:
        if whose := await asyncio.to_thread(other_user, source.state_dir, config.store):
            raise _Usage(whose)
        account, new = _configured(options, config), None
        if account is None:
            account, new = await _new(options, new_password, source, refreshers, terminal)
        if obstacle := sign_in_obstacle(account.refresher_info, account.oauth):
            raise _Usage(f"{account.email} cannot be signed in: {obstacle}")
        if config.store.kind is StoreKind.MEMORY:
            raise _Usage(
                "the store is `memory`, which this command does not share with the proxy: sign in "
                'on the admin pages, or write "store": {"kind": "file"}'
            )
        with ThreadPoolExecutor(_THREADS, "oauth") as threads:
            async with _opened_store(config.store) as store:
                await store.load(account.key)  # else a person would sign in for nothing
                refresher = refreshers.refreshers([account.refresher])[account.refresher]
                server = await sign_in.open_server(account, refresher, threads)
                signed_in = await _sign_in(options, server, store, terminal)
        if new is not None:
            accounts = open_runtime_accounts(source.state_dir, config.store.cipher())
            await asyncio.to_thread(accounts.add, new)
    except _Usage as error:
        terminal.complain(str(error))
        return WRONG_USAGE
    except ConfigError:
        raise
    except ProxyError as error:
        hint = _hint(error, options.mailbox, config)
        terminal.complain(f"{options.mailbox} was not signed in: {error}{hint}")
        return REFUSED
    except OSError as error:
        terminal.complain(f"{options.mailbox} cannot be kept: {error.strerror}")
        return REFUSED
    _report(account, signed_in, config.store, new_password if new else "", terminal)
    return DONE


def _hint(error: ProxyError, mailbox: str, config: Config) -> str:
    """Return what to do about an error, where the error itself cannot say it."""
    is_sandboxed = login_key(mailbox) in config.sandbox_accounts
    if is_sandboxed and isinstance(error, TokenEndpointUnavailable):
        return "; its provider is the sandbox, which runs with the proxy: start it with --sandbox"
    return ""


def _configured(options: LoginOptions, config: Config) -> Account | None:
    """Return the account; None if it is to be added."""
    key = login_key(options.mailbox)
    for account in config.accounts:
        if account.key == key:
            if options.provider not in ("", account.provider):
                raise _Usage(f"{account.email} is configured as one of {account.provider}")
            return account
    if options.provider:
        return None
    guess = likely(options.mailbox, [account.email for account in config.accounts])
    guess = f" {guess[0].upper()}{guess[1:]}" if guess else ""
    raise _Usage(
        f"{options.mailbox} is not configured.{guess} To add it: xoauth2-proxy login "
        f"{shlex.quote(options.mailbox)} --provider NAME, for example gmail"
    )


async def _new(
    options: LoginOptions,
    password: str,
    source: ConfigSource,
    refreshers: Mapping[str, RefresherInfo],
    terminal: Terminal,
) -> tuple[Account, dict[str, Json]]:
    document: dict[str, Json] = {
        "email": options.mailbox,
        "provider": options.provider,
        "password": await asyncio.to_thread(argon2.PasswordHasher().hash, password),
    }
    try:
        account = await asyncio.to_thread(
            source.check_account, document, refreshers, terminal.environ
        )
    except ConfigError as error:
        words = [(_OPTIONS.get(path, path), problem) for path, problem in error.problems]
        raise ConfigError(words) from None
    return account, document


@asynccontextmanager
async def _opened_store(config: StoreSection) -> AsyncIterator[TokenStore]:
    try:
        store = await asyncio.to_thread(open_configured_store, config)
    except ValueError as error:
        raise _Usage(f"the store cannot be opened: {error}") from None
    try:
        yield store
    finally:
        await store.close()


async def _sign_in(
    options: LoginOptions, server: SignInServer, store: TokenStore, terminal: Terminal
) -> SignInResult:
    account = server.account
    if account.refresher != "gmail":  # whose obstacle is known without a request
        await server.prepare()
    if options.method is SignInMethod.DEVICE and server.device_obstacle:
        raise _Usage(
            f"{server.device_obstacle}; use --paste instead, which needs no browser on this "
            "machine either"
        )
    if options.method not in (None, SignInMethod.DEVICE) and server.browser_obstacle:
        raise _Usage(f"{server.browser_obstacle}; use --device instead")
    method, reason = (options.method, "") if options.method else best_method(server, terminal)
    terminal.tell(f"Signing in {account.email} at {server.name}.")
    if reason:
        terminal.tell(reason)

    async def prove(access_token: str) -> None:
        connection = await Connector(None).open_with(account, access_token)
        connection.close()

    async def conclude(signed_in: SignInResult) -> SignInResult:
        now = EpochSeconds(time.time())
        await sign_in.save_sign_in(store, account, signed_in, now, prove)
        return signed_in

    return await _METHODS[method](server, terminal, conclude, options.port)


def _report(
    account: Account,
    signed_in: SignInResult,
    store: StoreSection,
    new_password: str,
    terminal: Terminal,
) -> None:
    who = (
        f", as {signed_in.identity}" if signed_in.identity else "; its mail server takes the token"
    )
    terminal.say(f"Signed in: {account.email}{who}")
    terminal.say(f"Kept in:   {account.refresher_info.kept_in or _place(store)}")
    terminal.say(f"Good:      {_life(account, signed_in)}")
    if new_password:
        terminal.say(f"Password:  {new_password}  (for mail clients; it is not shown again)")
        terminal.tell(
            "A proxy that runs takes the new mailbox up when it reads its configuration again: "
            'with SIGHUP, or "Read again" on its admin page.'
        )
    terminal.say("Next:      xoauth2-proxy status")


def _place(store: StoreSection) -> str:
    if store.kind is StoreKind.FILE:
        return str(store.directory)
    parts = urlsplit(store.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without a password


def _life(account: Account, signed_in: SignInResult) -> str:
    client, seconds = account.oauth, signed_in.issued.refresh_token_lifetime_seconds
    if not seconds and client.refresh_token_days:
        seconds = client.refresh_token_days * 86_400.0
    if seconds:
        ends = datetime.fromtimestamp(time.time() + seconds).astimezone()
        return f"until {ends:%Y-%m-%d %H:%M %Z}; sign in again before then"
    if client.idle_days:
        return f"as long as it is used every {client.idle_days} days, which the running proxy does"
    return "until it is revoked; the provider names no other end"
