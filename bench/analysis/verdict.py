"""The verdict on a figure, from the interval of its change. Pure values."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.analysis.confidence import Interval


class Verdict(StrEnum):
    """A verdict on a figure, or on a whole comparison."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"  # of a figure that is neither good nor bad
    NO_DIFFERENCE = "no difference shown"
    CANNOT_TELL = "cannot tell"
    MIXED = "better and worse"  # of a whole comparison only


def judged(found: Interval | None, is_higher_better: bool | None, min_change: float) -> Verdict:
    """Return the verdict that the interval shows; a change must lie wholly beyond `min_change`."""
    if found is None:
        return Verdict.CANNOT_TELL
    is_higher = found.low > 1 + min_change
    if not is_higher and not found.high < 1 - min_change:
        return Verdict.NO_DIFFERENCE
    if is_higher_better is None:
        return Verdict.DIFFERENT
    return Verdict.BETTER if is_higher is is_higher_better else Verdict.WORSE


def joined(verdicts: set[Verdict]) -> Verdict | None:
    """Return several verdicts joined into one; None if none of them is better or worse."""
    if {Verdict.BETTER, Verdict.WORSE} <= verdicts:
        return Verdict.MIXED
    return next((one for one in (Verdict.BETTER, Verdict.WORSE) if one in verdicts), None)
