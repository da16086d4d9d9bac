"""Adds mailboxes: checked all together, tried with their provider, kept and put in force.

I1: nothing is kept of a mailbox whose token request failed.
I2: additions under way at the same time never lose one another; a mailbox is added by one of them.
I3: a password is kept as a hash.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import argon2

from xoauth2_proxy.accounts import login_key
from xoauth2_proxy.errors import ConfigError, TokenEndpointRefused, TokenError
from xoauth2_proxy.mailboxes.running import MOCK, AlreadyThere, WrittenInFile
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.renewal import Renewals, current_grant
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.oauth_client import GrantType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.mailboxes.running import Document, KeptAccounts, Running
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

AT_ONCE = 4  # token requests at one time, as many as `oauth.renewal` allows one token host
_PASSWORD_BYTES = 18  # 24 characters: far beyond guessing, and still typed without error


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mailbox to be added."""

    document: Document = field(repr=False)
    verify: bool = True  # ask for a token first
    overwrite: bool = False  # replace the mailbox if it was added before


@dataclass(frozen=True, slots=True)
class Added:
    """A mailbox that is in force now."""

    mailbox: str  # its key
    is_new: bool  # False: it replaced one
    password: str = field(repr=False)  # made for it, and kept nowhere in clear; "": it had one


@dataclass(frozen=True, slots=True)
class Additions:
    """What became of proposals; each is in one of the two, in the order they came."""

    added: list[Added]
    failed: list[tuple[str, TokenError]]  # address as proposed, why no token can be had


@dataclass(slots=True)
class _Candidate:
    document: Document = field(repr=False)
    account: Account
    password: str = field(repr=False)  # made for it
    is_new: bool
    grant: StoredGrant | None = None  # what the provider answered, if it is not kept yet
    error: TokenError | None = None


class Adding:
    """Adds mailboxes to a relay that runs."""

    def __init__(
        self,
        running: Running,
        kept: KeptAccounts,
        store: TokenStore,
        metrics: Metrics,
        lock: asyncio.Lock,
    ) -> None:
        self._running = running
        self._kept = kept
        self._store = store
        self._metrics = metrics
        self._lock = lock  # held while the set of accounts is changed, never for a provider
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()
        self._hasher = argon2.PasswordHasher()

    async def add(self, proposals: Sequence[tuple[str, Proposal]]) -> Additions:
        """Add what can be added; each proposal comes with the JSON path that problems begin with.

        Raises:
            ConfigError: some are not right; nothing was added.
            AlreadyThere, WrittenInFile: some are there already; nothing was added.
            TokenStoreUnavailable: nothing was added.
            OSError: they cannot be kept.
        """
        documents = [(path, *_with_password(one.document)) for path, one in proposals]
        keys = {_key(proposal.document) for _, proposal in proposals} - {""}
        with self._reserved(keys):
            added = {*self._running.added, *await asyncio.to_thread(self._kept.keys)}
            for _, proposal in proposals:
                self._check_place(proposal, added)
            accounts = await asyncio.to_thread(
                self._running.check,
                [(path, document) for path, document, _ in documents],
                keys & added,
            )
            candidates = [
                _Candidate(document, account, password, is_new=account.key not in added)
                for (_, document, password), account in zip(documents, accounts, strict=True)
            ]
            await asyncio.gather(
                *(
                    self._verify(candidate)
                    for candidate, (_, proposal) in zip(candidates, proposals, strict=True)
                    if proposal.verify and _can_verify(candidate.account)
                )
            )
            good = [one for one in candidates if one.error is None]
            if good:
                await self._keep(good)
        return Additions(
            [Added(one.account.key, one.is_new, one.password) for one in good],
            [(one.account.email, one.error) for one in candidates if one.error is not None],
        )

    def _check_place(self, proposal: Proposal, added: Collection[str]) -> None:
        key = _key(proposal.document)
        if key in added:
            if not proposal.overwrite:
                raise AlreadyThere(f"{key} is there already; overwrite replaces it")
        elif key in self._running.accounts:
            raise WrittenInFile(f"{key} is written in the configuration file; change it there")

    @contextmanager
    def _reserved(self, keys: set[str]) -> Iterator[None]:
        if busy := sorted(keys & self._under_way):
            raise AlreadyThere(f"{busy[0]} is being added at this moment")
        self._under_way |= keys
        try:
            yield
        finally:
            self._under_way -= keys

    async def _verify(self, candidate: _Candidate) -> None:
        async with self._places:
            try:
                candidate.grant = await self._tried(candidate.account)
            except TokenError as error:
                candidate.error = error
            except OSError as error:
                candidate.error = TokenEndpointRefused(f"no refresher: {error.strerror}")

    async def _tried(self, account: Account) -> StoredGrant | None:
        """Ask for a token; return the grant to keep, None if it is kept. Raises `TokenError`.

        It is made beside the store, so that a failure leaves no trace. But where the account goes
        on with the store's grant, that one's refresh token may have been replaced, and whoever uses
        the mailbox meanwhile needs the new one.
        """
        refresher = await asyncio.to_thread(self._running.refresher, account.refresher)
        if refresher is None:
            raise TokenEndpointRefused(f"there is no refresher {account.refresher}")
        async with self._store.lock(account.key):
            kept = await self._store.load(account.key)
            beside = MemoryStore()
            if kept is not None:
                await beside.save(account.key, kept)
            renewals = Renewals({account.refresher: refresher}, beside, self._metrics)
            await renewals.renew(account, is_forced=True)
            grant = await beside.load(account.key)
            goes_on = current_grant(account, kept, EpochSeconds(time.time())) is kept
            if grant is not None and goes_on:
                await self._store.save(account.key, grant)
                return None
        return grant

    async def _keep(self, candidates: Sequence[_Candidate]) -> None:
        documents = [await asyncio.to_thread(self._hashed, one.document) for one in candidates]
        async with self._lock:
            for candidate in candidates:
                key = candidate.account.key
                if candidate.grant is not None:
                    async with self._store.lock(key):
                        await self._store.save(key, candidate.grant)
            for document in documents:
                await asyncio.to_thread(self._kept.add, document)
            try:
                await self._running.reload()
            except (ConfigError, OSError):
                # Nothing new is in force; what is new must not be there at the next start either.
                for candidate in candidates:
                    if candidate.is_new:
                        await asyncio.to_thread(self._kept.remove, candidate.account.key)
                raise
        for candidate in candidates:
            self._running.forget(candidate.account.key)

    def _hashed(self, document: Document) -> Document:
        password = document.get("password", "")
        if not password or password.startswith("$argon2"):
            return document
        return document | {"password": self._hasher.hash(password)}


def _key(document: Document) -> str:
    """Return whose account the document is; "" if it does not say."""
    email = document.get("email")
    return login_key(email) if isinstance(email, str) else ""


def _with_password(document: Document) -> tuple[Document, str]:
    """Return the document with a password, and the password if it was made here."""
    if "password" in document or document.get("allow_any_password"):
        return document, ""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    return document | {"password": password}, password


def _can_verify(account: Account) -> bool:
    """Whether there is something to get a token with: else a person signs in, or clients do."""
    client = account.oauth
    if account.refresher == MOCK:
        return True
    if client.is_empty:
        return False
    return client.grant_type is not GrantType.REFRESH_TOKEN or bool(client.refresh_token)
