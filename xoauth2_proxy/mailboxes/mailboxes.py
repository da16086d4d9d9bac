"""What an operator can do: look, add, remove, refresh, revoke, sign in, read the file again."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import login_key
from xoauth2_proxy.errors import SignInRefused
from xoauth2_proxy.mailboxes.additions import Adding
from xoauth2_proxy.mailboxes.ports import (
    Mailbox,
    NotPossible,
    UnknownMailbox,
    WrittenInFile,
    asks_alike,
)
from xoauth2_proxy.mailboxes.refresh_throttle import Forced
from xoauth2_proxy.mailboxes.removals import Removing
from xoauth2_proxy.oauth import sign_in
from xoauth2_proxy.oauth.expiry_monitor import standings
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.additions import Additions, Proposal
    from xoauth2_proxy.mailboxes.ports import KeptAccounts, ProviderInfo, Running
    from xoauth2_proxy.mailboxes.removals import Pruned
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.authorization import Attempt
    from xoauth2_proxy.oauth.stores import TokenStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What `Mailboxes` works with."""

    running: Running
    kept: KeptAccounts
    store: TokenStore
    metrics: Metrics
    threads: Executor  # for what blocks on a provider
    warn_days: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """A mailbox whose grant is forgotten."""

    mailbox: Mailbox
    left_over: list[str]  # what revoking did not end, and what a person can do about it


class Mailboxes:
    """The mailboxes of a relay that runs."""

    def __init__(self, means: Means, clock: Callable[[], float] = time.monotonic) -> None:
        self._means = means
        self._running = means.running
        self._store = means.store
        self._lock = asyncio.Lock()  # held while the set of accounts is changed
        self._adding = Adding(means.running, means.kept, means.store, means.metrics, self._lock)
        self._sign_ins = sign_in.SignIns(means.threads)
        self._forced = Forced(clock)
        self._removing = Removing(means.running, means.kept, means.store, self._forced, self._lock)

    async def close(self) -> None:
        """Let what must not be cut short end, for some seconds, while the store is still open."""
        await self._adding.close()

    @property
    def providers(self) -> Sequence[ProviderInfo]:
        """The providers that a mailbox can be added for."""
        return self._running.providers

    async def listing(self) -> list[Mailbox]:
        """Return all enabled mailboxes, by address."""
        accounts = sorted(self._running.accounts.values(), key=lambda account: account.key)
        return await self._looked_at(accounts)

    async def find(self, email: str) -> Mailbox:
        """Return one mailbox. Raises `UnknownMailbox`."""
        return (await self._looked_at([self._account(email)]))[0]

    async def add(self, proposals: Sequence[tuple[str, Proposal]]) -> Additions:
        """Add mailboxes; raises as `Adding.add`."""
        return await self._adding.add(proposals)

    async def remove(self, email: str) -> None:
        """Remove a mailbox that was added while the relay ran, and forget its grant.

        The grant stays if the mailbox is in the configuration file as well.

        Raises:
            UnknownMailbox: there is none.
            WrittenInFile: it can be removed there alone.
            ConfigError, OSError: it is in force until the configuration can be read again.
            TokenStoreUnavailable: it is removed, but its grant is still in the store.
        """
        key = login_key(email)
        if key not in await self._added():
            account = self._account(email)
            raise WrittenInFile(
                f"{account.email} is written in the configuration file: remove it there and reload"
            )
        await self._removing.remove([key])

    async def remove_all(self) -> list[str]:
        """Remove every mailbox that was added; return their keys. Raises as `remove`."""
        keys = sorted(await self._added())
        if keys:
            await self._removing.remove(keys)
        return keys

    async def remove_invalid(self) -> Pruned:
        """Remove the added mailboxes whose provider says, asked now, that their grant is dead.

        Anything else a provider or the network does removes nothing. Raises as `remove`.

        Raises:
            TooSoon: some were asked for within the last minute; nothing was done.
        """
        accounts = self._running.accounts
        tried = [accounts[key] for key in sorted(await self._added()) if key in accounts]
        return await self._removing.prune(tried)

    async def refresh(self, email: str) -> Mailbox:
        """Get a new access token from the provider now; return how the mailbox stands then.

        Raises:
            UnknownMailbox: there is none.
            NotPossible: its clients bring their own tokens.
            TooSoon: the provider was asked within the last minute.
            TokenError: why there is no token.
        """
        account = self._account(email)
        mailbox = await self.find(email)
        if mailbox.standing.state is State.OWN_TOKEN:
            raise NotPossible(f"clients of {account.email} bring their own tokens")
        self._forced.note([account.key])
        await self._running.renew(account)
        return await self.find(email)

    async def revoke(self, email: str) -> Revoked:
        """Give the grant back, where the provider takes it, and forget it.

        Raises:
            UnknownMailbox: there is none.
            NotPossible: it lives on no grant that anyone gave.
            TokenError: nothing was forgotten.
        """
        account = self._account(email)
        mailbox = await self.find(email)
        kept = await self._store.load(account.key)
        has_token = account.oauth.refresh_token or (kept is not None and kept.refresh_token)
        if not (mailbox.has_grant and has_token):
            raise NotPossible(f"{account.email} has no grant that could be revoked")
        is_ended = await sign_in.revoke(self._store, account, self._means.threads)
        self._forced.forget(account.key)
        self._running.forget(account.key)
        return Revoked(await self.find(email), _left_over(mailbox, is_ended=is_ended))

    async def begin_sign_in(self, email: str, provider: str, redirect_uri: str) -> Attempt:
        """Return where a person can sign the mailbox in, and what identifies their answer.

        Raises:
            UnknownMailbox: the provider has none of this name.
            NotPossible: its settings do not allow it.
            TokenError: the provider does not say where.
        """
        account = self._account(email)
        if account.provider != provider:
            raise UnknownMailbox(f"{account.email} is not one of {provider}")
        mailbox = await self.find(email)
        if mailbox.obstacle:
            raise NotPossible(f"{account.email} cannot be signed in here: {mailbox.obstacle}")
        return await self._sign_ins.begin(account, redirect_uri)

    async def finish_sign_in(self, answer: Mapping[str, str]) -> Mailbox:
        """Keep the grant that a person has given, as the answer to an attempt says.

        Raises:
            SignInRefused: they have not, or it is somebody else's, or the attempt is over, or the
                mailbox's settings are no longer those that it began with.
            UnknownMailbox: the mailbox was removed meanwhile.
            TokenError, UpstreamError: the provider or the store is in trouble.
        """
        account, signed_in = await self._sign_ins.finish(answer)
        self._check_unchanged(account)
        now = EpochSeconds(time.time())
        prove = partial(self._running.prove, account)
        turn = self._while_unchanged(account)
        await sign_in.adopt(self._store, account, signed_in, now, prove, turn)
        self._forced.forget(account.key)
        self._running.forget(account.key)
        return await self.find(account.email)

    async def reload(self) -> None:
        """Read the configuration again. Raises `ConfigError`, `OSError`: nothing has changed."""
        async with self._lock:
            await self._running.reload()
            await self._removing.forget_gone()

    @asynccontextmanager
    async def _while_unchanged(self, account: Account) -> AsyncIterator[None]:
        async with self._lock:
            self._check_unchanged(account)
            yield

    def _check_unchanged(self, account: Account) -> None:
        """Raise unless the account is in force, and its tokens go where they went."""
        now = self._account(account.email)
        if not asks_alike(now, account) or now.upstream != account.upstream:
            raise SignInRefused(
                f"the settings of {account.email} have changed since this sign-in began; begin it "
                "again"
            )

    def _account(self, email: str) -> Account:
        account = self._running.accounts.get(login_key(email))
        if account is None:
            raise UnknownMailbox(f"there is no mailbox {email}")
        return account

    async def _added(self) -> set[str]:
        """Return the keys of all that was added, though it may not be in force."""
        return {*self._running.added, *await asyncio.to_thread(self._means.kept.keys)}

    async def _looked_at(self, accounts: Sequence[Account]) -> list[Mailbox]:
        added = self._running.added
        now = EpochSeconds(time.time())
        found = await standings(accounts, self._store, now, self._means.warn_days)
        return [
            Mailbox(account, standing, account.key in added)
            for account, standing in zip(accounts, found, strict=True)
        ]


def _left_over(mailbox: Mailbox, *, is_ended: bool) -> list[str]:
    left: list[str] = []
    if not is_ended:
        left.append(
            "the provider was not told, for it has no way to be: the owner takes the relay's "
            "access away in the settings of their account there"
        )
    if mailbox.account.oauth.refresh_token:
        where = "the account was added with" if mailbox.is_added else "the configuration file has"
        left.append(
            f"{where} a refresh token of its own, which is used again unless it is taken out"
        )
    return left
