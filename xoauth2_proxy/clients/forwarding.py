"""Carries what a worker saw of clients to its parent, in bounded lines.

A line is lost if the parent does not read: the record says what was seen, not all that was.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from xoauth2_proxy.clients.record import ClientRecord, ClientSeen

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT = "client "  # what a line begins with
MAX_LINE = 4000  # characters; an entry's texts, each with every character escaped, have fewer

_PAUSE_SECONDS = 0.5  # between two messages to the parent, however many clients there are
_MOST_AT_ONCE = 200  # clients that are told of in that time


class Forwarding:
    """A worker's record, which is emptied into the channel to the parent."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.record = ClientRecord(_MOST_AT_ONCE)
        self._say = say
        self._timer: asyncio.TimerHandle | None = None

    def has_changed(self) -> None:
        """Tell the parent soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self.send)

    def send(self) -> None:
        """Tell the parent now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for seen in self.record.take():
            self._say(CLIENT + json.dumps(seen.to_json(), ensure_ascii=False))


def receive(record: ClientRecord, text: str) -> None:
    """Add what a worker told, the line without its beginning, to the parent's record."""
    try:
        record.merge([ClientSeen.from_json(json.loads(text))])
    except (ValueError, TypeError, KeyError):
        return  # of a worker that was killed while it wrote
