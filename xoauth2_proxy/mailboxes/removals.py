"""Takes added mailboxes away, with their grants: all that are named, or those that have died.

I1: the grant of a mailbox that is in force, for the configuration file has it too, is left alone.
I2: one that cannot be taken away keeps none of the others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import GrantRevoked, TokenError, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import AT_ONCE

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.ports import KeptAccounts, Running
    from xoauth2_proxy.mailboxes.refresh_throttle import Forced
    from xoauth2_proxy.oauth.stores import TokenStore


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of the mailboxes whose grants were tried."""

    removed: list[str]
    undecided: list[tuple[str, TokenError]]  # kept: nobody could say whether the grant is dead


class Removing:
    """Removes mailboxes from a relay that runs."""

    def __init__(
        self,
        running: Running,
        kept: KeptAccounts,
        store: TokenStore,
        forced: Forced,
        lock: asyncio.Lock,
    ) -> None:
        self._running = running
        self._kept = kept
        self._store = store
        self._forced = forced
        self._lock = lock  # held while the set of accounts is changed, never for a provider
        self._leaving: set[str] = set()  # removed; their grants are not forgotten yet

    async def remove(self, keys: Collection[str], *, is_pruning: bool = False) -> list[str]:
        """Remove added mailboxes; if `is_pruning`, those whose grant is dead. Return which.

        Raises: as `Mailboxes.remove`, once everything else is done.
        """
        removed: list[str] = []
        trouble: OSError | TokenStoreUnavailable | None = None
        async with self._lock:
            in_force = set(self._running.added)
            for key in keys:
                try:
                    if await self._take_out(key, is_pruning=is_pruning):
                        removed.append(key)
                except (OSError, TokenStoreUnavailable) as error:
                    trouble = trouble or error
            if removed:
                # Of a mailbox that was left out the grant may be the file's, of a disabled account.
                self._leaving |= in_force & {*removed}
                await self._running.reload()
                await self.forget_gone()
        if trouble is not None:
            raise trouble
        return removed

    async def prune(self, accounts: Sequence[Account]) -> Pruned:
        """Remove those of the added mailboxes whose grant is dead, asking now.

        Raises: as `Mailboxes.remove_invalid`.
        """
        self._forced.note(account.key for account in accounts if not account.oauth.is_empty)
        places = asyncio.Semaphore(AT_ONCE)

        async def failure_of(account: Account) -> TokenError | None:
            async with places:
                return await self._failure_of(account)

        failures = await asyncio.gather(*map(failure_of, accounts))
        failed = [
            (account, failure)
            for account, failure in zip(accounts, failures, strict=True)
            if failure is not None
        ]
        dead = [account.key for account, failure in failed if _is_final(failure)]
        removed = await self.remove(dead, is_pruning=True)
        undecided = [
            (account.email, failure) for account, failure in failed if account.key not in removed
        ]
        return Pruned(removed, undecided)

    async def forget_gone(self) -> None:
        """Forget the grants of removed mailboxes that are not in force any more.

        Raises `TokenStoreUnavailable` once all were tried; what is left is tried next time.
        """
        trouble: TokenStoreUnavailable | None = None
        for key in sorted(self._leaving):
            try:
                if key not in self._running.accounts:
                    async with self._store.lock(key):
                        await self._store.delete(key)
                    self._forced.forget(key)
                    self._running.forget(key)
                self._leaving.discard(key)
            except TokenStoreUnavailable as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    async def _take_out(self, key: str, *, is_pruning: bool) -> bool:
        if not is_pruning:
            await asyncio.to_thread(self._kept.remove, key)
            return True
        async with self._store.lock(key):
            if not await self._has_died(key):
                return False
            await asyncio.to_thread(self._kept.remove, key)
            return True

    async def _failure_of(self, account: Account) -> TokenError | None:
        """Return why the account has no token, asking now; None if it has, or lives on no grant."""
        if account.oauth.is_empty:
            return None
        try:
            await self._running.renew(account)
        except TokenError as error:
            return error
        return None

    async def _has_died(self, key: str) -> bool:
        """Whether the grant is dead still: somebody may have signed the mailbox in since."""
        grant = await self._store.load(key)
        return grant is not None and grant.failure is not None and grant.failure.kind == "revoked"


def _is_final(failure: TokenError) -> bool:
    # `GrantRevoked` alone is not enough: a second factor that is asked for comes as one too, and a
    # mailbox that nobody has signed in yet is none that died.
    return isinstance(failure, GrantRevoked) and failure.oauth_error == "invalid_grant"
