"""Compares acknowledged with received messages, one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.measurement.result import NotReconciled, Reconciliation
from bench.targets.http_client import FetchFailed, fetch_object

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from bench.load.messages import Messages
    from bench.measurement.recorder import Recorder

_PAGE_MESSAGES = 500  # their descriptions are about 250 kB


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message that the sandbox received."""

    message_id: str
    mailbox: str  # the login
    sha256: str  # of the content, hexadecimal
    forward_paths: tuple[str, ...]


class SandboxUnavailable(Exception):
    """The sandbox does not answer, or no longer knows the messages asked for."""


class SandboxMessages:
    """The messages that a sandbox received, read over HTTP."""

    def __init__(self, url: str) -> None:
        self._messages_url = f"{url}/messages"

    async def position(self) -> int:
        """Return the number of messages received so far, which is the last one's `seq`.

        Raises:
            SandboxUnavailable: there is no usable answer.
        """
        return _number(await self._page(0, 1), "total")

    async def arrivals(self, position: int) -> AsyncIterator[Arrival]:
        """Yield the messages that arrived after `position`, in order.

        Raises:
            SandboxUnavailable: there is no usable answer, or some were evicted meanwhile.
        """
        while True:
            page = await self._page(position, _PAGE_MESSAGES)
            for entry in _entries(page):
                seq = _number(entry, "seq")
                if seq != position + 1:
                    raise SandboxUnavailable("the sandbox has discarded some of the messages")
                position = seq
                yield _arrival(entry)
            if position >= _number(page, "total"):
                return
            if not _entries(page):
                raise SandboxUnavailable("the sandbox has discarded some of the messages")

    async def _page(self, after: int, limit: int) -> dict[str, object]:
        query = {"after": str(after), "limit": str(limit)}
        try:
            return await fetch_object(self._messages_url, query)
        except FetchFailed as error:
            raise SandboxUnavailable(f"the sandbox cannot tell: {error}") from error


async def reconcile(
    sandbox: SandboxMessages,
    position: int,
    messages: Messages,
    recorder: Recorder,
    mailboxes: Iterable[str],
) -> Reconciliation | NotReconciled:
    """Return the comparison of the run's acknowledged messages with those after `position`."""
    logins = {mailbox.lower(): mailbox for mailbox in mailboxes}
    arrivals: Counter[int] = Counter()
    corrupted: set[int] = set()
    try:
        async for arrival in sandbox.arrivals(position):
            number = messages.number(arrival.message_id)
            if number is None:
                continue  # from another source
            arrivals[number] += 1
            # The digest includes the mailbox that must have logged in upstream.
            login = logins.get(arrival.mailbox.lower(), arrival.mailbox)
            is_same = arrival.sha256 == messages.sha256(number, login)
            if not is_same or sorted(arrival.forward_paths) != sorted(
                messages.forward_paths(number)
            ):
                corrupted.add(number)
    except SandboxUnavailable as error:
        return NotReconciled(str(error))
    unexpected = sum(not recorder.is_acknowledged(number) for number in arrivals)
    return Reconciliation(
        acknowledged=recorder.acknowledged,
        arrived=len(arrivals),
        lost=recorder.acknowledged - (len(arrivals) - unexpected),
        duplicated=sum(count > 1 for count in arrivals.values()),
        corrupted=len(corrupted),
        unexpected=unexpected,
    )


def _entries(page: dict[str, object]) -> list[dict[str, object]]:
    entries = page.get("messages")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SandboxUnavailable("the sandbox returned no list of messages")
    return entries


def _number(answer: dict[str, object], key: str) -> int:
    number = answer.get(key)
    if not isinstance(number, int):
        raise SandboxUnavailable(f"the sandbox answers no {key}")
    return number


def _arrival(entry: dict[str, object]) -> Arrival:
    paths = entry.get("forward_paths")
    return Arrival(
        str(entry.get("message_id") or ""),
        str(entry.get("mailbox")),
        str(entry.get("sha256")),
        tuple(map(str, paths)) if isinstance(paths, list) else (),
    )
