"""Compares what the relay acknowledged with what the sandbox received, message by message."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from bench.result import NotReconciled, Reconciliation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from bench.messages import Messages
    from bench.recorder import Recorder

_REQUEST_SECONDS = 15.0
_PAGE_MESSAGES = 500
_MAX_PAGE_BYTES = 8 << 20  # 500 descriptions are about 250 kB


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message as the sandbox received it."""

    message_id: str
    mailbox: str  # who was logged in
    sha256: str  # of the content, hexadecimal


class SandboxUnavailable(Exception):
    """The sandbox does not answer, or no longer knows the messages asked for."""


class Sandbox:
    """The list of messages a sandbox received, read over HTTP."""

    def __init__(self, url: str) -> None:
        self._messages_url = f"{url}/messages"

    async def position(self) -> int:
        """Return how many messages have arrived so far, which is the last one's `seq`.

        Raises:
            SandboxUnavailable: there is no usable answer.
        """
        async with self._session() as session:
            return _number((await self._page(session, 0, 1)), "total")

    async def arrivals(self, position: int) -> AsyncIterator[Arrival]:
        """Yield the messages that arrived after `position`, in order.

        Raises:
            SandboxUnavailable: there is no usable answer, or some were evicted meanwhile.
        """
        async with self._session() as session:
            while True:
                page = await self._page(session, position, _PAGE_MESSAGES)
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

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS))

    async def _page(
        self, session: aiohttp.ClientSession, after: int, limit: int
    ) -> dict[str, object]:
        query = {"after": str(after), "limit": str(limit)}
        try:
            async with session.get(self._messages_url, params=query) as response:
                response.raise_for_status()
                page = json.loads(await _read(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise SandboxUnavailable(f"the sandbox does not answer: {reason}") from error
        if not isinstance(page, dict):
            raise SandboxUnavailable("the sandbox answers no JSON object")
        return page


async def reconcile(
    sandbox: Sandbox,
    position: int,
    messages: Messages,
    recorder: Recorder,
    mailboxes: Iterable[str],
) -> Reconciliation | NotReconciled:
    """Return how the run's acknowledged messages compare with those arrived after `position`."""
    logins = {mailbox.lower(): mailbox for mailbox in mailboxes}
    arrivals: Counter[int] = Counter()
    corrupted: set[int] = set()
    try:
        async for arrival in sandbox.arrivals(position):
            number = messages.number(arrival.message_id)
            if number is None:
                continue  # somebody else's
            arrivals[number] += 1
            # The digest covers the From of the mailbox that must have been logged in upstream.
            login = logins.get(arrival.mailbox.lower(), arrival.mailbox)
            if arrival.sha256 != messages.sha256(number, login):
                corrupted.add(number)
    except SandboxUnavailable as error:
        return NotReconciled(str(error))
    unexpected = sum(not recorder.is_acknowledged(number) for number in arrivals)
    return Reconciliation(
        acknowledged=recorder.succeeded,
        arrived=len(arrivals),
        lost=recorder.succeeded - (len(arrivals) - unexpected),
        duplicated=sum(count > 1 for count in arrivals.values()),
        corrupted=len(corrupted),
        unexpected=unexpected,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    octets = bytearray()
    async for chunk in response.content.iter_any():
        octets += chunk
        if len(octets) > _MAX_PAGE_BYTES:
            raise ValueError("the answer is too long")
    return bytes(octets)


def _entries(page: dict[str, object]) -> list[dict[str, object]]:
    entries = page.get("messages")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise SandboxUnavailable("the sandbox answers no list of messages")
    return entries


def _number(answer: dict[str, object], key: str) -> int:
    number = answer.get(key)
    if not isinstance(number, int):
        raise SandboxUnavailable(f"the sandbox answers no {key}")
    return number


def _arrival(entry: dict[str, object]) -> Arrival:
    return Arrival(
        str(entry.get("message_id") or ""), str(entry.get("mailbox")), str(entry.get("sha256"))
    )
