"""Whether there was enough of a run for what is read off it. Pure arithmetic.

A run is a measurement from two seconds on: machines pause for some 50 or 100 ms now and then (the
scheduler, the garbage collector, a neighbour), and connecting, logging in and the first tokens
fall into its beginning; in two seconds that is some 5 % of the time. And from 200 messages that
succeeded on: then the p95 rests on ten that were slower.

A percentile is rough while fewer than ten values lie beyond it: the number of those beyond has a
standard deviation of its root, so with nine the p99 shown may as well be the p98.7. It is marked
and not left out: a limit for p99 would else be missed, or met, by whether 99 messages
succeeded or 100.
"""

from __future__ import annotations

MIN_SECONDS = 2.0
_LEAST_SHARE = 0.95  # of them: `--duration 2` ends with a last message, maybe before
MIN_MESSAGES = 200
MIN_BEYOND = 10
ADVICE = (
    f"a measurement takes {MIN_SECONDS:g} s and {MIN_MESSAGES} messages at least, "
    "better 10 s (--duration 10)"
)
ROUGH = f"rough: fewer than {MIN_BEYOND} values lie beyond it"
# Of 1000 values, how many lie beyond each percentile.
_BEYOND = {"p50": 500, "p90": 100, "p95": 50, "p99": 10, "p999": 1}


def is_short(seconds: float | None, messages: float | None) -> bool:
    """Whether a run of so many messages that succeeded is too short to be a measurement."""
    return (seconds or 0.0) < MIN_SECONDS * _LEAST_SHARE or (messages or 0) < MIN_MESSAGES


def beyond(name: str, count: float) -> int:
    """Return how many of so many values lie beyond the percentile `p50`, `p90`, …, `p999`.

    Raises:
        KeyError: it is no percentile.
    """
    return int(count) * _BEYOND[name] // 1000


def needed(name: str) -> int:
    """Return of how many values a percentile is not rough.

    Raises:
        KeyError: it is no percentile.
    """
    return MIN_BEYOND * 1000 // _BEYOND[name]


def is_rough(name: str, count: float | None) -> bool:
    """Whether a figure of a distribution of so many values is a percentile with few beyond it."""
    return name in _BEYOND and bool(count) and beyond(name, count or 0) < MIN_BEYOND


def rough(count: float) -> list[str]:
    """Return the percentiles that are rough, as the document names them."""
    return [f"{name}_seconds" for name in _BEYOND if is_rough(name, count)]
