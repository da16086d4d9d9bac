"""What an operator can do: list, add, remove, refresh, revoke, sign in, reload.

I1: the grant of a removed mailbox that stays in force, because the configuration file defines it
too, is left alone.
I2: a mailbox that cannot be removed does not keep others from being removed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.errors import GrantRevoked, SignInRefused, TokenError, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import MAX_CONCURRENT_REQUESTS, Additions
from xoauth2_proxy.mailboxes.credential_changes import CredentialChanges
from xoauth2_proxy.mailboxes.interface import (
    DefinedInFile,
    Mailbox,
    NotEnabled,
    NotSupported,
    RefreshTooSoon,
    UnknownMailbox,
)
from xoauth2_proxy.oauth import sign_in
from xoauth2_proxy.oauth.expiry_monitor import mailbox_statuses
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.mailboxes.additions import AdditionResult, Proposal
    from xoauth2_proxy.mailboxes.interface import ProviderInfo, RelayControl
    from xoauth2_proxy.oauth.attempt import Attempt
    from xoauth2_proxy.oauth.grant import AccessToken
    from xoauth2_proxy.oauth.refreshers import Refresher

_PAUSE_SECONDS = 60.0  # a provider that is asked too often refuses the mailbox, or the client


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """What became of the mailboxes whose grants were checked."""

    removed: list[str]
    undecided: list[tuple[str, TokenError]]  # not removed: the failure proves no revocation


@dataclass(frozen=True, slots=True)
class RevocationResult:
    """A mailbox whose grant was revoked and deleted."""

    mailbox: Mailbox
    left_over: list[str]  # access that revoking did not end, and the remedy


class Mailboxes:
    """The mailboxes of the running relay."""

    def __init__(self, relay: RelayControl, clock: Callable[[], float] = time.monotonic) -> None:
        self._relay = relay
        self._store = relay.store
        # Held while the set of accounts changes, never during a token request.
        self._lock = asyncio.Lock()
        self._additions = Additions(relay, self._lock)
        self.credentials = CredentialChanges(relay, self._lock)
        self._sign_ins = sign_in.PendingSignIns(relay.threads)
        self._clock = clock
        self._asked_at: dict[str, float] = {}  # when an operator last asked for a token, by mailbox
        self._removed: set[str] = set()  # keys of mailboxes whose grants are not deleted yet

    async def close(self) -> None:
        """Wait some seconds for additions in progress, while the store is still open."""
        await self._additions.close()

    @property
    def providers(self) -> Sequence[ProviderInfo]:
        """The providers that a mailbox can be added for."""
        return self._relay.providers

    def refreshers(self) -> list[RefresherInfo]:
        """Return what every installed refresher declares, by name; loads plug-ins, so it blocks."""
        return self._relay.all_refreshers()

    async def listing(self) -> list[Mailbox]:
        """Return all enabled mailboxes, by address."""
        accounts = sorted(self._relay.accounts.values(), key=lambda account: account.key)
        return await self._with_status(accounts)

    def disabled(self) -> list[DisabledAccount]:
        """Return the disabled accounts, by address; those also defined as enabled are left out."""
        relay = self._relay
        listed = [account for account in relay.disabled if account.key not in relay.accounts]
        return sorted(listed, key=lambda account: account.key)

    async def find(self, email: str) -> Mailbox:
        """Return one mailbox. Raises `UnknownMailbox`."""
        (mailbox,) = await self._with_status([self._account(email)])
        return mailbox

    async def add(self, proposals: Sequence[tuple[str, Proposal]]) -> AdditionResult:
        """Add mailboxes. Raises: as `Additions.add`."""
        return await self._additions.add(proposals)

    async def remove(self, email: str) -> None:
        """Remove a mailbox that was added at run time, and delete its grant.

        The grant stays if the configuration file defines the mailbox as well.

        Raises:
            UnknownMailbox: there is none.
            DefinedInFile: it can be removed only there.
            ConfigError, OSError: it is in force until the configuration can be read again.
            TokenStoreUnavailable: it is removed, but its grant is still in the store.
        """
        key = login_key(email)
        if key not in await self._added():
            account = self._account(email)
            raise DefinedInFile(
                f"{account.email} is defined in the configuration file: remove it there and reload"
            )
        await self._remove([key])

    async def remove_all(self) -> list[str]:
        """Remove every added mailbox; return their keys. Raises: as `remove`."""
        return await self._remove(sorted(await self._added()))

    async def remove_invalid(self) -> RemovalResult:
        """Ask for a token of each added mailbox; remove those whose grant was revoked.

        Raises: as `remove`, and `RefreshTooSoon` if a provider was asked less than a minute ago;
        then nothing was done.
        """
        in_force = self._relay.accounts
        added = [in_force[key] for key in sorted(await self._added()) if key in in_force]
        accounts = [account for account in added if account.keeps_tokens]
        self._note_request(account.key for account in accounts)
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
        removed = await self._remove(revoked, only_revoked=True)
        undecided = [(one.email, error) for one, error in failed if one.key not in removed]
        return RemovalResult(removed, undecided)

    async def refresh(self, email: str) -> Mailbox:
        """Get a new access token from the provider now; return the mailbox with its new status.

        Raises:
            UnknownMailbox: there is none.
            NotSupported: its clients bring their own tokens.
            RefreshTooSoon: the provider was asked less than a minute ago.
            TokenError: there is no token.
        """
        account = self._account(email)
        self._check_gets_tokens(await self.find(email))
        self._note_request([account.key])
        await self._relay.refresh(account)
        return await self.find(email)

    async def token(self, email: str) -> tuple[Account, AccessToken]:
        """Return an access token of a mailbox, for a program.

        Raises:
            NotEnabled: the configuration does not have tokens served.
            UnknownMailbox: there is none.
            NotSupported: its clients bring their own tokens.
            TokenError: there is no token.
        """
        if not self._relay.serves_tokens:
            raise NotEnabled(
                'access tokens are not served; write "serves_tokens": true under "admin" in the '
                "configuration, and restart the proxy"
            )
        account = self._account(email)
        self._check_gets_tokens(await self.find(email))
        return account, await self._relay.token_for(account)

    async def revoke(self, email: str) -> RevocationResult:
        """Revoke the grant at the provider, where that is possible, and delete it here.

        Raises:
            UnknownMailbox: there is none.
            NotSupported: the mailbox has no grant.
            TokenError: nothing was deleted.
        """
        account = self._account(email)
        mailbox = await self.find(email)
        stored = await self._store.load(account.key)
        kept = account.refresher_info.kept_in or (stored and stored.refresh_token)
        if not (mailbox.has_grant and (account.oauth.refresh_token or kept)):
            raise NotSupported(f"{account.email} has no grant to revoke")
        refresher = await self._refresher(account)
        is_revoked = await sign_in.revoke(self._store, account, self._relay.threads, refresher)
        self._grant_changed(account.key)
        left_over = _remaining_access(mailbox, is_revoked=is_revoked)
        return RevocationResult(await self.find(email), left_over)

    async def begin_sign_in(self, email: str, provider: str, redirect_uri: str) -> Attempt:
        """Return a sign-in attempt: the provider's page for the person, and the state to expect.

        Raises:
            UnknownMailbox: the provider has no mailbox of this name here.
            NotSupported: the account's settings do not allow it.
            TokenError: the provider's metadata cannot be had.
        """
        account = self._account(email)
        if account.provider != provider:
            raise UnknownMailbox(f"{account.email} is not a mailbox of {provider}")
        mailbox = await self.find(email)
        if mailbox.obstacle:
            raise NotSupported(f"{account.email} cannot be signed in here: {mailbox.obstacle}")
        return await self._sign_ins.begin(account, redirect_uri, await self._refresher(account))

    async def finish_sign_in(self, answer: Mapping[str, str]) -> Mailbox:
        """Save the grant of a completed sign-in; `answer` is the query of the provider's redirect.

        Raises:
            SignInRefused: the person declined, is not the mailbox's owner or came too late, or the
                mailbox's settings have changed since the sign-in began.
            UnknownMailbox: the mailbox was removed meanwhile.
            TokenError, UpstreamError: the provider or the store is unavailable.
        """
        account, signed_in = await self._sign_ins.finish(answer)
        self._check_unchanged(account)
        now = EpochSeconds(time.time())
        log_in = partial(self._relay.log_in, account)
        lock = self._while_unchanged(account)
        await sign_in.save_sign_in(self._store, account, signed_in, now, log_in, lock)
        self._grant_changed(account.key)
        return await self.find(account.email)

    async def reload(self) -> None:
        """Read the configuration again. Raises `ConfigError`, `OSError`: nothing has changed."""
        async with self._lock:
            await self._relay.reload()
            await self._delete_grants()

    async def _remove(self, keys: Collection[str], *, only_revoked: bool = False) -> list[str]:
        """Remove added mailboxes, with `only_revoked` those with revoked grants. Return which.

        Raises: as `remove`, once everything else is done.
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
            # Left out, a mailbox of the file may be in its place, whose credentials these are now.
            of_file = {*self._relay.accounts, *(one.key for one in self._relay.disabled)} - in_force
            for key in {*removed} - of_file:
                await self.credentials.forget_mailbox(key)
            if removed:
                # A mailbox not in force may be a disabled account of the file: its grant stays.
                self._removed |= in_force & {*removed}
                await self._relay.reload()
                await self._delete_grants()
        if errors:
            raise errors[0]
        return removed

    async def _delete_grants(self) -> None:
        """Delete the grants of removed mailboxes that are no longer in force.

        Raises `TokenStoreUnavailable` once all were tried; the rest is tried next time.
        """
        errors: list[TokenStoreUnavailable] = []
        for key in sorted(self._removed):
            try:
                if key not in self._relay.accounts:
                    async with self._relay.store.lock(key):
                        await self._relay.store.delete(key)
                    self._grant_changed(key)
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

    def _note_request(self, keys: Iterable[str]) -> None:
        """Note that a token is asked for now. Raises `RefreshTooSoon`: it was within a minute."""
        wanted, now = set(keys), self._clock()
        recent = {key: at for key, at in self._asked_at.items() if now - at < _PAUSE_SECONDS}
        if busy := wanted & recent.keys():
            last = max(busy, key=lambda key: recent[key])
            wait_seconds = recent[last] + _PAUSE_SECONDS - now
            raise RefreshTooSoon(
                f"the provider was asked for a token of {last} less than a minute ago; wait "
                f"{wait_seconds:.0f} s",
                wait_seconds,
            )
        self._asked_at = recent | dict.fromkeys(wanted, now)

    def _grant_changed(self, key: str) -> None:
        """Drop what was got with the former grant; a token may be asked for at once."""
        self._asked_at.pop(key, None)
        self._relay.forget(key)

    @asynccontextmanager
    async def _while_unchanged(self, account: Account) -> AsyncIterator[None]:
        async with self._lock:
            self._check_unchanged(account)
            yield

    def _check_unchanged(self, account: Account) -> None:
        """Raise unless the account is in force, with the same OAuth settings and upstream."""
        now = self._account(account.email)
        if now.token_identity != account.token_identity or now.upstream != account.upstream:
            raise SignInRefused(
                f"the settings of {account.email} have changed since this sign-in began; start the "
                "sign-in again"
            )

    async def _refresher(self, account: Account) -> Refresher | None:
        return await asyncio.to_thread(self._relay.refresher, account.refresher)

    def _check_gets_tokens(self, mailbox: Mailbox) -> None:
        if mailbox.status.state is State.OWN_TOKEN:
            raise NotSupported(f"the clients of {mailbox.account.email} bring their own tokens")

    def _account(self, email: str) -> Account:
        account = self._relay.accounts.get(login_key(email))
        if account is None:
            raise UnknownMailbox(f"there is no mailbox {email}")
        return account

    async def _added(self) -> set[str]:
        """Return the keys of all added mailboxes, including those not in force."""
        return {*self._relay.added, *await asyncio.to_thread(self._relay.account_files.keys)}

    async def _with_status(self, accounts: Sequence[Account]) -> list[Mailbox]:
        added = self._relay.added
        now = EpochSeconds(time.time())
        found = await mailbox_statuses(accounts, self._store, now, self._relay.warn_days)
        return [
            Mailbox(account, status, account.key in added)
            for account, status in zip(accounts, found, strict=True)
        ]


def _remaining_access(mailbox: Mailbox, *, is_revoked: bool) -> list[str]:
    left: list[str] = []
    if not is_revoked:
        left.append(
            "the provider has no revocation endpoint: the owner removes the proxy's access in the "
            "settings of their account there"
        )
    if mailbox.account.oauth.refresh_token:
        where = "the account was added with" if mailbox.is_added else "the configuration file has"
        left.append(f"{where} a refresh token of its own, which is used again until you remove it")
    return left
