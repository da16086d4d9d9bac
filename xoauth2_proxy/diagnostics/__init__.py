"""What providers mean by their refusals: one table from their words to the cause and the remedy.

Words are compared, never interpreted. The first row that fits wins, so rows stand from the
particular to the general.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from xoauth2_proxy.diagnostics.advice import Advice, Retry, normalised

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Advice", "Explanations", "Retry", "explain"]

_TOLD_SECONDS = 3600.0
_MAX_TOLD = 10_000  # pairs of mailbox and row; beyond, the oldest may be told again


def explain(text: str, provider: str = "") -> Advice | None:
    """Return what is known of a provider's refusal; None for words nobody knows.

    `text` is a reply as `str(Reply)` gives it, or an OAuth error with its description. `provider`
    is the account's refresher or provider; any other word than gmail and outlook allows every row.
    """
    # Imported when something was refused: it takes 1 MiB and a few milliseconds.
    from xoauth2_proxy.diagnostics.refusal_table import TABLE

    words = normalised(text)
    return next((row for row in TABLE if row.fits(words, provider)), None)


class Explanations:
    """Fields for log lines that tell cause and remedy: once an hour for a mailbox and a row."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[tuple[str, int], float] = {}  # by mailbox and row, in order of time

    def fields(self, text: str, provider: str, mailbox: str) -> dict[str, str]:
        """Return `cause` and `remedy` for a log line, or nothing if unknown or told already."""
        advice = explain(text, provider)
        if advice is None:
            return {}
        key, now = (mailbox, id(advice)), self._clock()
        if now - self._told.get(key, float("-inf")) < _TOLD_SECONDS:
            return {}
        self._told.pop(key, None)
        while len(self._told) >= _MAX_TOLD:
            del self._told[next(iter(self._told))]
        self._told[key] = now
        return {"cause": advice.cause, "remedy": advice.remedy_for(mailbox)}
