"""Removes added mailboxes and their grants: those that are named, or those with revoked grants.

I1: the grant of a mailbox that stays in force, because the configuration file defines it too, is
left alone.
I2: a mailbox that cannot be removed does not keep others from being removed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import GrantRevoked, TokenError, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import MAX_CONCURRENT_REQUESTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.interface import RelayControl
    from xoauth2_proxy.mailboxes.refresh_throttle import RefreshThrottle


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """What became of the mailboxes whose grants were checked."""

    removed: list[str]
    undecided: list[tuple[str, TokenError]]  # not removed: the failure proves no revocation


class Removals:
    """Removes mailboxes from the running relay."""

    def __init__(self, relay: RelayControl, throttle: RefreshThrottle, lock: asyncio.Lock) -> None:
        self._relay = relay
        self._throttle = throttle
        self._lock = lock  # held while the set of accounts changes, never during a token request
        self._removed: set[str] = set()  # keys of mailboxes whose grants are not deleted yet

    async def remove(self, keys: Collection[str], *, only_revoked: bool = False) -> list[str]:
        """Remove added mailboxes, with `only_revoked` those with revoked grants. Return which.

        Raises: as `Mailboxes.remove`, once everything else is done.
        """
        removed: list[str] = []
        errors: list[OSError | TokenStoreUnavailable] = []
        async with self._lock:
            in_force = set(self._relay.added)
            for key in keys:
                try:
                    if await self._remove_file(key, only_revoked=only_revoked):
                        removed.append(key)
                except (OSError, TokenStoreUnavailable) as error:
                    errors.append(error)
            if removed:
                # A mailbox not in force may be a disabled account of the file: its grant stays.
                self._removed |= in_force & {*removed}
                await self._relay.reload()
                await self.delete_grants()
        if errors:
            raise errors[0]
        return removed

    async def remove_revoked(self, accounts: Sequence[Account]) -> RemovalResult:
        """Ask for a token of each added mailbox; remove those whose grant was revoked.

        Raises: as `Mailboxes.remove_invalid`.
        """
        accounts = [account for account in accounts if not account.oauth.is_empty]
        self._throttle.note(account.key for account in accounts)
        limit = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)

        async def failure_of(account: Account) -> TokenError | None:
            async with limit:
                try:
                    await self._relay.refresh(account)
                except TokenError as error:
                    return error
            return None

        failures = await asyncio.gather(*map(failure_of, accounts))
        failed = [(one, error) for one, error in zip(accounts, failures, strict=True) if error]
        # `GrantRevoked` alone is not enough: it is also raised when the provider wants a second
        # factor, and for a mailbox that was never signed in.
        revoked = [
            account.key
            for account, error in failed
            if isinstance(error, GrantRevoked) and error.oauth_error == "invalid_grant"
        ]
        removed = await self.remove(revoked, only_revoked=True)
        undecided = [(one.email, error) for one, error in failed if one.key not in removed]
        return RemovalResult(removed, undecided)

    async def delete_grants(self) -> None:
        """Delete the grants of removed mailboxes that are no longer in force.

        Raises `TokenStoreUnavailable` once all were tried; the rest is tried next time.
        """
        errors: list[TokenStoreUnavailable] = []
        for key in sorted(self._removed):
            try:
                if key not in self._relay.accounts:
                    async with self._relay.store.lock(key):
                        await self._relay.store.delete(key)
                    self._throttle.forget(key)
                    self._relay.forget(key)
                self._removed.discard(key)
            except TokenStoreUnavailable as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def _remove_file(self, key: str, *, only_revoked: bool) -> bool:
        files = self._relay.account_files
        if not only_revoked:
            await asyncio.to_thread(files.remove, key)
            return True
        async with self._relay.store.lock(key):
            # The mailbox may have been signed in again since the token request.
            grant = await self._relay.store.load(key)
            if grant is None or grant.failure is None or grant.failure.kind != "revoked":
                return False
            await asyncio.to_thread(files.remove, key)
            return True
