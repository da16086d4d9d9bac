"""What the sandbox refused and the real reasons, for the developer whose client it refused.

A provider's replies say little. A record has the reason. Of what the client sent it has only the
claimed mailbox, never a token or a password.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REFUSALS = 1000  # kept; some 2 MB at most
_MAX_MAILBOX_CHARACTERS = 320
_MAX_CHARACTERS = 500  # of a reply, and of a reason


@dataclass(frozen=True, slots=True)
class ProviderRefusal:
    """One command, login, message or connection that was refused or aborted."""

    seq: int  # 1 is the first since the start
    at: float  # seconds since the epoch
    client: str  # address:port
    mailbox: str  # that authenticated, or was claimed; "": none
    step: str  # in capitals: a verb, CONNECT, CONTENT, END, TLS, IDLE or TOKEN
    reply: str  # its lines; in parentheses: what was done instead of a reply
    reason: str


class Refusals:
    """The newest thousand refusals. `listener`, if set, is called with each as it happens."""

    __slots__ = ("_kept", "listener", "total")

    def __init__(self) -> None:
        self._kept: deque[ProviderRefusal] = deque(maxlen=MAX_REFUSALS)
        self.total = 0
        self.listener: Callable[[ProviderRefusal], None] | None = None

    def add(self, client: str, mailbox: str, step: str, reply: bytes, reason: str = "") -> None:
        """Record a refusal; without a `reason`, it is the text of the reply."""
        said = "\n".join(
            _printable(line) for line in reply.decode("utf-8", "replace").splitlines()
        )[:_MAX_CHARACTERS]
        self.total += 1
        refusal = ProviderRefusal(
            self.total,
            time.time(),
            client,
            shown_mailbox(mailbox),
            step,
            said,
            _printable(reason)[:_MAX_CHARACTERS] or _words_of(said),
        )
        self._kept.append(refusal)
        if self.listener is not None:
            self.listener(refusal)

    def before(self, seq: int, limit: int) -> list[ProviderRefusal]:
        """Return up to `limit` that are older than `seq`, newest first."""
        older = (refusal for refusal in reversed(self._kept) if refusal.seq < seq)
        return list(islice(older, limit))


def shown_mailbox(mailbox: str) -> str:
    """Return a claimed mailbox as it may be shown; "" if it is no address: it may be a token."""
    if "@" not in mailbox or len(mailbox) > _MAX_MAILBOX_CHARACTERS:
        return ""
    return _printable(mailbox)


def format_address(address: object) -> str:
    """Return a socket's address as people write it; "" if the socket is closed."""
    if not isinstance(address, tuple):
        return ""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _words_of(reply: str) -> str:
    """Return the first line of a reply without its codes."""
    words = reply.partition("\n")[0][4:].split(" ")
    if words[0].replace(".", "").isdigit():
        del words[0]
    return " ".join(words)
