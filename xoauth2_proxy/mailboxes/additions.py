"""Adds mailboxes: checks them together, asks for their tokens, saves them and puts them in force.

I1: nothing is saved for a mailbox whose token request failed; if the mailboxes cannot be put in
force, the former accounts and grants are restored.
I2: concurrent additions do not overwrite one another; one mailbox is added by one of them.
I3: a password is saved as a hash.
I4: a grant is never presented for an account that takes its mailbox to another server, and never
follows it there.
I5: a token request that fails changes nothing. If the provider replaces the refresh token of the
mailbox's own grant, the new one is saved before the request ends.
I6: an addition ends even if its caller has gone: it may hold a refresh token that the provider
issues only once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.background_tasks import BackgroundTasks
from xoauth2_proxy.errors import (
    ConfigError,
    TokenEndpointRefused,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.mailboxes.interface import DefinedInFile, MailboxExists
from xoauth2_proxy.mailboxes.runtime_accounts import account_key
from xoauth2_proxy.mailboxes.runtime_credentials import credential_key
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import TokenRefreshes, current_grant, issued_to
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.interface import Document, RelayControl
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

# Between attempts to save: the provider will not issue the same token again.
PAUSES_SECONDS = (0.5, 1.0, 2.0)
MAX_CONCURRENT_REQUESTS = 4  # as many as `oauth.token_request` allows one token host

_CLOSE_SECONDS = 12.0  # for token requests under way
_PASSWORD_BYTES = 18  # 24 characters: far beyond guessing, and still typed without error

_log = log.logger("mailboxes")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mailbox to be added."""

    document: Document = field(repr=False)
    verify: bool = True  # ask for a token first
    overwrite: bool = False  # replace a mailbox that was added at run time


@dataclass(frozen=True, slots=True)
class AddedMailbox:
    """A mailbox that is in force now."""

    mailbox: str  # its key
    is_new: bool  # False: it replaced one
    password: str = field(repr=False)  # generated, and not saved in clear; "": it had one


@dataclass(frozen=True, slots=True)
class AdditionResult:
    """The outcome of proposals: each is in one of the two lists, in the order given."""

    added: list[AddedMailbox]
    failed: list[tuple[str, TokenError]]  # address as proposed, why there is no token


@dataclass(slots=True)
class _Candidate:
    document: Document = field(repr=False)
    account: Account
    password: str = field(repr=False)  # generated; "": it had one
    is_new: bool
    grant: StoredGrant | None = None  # what the provider answered, if it is not saved yet
    error: TokenError | None = None
    is_in_store: bool = False  # `grant` (None: nothing) has replaced `former_grant`
    former_grant: StoredGrant | None = None


class Additions:
    """Adds mailboxes to the running relay."""

    def __init__(self, relay: RelayControl, lock: asyncio.Lock) -> None:
        self._relay = relay
        self._store = relay.store
        self._files = relay.account_files
        self._tasks = BackgroundTasks()
        self._lock = lock  # held while the set of accounts changes, never during a token request
        self._request_limit = asyncio.Semaphore(MAX_CONCURRENT_REQUESTS)
        self._in_progress: set[str] = set()

    async def add(self, proposals: Sequence[tuple[str, Proposal]]) -> AdditionResult:
        """Add the mailboxes for which a token can be had; cancelling does not stop it.

        Each proposal comes with the JSON path that its problems begin with. If this raises,
        nothing was added.

        Raises:
            ConfigError: some accounts are not valid.
            MailboxExists, DefinedInFile: some mailboxes exist already.
            TokenStoreUnavailable: transient.
            OSError: the accounts cannot be saved.
        """
        return await self._tasks.run(self._add(proposals), "add mailboxes")

    async def close(self) -> None:
        """Wait some seconds for additions in progress."""
        await self._tasks.close(_CLOSE_SECONDS)

    async def _add(self, proposals: Sequence[tuple[str, Proposal]]) -> AdditionResult:
        documents = [(path, *_with_password(one.document)) for path, one in proposals]
        keys = {account_key(proposal.document) for _, proposal in proposals} - {""}
        with self._reserved(keys):
            added = {*self._relay.added, *await asyncio.to_thread(self._files.keys)}
            for _, proposal in proposals:
                self._check_is_free(proposal, added)
            checked = [(path, document) for path, document, _ in documents]
            accounts = await asyncio.to_thread(self._relay.check, checked, keys & added)
            candidates = [
                _Candidate(document, account, password, is_new=account.key not in added)
                for (_, document, password), account in zip(documents, accounts, strict=True)
            ]
            wanted = [
                one
                for one, (_, proposal) in zip(candidates, proposals, strict=True)
                if proposal.verify and _can_verify(one.account)
            ]
            await asyncio.gather(*map(self._verify, wanted))
            good = [one for one in candidates if one.error is None]
            if good:
                await self._save(good)
        return AdditionResult(
            [AddedMailbox(one.account.key, one.is_new, one.password) for one in good],
            [(one.account.email, one.error) for one in candidates if one.error is not None],
        )

    def _check_is_free(self, proposal: Proposal, added: Collection[str]) -> None:
        key = account_key(proposal.document)
        if key in added:
            if not proposal.overwrite:
                raise MailboxExists(f"{key} exists already; overwrite replaces it")
        elif key in self._relay.accounts:
            raise DefinedInFile(f"{key} is defined in the configuration file; change it there")
        for account in self._relay.accounts.values():
            for one in account.credentials:
                is_made = credential_key(account.key, one.name) in self._relay.made
                if is_made and one.login and one.key == key:
                    # Otherwise it would be left out from now on, and its device shut out.
                    raise MailboxExists(
                        f"{key} is the login of the credential {one.name} of {account.email}; "
                        "revoke that first"
                    )

    @contextmanager
    def _reserved(self, keys: set[str]) -> Iterator[None]:
        if busy := sorted(keys & self._in_progress):
            raise MailboxExists(f"{busy[0]} is being added by another request")
        self._in_progress |= keys
        try:
            yield
        finally:
            self._in_progress -= keys

    async def _verify(self, candidate: _Candidate) -> None:
        async with self._request_limit:
            try:
                candidate.grant = await _new_grant(self._relay, candidate.account)
            except TokenError as error:
                candidate.error = error
            except OSError as error:
                problem = f"the refresher cannot start: {error.strerror}"
                candidate.error = TokenEndpointRefused(problem)

    async def _save(self, candidates: Sequence[_Candidate]) -> None:
        documents = [await asyncio.to_thread(self._hashed, one.document) for one in candidates]
        async with self._lock:
            former: dict[str, Document] = {}
            if not all(one.is_new for one in candidates):
                saved = await asyncio.to_thread(self._files.documents)
                former = {account_key(document): document for _, document in saved}
            try:
                for candidate in candidates:
                    await self._save_grant(candidate)
                for document in documents:
                    await asyncio.to_thread(self._files.add, document)
                await self._relay.reload()
            except (ConfigError, OSError, TokenStoreUnavailable):
                # The new accounts are not in force, and must not be at the next start either.
                for candidate in candidates:
                    await self._restore(candidate, former.get(candidate.account.key))
                raise
        for candidate in candidates:
            self._relay.forget(candidate.account.key)

    async def _save_grant(self, candidate: _Candidate) -> None:
        """Save the new grant, or delete a grant that must not follow to another server."""
        account = candidate.account
        changes = _changes_servers(self._relay.accounts.get(account.key), account)
        if candidate.grant is None and not changes:
            return
        async with self._store.lock(account.key):
            candidate.former_grant = await self._store.load(account.key)
            if candidate.grant is not None:
                await _save_with_retries(self._store, account.key, candidate.grant)
            elif candidate.former_grant is not None:
                await self._store.delete(account.key)
            candidate.is_in_store = True
        if changes:
            self._relay.forget(account.key)  # before its token could go there

    async def _restore(self, candidate: _Candidate, former: Document | None) -> None:
        key = candidate.account.key
        try:
            if former is not None:
                await asyncio.to_thread(self._files.add, former)
            else:
                await asyncio.to_thread(self._files.remove, key)
            if not candidate.is_in_store:
                return
            async with self._store.lock(key):
                if await self._store.load(key) != candidate.grant:
                    return  # the mailbox was signed in since
                if candidate.former_grant is not None:
                    await self._store.save(key, candidate.former_grant)
                else:
                    await self._store.delete(key)
        except (OSError, TokenStoreUnavailable) as error:
            _log.event(logging.ERROR, "mailbox not restored", account=key, error=error)

    def _hashed(self, document: Document) -> Document:
        password = document.get("password", "")
        if not password or password.startswith("$argon2"):
            return document
        import argon2  # not above: most relays are never asked to add a mailbox

        return document | {"password": argon2.PasswordHasher().hash(password)}


def _with_password(document: Document) -> tuple[Document, str]:
    """Return the document with a password, and the password if it was generated here."""
    if "password" in document or document.get("allow_any_password"):
        return document, ""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    return document | {"password": password}, password


def _can_verify(account: Account) -> bool:
    """Whether the relay can get a token; otherwise a person signs in, or clients bring tokens."""
    if account.refresher == MOCK:
        return True
    if not account.keeps_tokens:
        return False
    return not account.needs_sign_in or bool(account.oauth.refresh_token)


async def _new_grant(relay: RelayControl, account: Account) -> StoredGrant | None:
    """Ask for a token; return the grant to save, None if it is saved already.

    Raises:
        TokenError: there is no token.
        OSError: the refresher needs a file that cannot be read.
    """
    # First, so that no token is asked for that could not be saved.
    stored = await relay.store.load(account.key)
    former = relay.accounts.get(account.key)
    if _changes_servers(former, account):
        _refuse_replaced_token(account, stored)
    elif stored and current_grant(account, stored, EpochSeconds(time.time())) is stored:
        if former is not None and former.token_identity == account.token_identity:
            await relay.refresh(former)
        else:
            await _refresh(relay, account, _CheckStore(relay.store))
        return None
    separate = MemoryStore()
    await _refresh(relay, account, separate)
    return await separate.load(account.key)


async def _refresh(relay: RelayControl, account: Account, store: TokenStore) -> None:
    refresher = await asyncio.to_thread(relay.refresher, account.refresher)
    if refresher is None:
        raise TokenEndpointRefused(f"there is no refresher {account.refresher}")
    refreshes = TokenRefreshes({account.refresher: refresher}, store, relay.metrics)
    try:
        await refreshes.refresh(account, is_forced=True)
    finally:
        await refreshes.close()  # tries once more to save, also if this was cancelled


class _CheckStore:
    """The relay's store during a check: failures are not saved, and saving is tried again."""

    def __init__(self, store: TokenStore) -> None:
        self._store = store

    async def load(self, mailbox: str) -> StoredGrant | None:
        return await self._store.load(mailbox)

    async def save(self, mailbox: str, grant: StoredGrant) -> None:
        if grant.failure is None:
            await _save_with_retries(self._store, mailbox, grant)

    async def delete(self, mailbox: str) -> None:
        await self._store.delete(mailbox)

    def lock(self, mailbox: str) -> AbstractAsyncContextManager[None]:
        return self._store.lock(mailbox)

    async def check(self) -> None:
        await self._store.check()

    async def close(self) -> None:
        """Leave the store open: the relay uses it."""


async def _save_with_retries(store: TokenStore, mailbox: str, grant: StoredGrant) -> None:
    """Save the grant; try again for some seconds. Raises `TokenStoreUnavailable`."""
    for pause_seconds in PAUSES_SECONDS:
        try:
            return await store.save(mailbox, grant)
        except TokenStoreUnavailable:
            await asyncio.sleep(pause_seconds)
    return await store.save(mailbox, grant)


def _changes_servers(former: Account | None, account: Account) -> bool:
    """Whether the account takes the mailbox to other servers, which must not see its grant.

    A grant of a mailbox that is not in force may belong to any server.
    """
    return (
        former is None
        or former.upstream != account.upstream
        or issued_to(former) != issued_to(account)
    )


def _refuse_replaced_token(account: Account, stored: StoredGrant | None) -> None:
    """Raise for a replaced refresh token: its reuse may end the grant (RFC 9700 §4.14.2)."""
    given = account.oauth.refresh_token
    if (
        stored is not None
        and given
        and stored.issued_to == issued_to(account)
        and stored.descends_from == fingerprint(given)
        and stored.refresh_token != given
    ):
        raise TokenEndpointRefused(
            "the provider has replaced this refresh token by a newer one, which does not follow "
            "the mailbox to another server; revoke the grant first, or give another token"
        )
