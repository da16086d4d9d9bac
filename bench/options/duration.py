"""Durations as people write them: 40ms, 1.5s."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)", re.ASCII)
_MAX_SECONDS = 60.0


def seconds(text: str) -> float:
    """Return the seconds of a duration with its unit.

    Raises:
        ValueError: it is none, or longer than a minute; the text says so.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration like 40ms or 0.1s.")
    value = float(match[1]) / (1000.0 if match[2] == "ms" else 1.0)
    if value > _MAX_SECONDS:
        raise ValueError(f"{text!r} is longer than a minute.")
    return value
