"""Parses durations such as 40ms or 1.5s."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)", re.ASCII)
_MAX_SECONDS = 60.0


def seconds(text: str) -> float:
    """Return a duration, given with its unit, in seconds.

    Raises:
        ValueError: it is not a duration, or is longer than a minute; the text says which.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration like 40ms or 0.1s.")
    value = float(match[1]) / (1000.0 if match[2] == "ms" else 1.0)
    if value > _MAX_SECONDS:
        raise ValueError(f"{text!r} is longer than a minute.")
    return value
