"""Adds mailboxes: checked all together, tried with their provider, kept and put in force.

I1: nothing is kept of a mailbox whose token request failed, or that could not be put in force; the
former one is there again.
I2: additions under way at the same time never lose one another; a mailbox is added by one of them.
I3: a password is kept as a hash.
I4: a grant never follows its mailbox to another server.
I5: what was begun is brought to its end though who asked has gone away: it may hold a refresh token
that the provider gives out only once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.accounts import login_key
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.errors import (
    ConfigError,
    TokenEndpointRefused,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.mailboxes.ports import MOCK, AlreadyThere, WrittenInFile
from xoauth2_proxy.mailboxes.shielded_tasks import Errands
from xoauth2_proxy.mailboxes.token_check import Trials, leads_elsewhere, save_patiently

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.mailboxes.ports import Document, KeptAccounts, Running
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.oauth.stores import StoredGrant, TokenStore

AT_ONCE = 4  # token requests at one time, as many as `oauth.renewal` allows one token host
_PASSWORD_BYTES = 18  # 24 characters: far beyond guessing, and still typed without error

_log = log.logger("mailboxes")


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
    is_placed: bool = False  # the store has `grant` (None: nothing) in place of `former_grant`
    former_grant: StoredGrant | None = None


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
        self._trials = Trials(running, store, metrics)
        self._errands = Errands()
        self._lock = lock  # held while the set of accounts is changed, never for a provider
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()

    async def add(self, proposals: Sequence[tuple[str, Proposal]]) -> Additions:
        """Add what can be added; each proposal comes with the JSON path that problems begin with.

        Cancelling does not stop it.

        Raises:
            ConfigError: some are not right; nothing was added.
            AlreadyThere, WrittenInFile: some are there already; nothing was added.
            TokenStoreUnavailable: nothing was added.
            OSError: they cannot be kept.
        """
        return await self._errands.run(self._add(proposals), "add mailboxes")

    async def close(self) -> None:
        """Let additions under way end, for some seconds."""
        await self._errands.close()

    async def _add(self, proposals: Sequence[tuple[str, Proposal]]) -> Additions:
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
                candidate.grant = await self._trials.grant_of(candidate.account)
            except TokenError as error:
                candidate.error = error
            except OSError as error:
                candidate.error = TokenEndpointRefused(f"no refresher: {error.strerror}")

    async def _keep(self, candidates: Sequence[_Candidate]) -> None:
        documents = [await asyncio.to_thread(self._hashed, one.document) for one in candidates]
        async with self._lock:
            former: dict[str, Document] = {}
            if not all(one.is_new for one in candidates):
                kept = await asyncio.to_thread(self._kept.documents)
                former = {_key(document): document for _, document in kept}
            try:
                for candidate in candidates:
                    await self._place(candidate)
                for document in documents:
                    await asyncio.to_thread(self._kept.add, document)
                await self._running.reload()
            except (ConfigError, OSError, TokenStoreUnavailable):
                # Nothing new is in force; nor must it be at the next start.
                for candidate in candidates:
                    await self._restore(candidate, former.get(candidate.account.key))
                raise
        for candidate in candidates:
            self._running.forget(candidate.account.key)

    async def _place(self, candidate: _Candidate) -> None:
        """Put the grant that was got into the store; take one away that must not follow."""
        account = candidate.account
        is_elsewhere = leads_elsewhere(self._running.accounts.get(account.key), account)
        if candidate.grant is None and not is_elsewhere:
            return
        async with self._store.lock(account.key):
            candidate.former_grant = await self._store.load(account.key)
            if candidate.grant is not None:
                await save_patiently(self._store, account.key, candidate.grant)
            elif candidate.former_grant is not None:
                await self._store.delete(account.key)
            candidate.is_placed = True
        if is_elsewhere:
            self._running.forget(account.key)  # before its token could go there

    async def _restore(self, candidate: _Candidate, former: Document | None) -> None:
        key = candidate.account.key
        try:
            if former is not None:
                await asyncio.to_thread(self._kept.add, former)
            else:
                await asyncio.to_thread(self._kept.remove, key)
            if candidate.is_placed:
                async with self._store.lock(key):
                    if await self._store.load(key) != candidate.grant:
                        return  # somebody has signed it in meanwhile
                    if candidate.former_grant is not None:
                        await self._store.save(key, candidate.former_grant)
                    else:
                        await self._store.delete(key)
        except (OSError, TokenStoreUnavailable) as error:
            _log.event(logging.ERROR, "mailbox not as it was", account=key, error=error)

    def _hashed(self, document: Document) -> Document:
        password = document.get("password", "")
        if not password or password.startswith("$argon2"):
            return document
        import argon2  # not above: most relays are never asked to add a mailbox

        return document | {"password": argon2.PasswordHasher().hash(password)}


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
