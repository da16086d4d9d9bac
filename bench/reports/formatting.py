"""Formats numbers with three significant digits and a unit; a dash for no value."""

from __future__ import annotations

import math
import unicodedata
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bench.analysis import sample_size
from bench.analysis.assertions import Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOTHING = "–"
ABOUT = "~"  # before a percentile with few values beyond it
PERCENTILES = ("p50", "p90", "p95", "p99", "p999")
_GAP = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line
# Control characters, surrogates, line separators and bidirectional overrides.
_HARMFUL = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


# The unit of an asserted figure, for `in_unit`.
UNITS = {
    Measure.COUNT: "messages",
    Measure.TIME: "seconds",
    Measure.SHARE: "share",
    Measure.RATE: "per_second",
}


def in_unit(number: float | None, unit: str) -> str:
    """Return a number with its unit: seconds, per_second, share or messages."""
    if unit == "per_second":
        return NOTHING if number is None else f"{rate(number)}/s"
    return {"seconds": duration, "share": percent, "messages": count}[unit](number)


def duration(seconds: float | None) -> str:
    """Return a duration in the unit that suits its size."""
    if seconds is None:
        return NOTHING
    if seconds >= 100:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return (
            f"{hours}{_GAP}h {minutes}{_GAP}min" if hours else f"{minutes}{_GAP}min {rest}{_GAP}s"
        )
    # A value that rounds up to 1,000 of a unit is 1 of the next.
    if seconds >= 0.9995:
        return f"{_significant(seconds)}{_GAP}s"
    if seconds >= 0.0009995:
        return f"{_significant(seconds * 1e3)}{_GAP}ms"
    return f"{_significant(seconds * 1e6)}{_GAP}µs" if seconds else f"0{_GAP}s"


def figure(distribution: Mapping[str, Any], name: str) -> str:
    """Return the figure `p99`, `max` … of a distribution, marked if it is rough."""
    shown = duration(distribution[f"{name}_seconds"])
    return f"{mark(distribution, name)}{shown}"


def mark(distribution: Mapping[str, Any], name: str) -> str:
    """Return the sign before a figure of a distribution; "" if it needs none."""
    return ABOUT if sample_size.is_rough(name, distribution["count"]) else ""


def note(distributions: Iterable[Mapping[str, Any]], names: Iterable[str] = PERCENTILES) -> str:
    """Return the explanation of the mark; "" if none of these figures has it."""
    of_all = tuple(names)
    is_marked = any(mark(one, name) for one in distributions for name in of_all)
    return f"{ABOUT} {sample_size.ROUGH}." if is_marked else ""


def breakable(shown: object) -> Markup:
    """Return a value for a narrow page: an address may break after its `@`."""
    return Markup("@<wbr>").join(str(shown).split("@"))


def messages(number: int) -> str:
    """Return a number of messages."""
    return f"{count(number)} message{'' if number == 1 else 's'}"


def harmless(text: str, *, keeps_lines: bool = False) -> str:
    """Return a document's text for a terminal, with control characters escaped."""
    return "".join(
        one.encode("unicode_escape").decode()
        if _is_harmful(one) and not (keeps_lines and one == "\n")
        else one
        for one in text
    )


def _is_harmful(character: str) -> bool:
    return (
        unicodedata.category(character) in _HARMFUL
        or unicodedata.bidirectional(character) in _TURNING
    )


def tick(seconds: float) -> str:
    """Return a round duration without rounding."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 0.9999 or unit == "µs":
            return f"{plain(seconds * factor)}{_GAP}{unit}" if seconds else "0"
    raise AssertionError("the last unit takes everything")


def count(number: float | None) -> str:
    """Return a whole number."""
    return NOTHING if number is None else f"{round(number):,}"


def rate(per_second: float | None) -> str:
    """Return a rate per second, without its unit."""
    return NOTHING if per_second is None else _significant(per_second)


def percent(share: float | None) -> str:
    """Return a share in percent, rounded; 100 % and 0 % only for exactly all and none."""
    if share is None:
        return NOTHING
    if share in (0, 1):
        return f"{share * 100:.0f}{_GAP}%"
    return f"{min(max(share * 100, 0.01), 99.99):.2f}{_GAP}%"


def change(relative: float | None) -> str:
    """Return a relative change in percent, with its sign."""
    if relative is None:
        return NOTHING
    return _signed(f"{relative * 100:+,.1f}")


def change_tick(factor: float) -> str:
    """Return a round factor as a relative change."""
    return _signed(f"{(factor - 1) * 100:+.4g}")


def plain(number: float) -> str:
    """Return a number without insignificant digits."""
    return f"{number:,.10g}" if abs(number) < 1e10 else f"{number:.3g}"


def _signed(number: str) -> str:
    is_zero = float(number.replace(",", "")) == 0
    shown = number[1:] if is_zero else number.replace("-", "\N{MINUS SIGN}")
    return f"{shown}{_GAP}%"


def _significant(number: float) -> str:
    if number == 0:
        return "0"
    digits = 2 - math.floor(math.log10(abs(float(f"{number:.3g}"))))
    return f"{number:,.{max(0, digits)}f}"
