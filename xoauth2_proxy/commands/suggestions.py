"""What is said of a mailbox that is not configured, and which one was probably meant."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key

if TYPE_CHECKING:
    from collections.abc import Iterable

_ALIKE = 0.75  # one letter of four may be wrong


def likely(mailbox: str, known: Iterable[str]) -> str:
    """Return the question whether the most similar of the known mailboxes is meant; "" if none."""
    likeness, found = max(((_likeness(mailbox, one), one) for one in known), default=(0.0, ""))
    return f"did you mean {found}?" if likeness >= _ALIKE else ""


def unknown(what: str, mailbox: str, known: Iterable[str]) -> str:
    """Return that there is no such mailbox, and which is probably meant."""
    return "; ".join(filter(None, (f"there is no {what} {mailbox}", likely(mailbox, known))))


def _likeness(one: str, other: str) -> float:
    """Compare names and domains apart: a long domain in common says nothing of the name."""
    pairs = zip(login_key(one).partition("@"), login_key(other).partition("@"), strict=True)
    return min(SequenceMatcher(None, *pair).ratio() for pair in pairs)
