"""Decides whether a run is large enough for the figures read from it. Pure arithmetic.

A run counts as a measurement from two seconds on: machines pause for 50 to 100 ms now and then (the
scheduler, the garbage collector, a neighbour), and a run begins with connections, logins and the
first tokens; in two seconds that is about 5 % of the time. It also needs 200 messages that
succeeded: then ten values lie above the p95.

A percentile is rough while fewer than ten values lie beyond it: the standard deviation of their
number is its square root, so with nine the p99 shown may well be the p98.7. It is marked rather
than left out: otherwise a limit for p99 would depend on whether 99 or 100 messages succeeded.
"""

from __future__ import annotations

MIN_SECONDS = 2.0
_LEAST_SHARE = 0.95  # of them: `--duration 2` ends with its last message, maybe a little earlier
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
    """Whether a run is too short, or has too few successes, to be a measurement."""
    return (seconds or 0.0) < MIN_SECONDS * _LEAST_SHARE or (messages or 0) < MIN_MESSAGES


def beyond(name: str, count: float) -> int:
    """Return how many of `count` values lie beyond the percentile `p50`, `p90`, …, `p999`.

    Raises:
        KeyError: it is no percentile.
    """
    return int(count) * _BEYOND[name] // 1000


def needed(name: str) -> int:
    """Return how many values a percentile needs in order not to be rough.

    Raises:
        KeyError: it is no percentile.
    """
    return MIN_BEYOND * 1000 // _BEYOND[name]


def is_rough(name: str, count: float | None) -> bool:
    """Return whether the figure is a percentile with fewer than ten of `count` values beyond it."""
    return name in _BEYOND and bool(count) and beyond(name, count or 0) < MIN_BEYOND


def rough(count: float) -> list[str]:
    """Return the names of the rough percentiles."""
    return [f"{name}_seconds" for name in _BEYOND if is_rough(name, count)]
