"""Creates a run's own mailboxes before it, and always removes them afterwards.

A private proxy has them in its configuration, so they end with it. At a running proxy they are
added through its admin server, a few requests at a time, and removed one by one.
I1: a mailbox that existed before is not changed.
I2: every mailbox that may have been added is removed: at the end, after an error or a signal, and
at once after a second signal. Those that cannot be removed are listed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from bench.process.child_process import StartInterrupted
from bench.targets.admin_api import AdminApi, AdminError, AdminUnavailable
from bench.targets.loopback import is_loopback
from bench.targets.target_request import TargetError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from bench.process.interruption import Interruption
    from bench.targets.mailboxes import BenchMailbox, MailboxesToAdd

    Preparation = Callable[
        [Sequence[BenchMailbox]], Awaitable[tuple[Sequence[BenchMailbox], dict[str, str]]]
    ]

TOKEN_VARIABLE = "XOAUTH2_PROXY_ADMIN_TOKEN"  # noqa: S105 - its name

_AT_ONCE = 2  # requests
_BATCH = 25  # mailboxes per request: a proxy reloads its configuration after each
_SPACING_SECONDS = 0.05  # between two requests of one of these series
_REQUEST_SECONDS = 30.0
_LEAVE_SECONDS = 300.0  # to remove all; 1000 mailboxes take half of this on a slow machine
_LEAVE_AT_ONCE_SECONDS = 10.0  # the same after a second signal
_SETTLE_SECONDS = 2.0  # a request without a response may still be carried out
_AGAIN_SECONDS = 0.1
_SHOWN_FAILURES = 5


class ProvisioningError(TargetError):
    """There are not enough mailboxes; the text says what failed."""


@asynccontextmanager
async def provisioned(
    accounts: MailboxesToAdd,
    admin_url: str,
    interruption: Interruption,
    announce: Callable[[str], None],
    *,
    allow_remote: bool = False,
    prepare: Preparation | None = None,
) -> AsyncIterator[tuple[BenchMailbox, ...]]:
    """Yield mailboxes added through this admin server; remove them afterwards.

    `prepare` gets those that are not there yet, and returns those to add and why others failed.

    Raises:
        ProvisioningError: it is not on loopback, or there are fewer mailboxes than needed.
        StartInterrupted: a signal came first.
    """
    stay = _AddedMailboxes(await _admin(admin_url, allow_remote=allow_remote), accounts)
    interruption.on_abort.append(stay.end_at_once)
    try:
        yield await stay.begin(interruption, announce, prepare)
    finally:
        # In a thread: it continues if this task is cancelled, and the loop waits for it.
        await asyncio.to_thread(stay.end)
        interruption.on_abort.remove(stay.end_at_once)


class _AddedMailboxes:
    """The mailboxes added at a proxy, from the first request to the last removal."""

    def __init__(self, admin: AdminApi, accounts: MailboxesToAdd) -> None:
        self._admin = admin
        self._accounts = accounts
        self._mailboxes = accounts.mailboxes
        self._failed: dict[str, str] = {}  # reason by mailbox
        self._here: dict[str, bool] = {}  # possibly added: whether it is certain

    async def begin(
        self,
        interruption: Interruption,
        announce: Callable[[str], None],
        prepare: Preparation | None,
    ) -> tuple[BenchMailbox, ...]:
        await self._find_existing()
        self._check_count(len(self._missing))
        if prepare is not None:
            ready, failed = await prepare(self._missing)
            self._failed |= failed
            by_address = {one.address: one for one in ready}
            self._mailboxes = tuple(by_address.get(one.address, one) for one in self._mailboxes)
            _check(interruption)
            self._check_count(len(self._missing))
        announce(f"Adding {len(self._missing)} mailboxes at {self._admin.url}.")
        await self._add_all(interruption, announce)
        _check(interruption)
        added = tuple(one for one in self._mailboxes if self._here.get(one.address))
        self._check_count(len(added))
        if self._failed:
            announce(self._told_failures(len(added)))
        return added

    async def _find_existing(self) -> None:
        try:
            there = await asyncio.to_thread(self._admin.mailboxes, _REQUEST_SECONDS)
        except AdminError as error:
            raise ProvisioningError(f"No mailbox can be added: {error}") from error
        for one in self._mailboxes:
            if one.address in there:
                self._failed[one.address] = "it is there already"

    @property
    def _missing(self) -> list[BenchMailbox]:
        return [one for one in self._mailboxes if one.address not in self._failed]

    def _check_count(self, count: int) -> None:
        if count < (self._accounts.min_count or self._accounts.count):
            raise ProvisioningError(self._told_failures(count))

    async def _add_all(self, interruption: Interruption, announce: Callable[[str], None]) -> None:
        batches = _batches(self._missing)

        async def add_some(delay_seconds: float) -> None:
            await asyncio.sleep(delay_seconds)
            # Wait for requests in progress: the mailboxes they add must be known before removal.
            for batch in batches:
                if interruption.requested.is_set():
                    return
                await asyncio.to_thread(self._add, batch)
                added = sum(self._here.values())
                announce(f"{added} of {len(self._mailboxes)} mailboxes added.")
                await asyncio.sleep(_SPACING_SECONDS)

        async with asyncio.TaskGroup() as group:
            for place in range(_AT_ONCE):
                group.create_task(add_some(place * _SPACING_SECONDS / _AT_ONCE))

    def _add(self, batch: Sequence[BenchMailbox]) -> None:
        documents = [one.document(is_hashed=True) for one in batch]
        addresses = [one.address for one in batch]
        self._here |= dict.fromkeys(addresses, False)
        try:
            addition = self._admin.add(documents, _REQUEST_SECONDS)
        except AdminError as error:
            self._failed |= dict.fromkeys(addresses, str(error))
            if not isinstance(error, AdminUnavailable):
                self._forget(addresses)
            return
        self._failed |= addition.failed
        self._forget(addition.failed)
        self._here |= dict.fromkeys(addition.added, True)

    def _told_failures(self, added: int) -> str:
        shown = [f"  {name}: {why}" for name, why in list(self._failed.items())[:_SHOWN_FAILURES]]
        if len(self._failed) > _SHOWN_FAILURES:
            shown.append(f"  and {len(self._failed) - _SHOWN_FAILURES} more")
        head = f"{added} of {len(self._mailboxes)} mailboxes could be added:"
        if any("there already" in why for why in self._failed.values()):
            shown.append(
                "An earlier run may have left them: remove them on the page "
                f"{self._admin.url}/ or give another --user-prefix."
            )
        return "\n".join([head, *shown])

    def end(self) -> None:
        """Remove the mailboxes, or list them; blocks, never raises."""
        if self._accounts.is_kept:
            self._tell("These mailboxes stay")
            self._here.clear()
            return
        self._leave(_LEAVE_SECONDS, _REQUEST_SECONDS)
        self._tell("These mailboxes could not be removed")

    def end_at_once(self) -> None:
        """Do the same in the last moment of the process, with a short time limit."""
        if not self._here:
            return
        if not self._accounts.is_kept:
            _say(f"Removing {len(self._here)} mailboxes; Ctrl+C again leaves them there.")
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._accounts.is_kept:
            self._tell("These mailboxes stay")
            return
        self._leave(_LEAVE_AT_ONCE_SECONDS, _LEAVE_AT_ONCE_SECONDS)
        self._tell("These mailboxes could not be removed")

    def _leave(self, seconds: float, request_seconds: float) -> None:
        deadline = time.monotonic() + seconds
        absent = self._remove_some(deadline, request_seconds)
        settled = min(deadline, time.monotonic() + _SETTLE_SECONDS)
        while self._here and time.monotonic() < settled:
            time.sleep(_AGAIN_SECONDS)
            absent = self._remove_some(deadline, request_seconds)
        self._forget(absent)  # probably never added

    def _remove_some(self, deadline: float, request_seconds: float) -> list[str]:
        """Remove as many as possible; return those not found, which may yet be added."""
        absent = []
        for address, is_sure in tuple(self._here.items()):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                was_there = self._admin.remove(address, min(left, request_seconds))
            except AdminUnavailable:
                break  # the others would fail too
            except AdminError:
                continue
            if was_there or is_sure:
                self._forget([address])
            else:
                absent.append(address)
        return absent

    def _forget(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            self._here.pop(address, None)

    def _tell(self, what: str) -> None:
        if self._here:
            names = "\n".join(f"  {address}" for address in sorted(self._here))
            _say(f"{what} at {self._admin.url}, {len(self._here)} of them:\n{names}")


async def _admin(url: str, *, allow_remote: bool) -> AdminApi:
    token = os.environ.get(TOKEN_VARIABLE, "")
    try:
        admin = AdminApi(url, token)
        is_near = await is_loopback(admin.host)
    except (OSError, ValueError) as error:
        raise ProvisioningError(f"The admin server {url} cannot be used: {error}") from error
    if not is_near and not allow_remote:
        raise ProvisioningError(
            f"The admin server {url} is not on loopback: give --allow-remote only for a proxy that "
            "is yours."
        )
    if not is_near and token and admin.is_clear:
        raise ProvisioningError(
            f"The admin server {url} is not on loopback: its token may not cross a network in "
            "clear. Give an https URL."
        )
    return admin


def _check(interruption: Interruption) -> None:
    if interruption.requested.is_set():
        raise StartInterrupted


def _batches(mailboxes: Sequence[BenchMailbox]) -> Iterator[Sequence[BenchMailbox]]:
    return (mailboxes[at : at + _BATCH] for at in range(0, len(mailboxes), _BATCH))


def _say(text: str) -> None:
    """Print even if progress is not shown, because mailboxes are left behind."""
    with suppress(OSError, ValueError):  # standard error is closed
        print(text, file=sys.stderr, flush=True)  # noqa: T201
