"""Assertions about a run, such as `p95<=500ms`: parses them and checks them against its document.

Grammar: a name, an operator (<= >= < > == !=), a number and a unit, with optional blanks between
them. A time needs a unit; a share is a number from 0 to 1 or a percentage.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, NoReturn

from bench.analysis import sample_size
from bench.analysis.documents import number, part, rows
from bench.measurement.sample import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.analysis.documents import Document


class Measure(Enum):
    """The kind of number that a figure is; it determines how a limit is written."""

    COUNT = "a whole number without a unit"
    TIME = "a time with its unit: ms, s or us"
    SHARE = "0 to 1, or 0% to 100%"
    RATE = "a number per second, or with /s or /min"


_FIGURES: dict[str, tuple[Measure, str]] = {
    "success": (Measure.SHARE, "results.success_rate"),
    "failed": (Measure.COUNT, "results.failed"),
    "lost": (Measure.COUNT, "reconciliation.lost"),
    "duplicated": (Measure.COUNT, "reconciliation.duplicated"),
    "corrupted": (Measure.COUNT, "reconciliation.corrupted"),
    "unexpected": (Measure.COUNT, "reconciliation.unexpected"),
    "dropped": (Measure.COUNT, "results.dropped"),
    "not_attempted": (Measure.COUNT, "results.not_attempted"),
    "late": (Measure.COUNT, "results.late_starts"),
    "p50": (Measure.TIME, "results.latency.p50_seconds"),
    "p90": (Measure.TIME, "results.latency.p90_seconds"),
    "p95": (Measure.TIME, "results.latency.p95_seconds"),
    "p99": (Measure.TIME, "results.latency.p99_seconds"),
    "p999": (Measure.TIME, "results.latency.p999_seconds"),
    "mean": (Measure.TIME, "results.latency.avg_seconds"),
    "max": (Measure.TIME, "results.latency.max_seconds"),
    "min": (Measure.TIME, "results.latency.min_seconds"),
    "throughput": (Measure.RATE, "results.throughput_rps"),
    "connections": (Measure.COUNT, "provider.connections_opened"),
    "token_requests": (Measure.COUNT, "provider.token_requests"),
    "auth_refused": (Measure.COUNT, "provider.auth_refused"),
}
_ERRORS = "errors."
NAMES = (*_FIGURES, f"{_ERRORS}CODE")

# What each name stands for.
PRESETS = {"@default": ("success>=95%", "p95<=500ms", "mean<=200ms")}

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
# Factors to the document's unit. Fractions make 500ms exactly equal to half a second.
_UNITS: dict[Measure, dict[str, Fraction]] = {
    Measure.COUNT: {"": Fraction(1)},
    Measure.TIME: {"s": Fraction(1), "ms": Fraction(1, 10**3), "us": Fraction(1, 10**6)},
    Measure.SHARE: {"": Fraction(1), "%": Fraction(1, 100)},
    Measure.RATE: {"": Fraction(1), "/s": Fraction(1), "/min": Fraction(1, 60)},
}
_NAME = re.compile(r"errors\.[A-Za-z0-9-]+|[A-Za-z_][A-Za-z0-9_.]*")
_OPERATOR = re.compile("|".join(_OPERATORS))
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_UNIT = re.compile(r"[^\s]*")
_BLANKS = re.compile(r"\s*")


@dataclass(frozen=True, slots=True)
class Assertion:
    """A parsed expression."""

    expression: str  # as it was written
    name: str
    measure: Measure
    operator: str
    limit: float  # in the document's unit: seconds, per second, 0 to 1, or a count


class _Reader:
    """Reads the parts of an expression from left to right."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self.position = 0

    def take(self, pattern: re.Pattern[str], wanted: str) -> str:
        blanks = _BLANKS.match(self._expression, self.position)
        self.position = blanks.end() if blanks else self.position
        match = pattern.match(self._expression, self.position)
        if match is None:
            self.fail(f"{wanted} is expected here", self.position)
        self.position = match.end()
        return match[0]

    def fail(self, reason: str, position: int) -> NoReturn:
        raise ValueError(
            f"{self._expression!r}, character {position + 1}: {reason}. "
            f"An assertion is a name, an operator ({' '.join(_OPERATORS)}) and a number with its "
            f"unit, as p95<=500ms. The names: {', '.join(NAMES)}."
        )


def expanded(expressions: Sequence[str]) -> list[str]:
    """Return the expressions, with each preset's in its place.

    Raises:
        ValueError: there is no preset of that name.
    """
    found: list[str] = []
    for one in expressions:
        if one.startswith("@") and one not in PRESETS:
            raise ValueError(f"there is no preset {one!r}; there is {', '.join(PRESETS)}.")
        found += PRESETS.get(one, (one,))
    return found


def parse(expression: str) -> Assertion:
    """Return the assertion that the expression states.

    Raises:
        ValueError: it is invalid; the text says where, and lists the valid names.
    """
    reader = _Reader(expression)
    name = reader.take(_NAME, "a name")
    if name not in _FIGURES and not re.fullmatch(r"errors\.[A-Za-z0-9-]+", name):
        reader.fail(f"{name!r} is not the name of a figure", reader.position - len(name))
    measure = _measure(name)
    symbol = reader.take(_OPERATOR, "an operator")
    digits = reader.take(_NUMBER, f"a number ({measure.value})")
    at_number = reader.position - len(digits)
    unit = reader.take(_UNIT, "a unit")
    factor = _UNITS[measure].get(unit)
    if factor is None:
        reader.fail(f"{name} is {measure.value}, not {digits + unit!r}", at_number)
    limit = Fraction(digits) * factor
    if measure is Measure.COUNT and limit.denominator != 1:
        reader.fail(f"{name} is {measure.value}, not {digits!r}", at_number)
    if measure is Measure.SHARE and limit > 1:
        reader.fail(f"{name} is {measure.value}, not {digits + unit!r}", at_number)
    if expression[reader.position :].strip():
        reader.fail("nothing is expected after the unit", reader.position)
    return Assertion(expression, name, measure, symbol, float(limit))


def missing(name: str) -> str:
    """Return why a run may not have the figure."""
    path = "errors" if name.startswith(_ERRORS) else _FIGURES[name][1]
    if path.startswith("reconciliation."):
        return "nothing was reconciled with a sandbox"
    if path.startswith("provider."):
        return "there was no sandbox, or it gave no answer"
    if path == "errors":
        return "there were too many kinds of errors to tell them apart"
    return "no message gave such a figure"


def check(document: Document, expressions: Iterable[str]) -> list[dict[str, object]]:
    """Return the run's value for each expression and whether it is met, in the document's form.

    A figure that the run does not have (null) fails every assertion, even `!=`. A percentile of too
    few messages is still checked against its limit, with a caution.

    Raises:
        ValueError: an expression is invalid; all are parsed before any is checked.
        DocumentError: it is not the document of a run.
    """
    assertions = [parse(expression) for expression in expressions]
    checked: list[dict[str, object]] = []
    for assertion in assertions:
        value = _value(document, assertion.name)
        is_met = value is not None and _OPERATORS[assertion.operator](value, assertion.limit)
        checked.append(
            {
                "expression": assertion.expression,
                "value": value,
                "is_met": is_met,
                "caution": _caution(document, assertion.name),
            }
        )
    return checked


def _measure(name: str) -> Measure:
    return Measure.COUNT if name.startswith(_ERRORS) else _FIGURES[name][0]


def _caution(document: Document, name: str) -> str | None:
    """Return why the figure is unreliable; None if it is not."""
    if name not in _FIGURES or not _FIGURES[name][1].startswith("results.latency."):
        return None
    count = part(document, "results.latency").get("count")
    if not isinstance(count, int) or not sample_size.is_rough(name, count):
        return None
    return (
        f"too few messages for a {name}: {count} succeeded, "
        f"{sample_size.beyond(name, count)} of them beyond it; it takes "
        f"{sample_size.needed(name)} to rest on {sample_size.MIN_BEYOND}"
    )


def _value(document: Document, name: str) -> float | None:
    if not name.startswith(_ERRORS):
        return number(document, _FIGURES[name][1])
    counts: dict[str, float] = {}
    for row in rows(document, "errors"):
        code = str(row.get("code")).replace(" ", "-")
        counts[code] = counts.get(code, 0) + (number(row, "count") or 0)
    code = name.removeprefix(_ERRORS)
    # Beyond a number of kinds, failures are counted together: this code's count is unknown.
    if code != OTHER and counts.get(OTHER):
        return None
    return counts.get(code, 0)
