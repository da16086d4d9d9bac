"""Explains providers' refusals by `refusals.toml`: from their words to the cause and the remedy."""

from __future__ import annotations

import time
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from xoauth2_proxy.diagnostics.advice import Advice, normalised

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Advice", "Explanations", "explain", "refusal_table"]

_REPEAT_SECONDS = 3600.0
_MAX_LOGGED = 10_000  # pairs of mailbox and row; beyond, the oldest may be logged again


@cache
def refusal_table() -> tuple[Advice, ...]:
    """Return the rows of `refusals.toml` in their order, read when something is first refused."""
    import tomllib  # here, like the table itself: an idle proxy needs neither

    rows = tomllib.loads(resources.files(__name__).joinpath("refusals.toml").read_text("utf-8"))
    return tuple(Advice(**row | {"says": tuple(row["says"])}) for row in rows["row"])


def explain(text: str, provider: str = "") -> Advice | None:
    """Return the cause and the remedy of a provider's refusal; None if the table has none.

    `text` is a reply as `str(Reply)` gives it, or an OAuth error with its description. `provider`
    is the account's refresher or provider; any word other than gmail and outlook allows every row.
    """
    words = normalised(text)
    return next((row for row in refusal_table() if row.fits(words, provider)), None)


class Explanations:
    """Cause and remedy for log lines: once an hour for each mailbox and table row."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged: dict[tuple[str, int], float] = {}  # by mailbox and row, in order of time

    def fields(self, text: str, provider: str, mailbox: str) -> dict[str, str]:
        """Return `cause` and `remedy` for a log line; nothing if unknown or logged recently."""
        advice = explain(text, provider)
        if advice is None:
            return {}
        key, now = (mailbox, id(advice)), self._clock()
        if now - self._logged.get(key, float("-inf")) < _REPEAT_SECONDS:
            return {}
        self._logged.pop(key, None)
        while len(self._logged) >= _MAX_LOGGED:
            del self._logged[next(iter(self._logged))]
        self._logged[key] = now
        return {"cause": advice.cause, "remedy": advice.remedy_for(mailbox)}
