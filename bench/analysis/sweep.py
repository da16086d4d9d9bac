"""A sweep: runs with a rising load, and the load beyond which more stops paying off. Pure values.

The knee is the load of greatest power, throughput over mean latency (L. Kleinrock, "Power and
deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979).
Beyond it a higher load costs more in latency than it brings in throughput. It needs no threshold,
and it does not depend on the units of load and time.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from bench.analysis import documents
from bench.analysis.documents import SCHEMA_VERSION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.analysis.documents import Document

MIN_STEPS = 3  # a greatest value with one on either side
MAX_STEPS = 50
MIN_SUCCESS = 0.95  # of those attempted, and of those planned
_EXPLOSION = 10.0  # times the least p95 of the sweep …
_NO_GAIN = 1.1  # … while throughput is less than so many times the best before

_POWER = "power (throughput divided by mean latency)"
_NUMBER = r"(\d{1,9}(?:\.\d{1,6})?)"
_RANGE = re.compile(rf"{_NUMBER}\.\.{_NUMBER}", re.ASCII)
_LISTED = re.compile(rf"{_NUMBER}(?:,{_NUMBER})*", re.ASCII)


class Parameter(StrEnum):
    """The parameter that rises from step to step."""

    CONCURRENT = "concurrent"
    ARRIVAL_RATE = "arrival_rate_per_second"


@dataclass(frozen=True, slots=True)
class StepFigures:
    """One step's load and the figures from which the knee is found."""

    load: float
    throughput_per_second: float | None  # None: nothing succeeded
    mean_seconds: float | None  # latency; None likewise
    p95_seconds: float | None
    success_rate: float  # of the messages planned, those dropped included

    @property
    def power(self) -> float:
        """Throughput for each second of mean latency; 0 if no message succeeded."""
        if not self.throughput_per_second or not self.mean_seconds:
            return 0.0
        return self.throughput_per_second / self.mean_seconds


@dataclass(frozen=True, slots=True)
class Knee:
    """The load beyond which more does not pay off; None if the steps do not show it."""

    load: float | None
    reason: str


def loads(text: str, count: int | None = None) -> list[float]:
    """Return the loads of `1,2,4,8` or of `50..800`: doubling, or `count` loads evenly spread.

    Raises:
        ValueError: the text is neither, the loads do not rise, or there are too many.
    """
    text = text.strip()
    match = _RANGE.fullmatch(text)
    if match is not None:
        found = _range(float(match[1]), float(match[2]), count)
    elif count is not None:
        raise ValueError(f"{text!r} is not a range, which a number of steps requires.")
    elif _LISTED.fullmatch(text):
        found = [float(word) for word in text.split(",")]
    else:
        raise ValueError(f"{text!r} is neither a list like 1,2,4,8 nor a range like 50..800.")
    if any(later <= earlier for earlier, later in pairwise(found)):
        raise ValueError(f"{text!r} does not rise from step to step.")
    if not found or found[0] <= 0:
        raise ValueError(f"{text!r} does not begin above 0.")
    if len(found) > MAX_STEPS:
        raise ValueError(f"{text!r} has more than {MAX_STEPS} steps.")
    return found


def figures(load: float, run: Document) -> StepFigures:
    """Return a step's figures, read from the document of its run."""
    return StepFigures(
        load,
        documents.number(run, "results.throughput_rps"),
        documents.number(run, "results.latency.avg_seconds"),
        documents.number(run, "results.latency.p95_seconds"),
        documents.number(run, "results.success_rate") or 0.0,
    )


def is_partial(run: Document) -> bool:
    """Return whether a step's run ended early."""
    return documents.value(run, "partial") is True


def reason_to_stop(steps: Sequence[StepFigures]) -> str:
    """Return why no higher load is worth trying after these steps; "" if one is."""
    last = steps[-1]
    if last.success_rate < MIN_SUCCESS:
        # Rounded down, so a rate below the limit does not look as if it met the limit.
        share = math.floor(last.success_rate * 1000) / 10
        return f"At a load of {last.load:g} only {share:g} % of the messages succeeded."
    least = min((step.p95_seconds for step in steps if step.p95_seconds), default=None)
    best = max((step.throughput_per_second or 0.0 for step in steps[:-1]), default=0.0)
    if not least or not best or not last.p95_seconds or not last.throughput_per_second:
        return ""
    if last.p95_seconds > _EXPLOSION * least and last.throughput_per_second < _NO_GAIN * best:
        return (
            f"At a load of {last.load:g} p95 was {last.p95_seconds / least:.0f} times the least "
            "of the sweep, and throughput grew by less than a tenth."
        )
    return ""


def knee(steps: Sequence[StepFigures], least: float = 0.0) -> Knee:
    """Return the load of greatest power; the lowest if there are several.

    `least` is the lowest possible load; 0 for none.
    Steps in which messages failed do not count: a refusal is quick and would lower the latency.
    """
    sound = [step for step in steps if step.success_rate >= MIN_SUCCESS and step.power > 0]
    if len(sound) < MIN_STEPS:
        return Knee(None, f"It takes {MIN_STEPS} steps that succeed to find one.")
    best = max(sound, key=lambda step: step.power)
    if best is sound[-1] and best is steps[-1]:
        return Knee(
            None,
            f"The knee is above {best.load:g}, the highest load tried: {_POWER} was still growing "
            "there; try higher ones.",
        )
    if best is sound[0]:
        return Knee(None, _below(best.load, least))
    return Knee(
        best.load,
        f"There {_POWER} was greatest: beyond {best.load:g} a higher load costs more latency than "
        "it brings throughput.",
    )


def _below(load: float, least: float) -> str:
    if load <= least:
        return (
            f"The knee is at {load:g}, the lowest load there is: already the next one cost more "
            "latency than it brought throughput."
        )
    return f"The knee is at or below {load:g}, the lowest load tried: try lower ones."


def document(
    target: str,
    parameter: Parameter,
    steps: Sequence[tuple[float, Document]],
    *,
    interrupted_by: str = "",
    stopped_because: str = "",
) -> dict[str, object]:
    """Return the document of a sweep of at least one step.

    A step that ended early is listed but does not count for the knee.
    """
    least = 1.0 if parameter is Parameter.CONCURRENT else 0.0
    whole = [step for step in steps if not is_partial(step[1])]
    found = knee([figures(load, run) for load, run in whole], least)
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "sweep",
        "timestamp": documents.text(steps[0][1], "timestamp"),
        "target": target,
        "parameter": parameter.value,
        "partial": bool(interrupted_by) or len(whole) < len(steps),
        "interrupted_by": interrupted_by or None,
        "stopped_because": stopped_because or None,
        "steps": [{"load": load, "run": run} for load, run in steps],
        "knee": {"load": found.load, "reason": found.reason},
    }


def _range(first: float, last: float, count: int | None) -> list[float]:
    if not 0 < first < last:
        raise ValueError(f"{first:g}..{last:g} does not rise from above 0.")
    if count is not None:
        return [round(first + (last - first) * step / (count - 1), 6) for step in range(count)]
    found = [first]
    while found[-1] * 2 < last and len(found) <= MAX_STEPS:
        found.append(found[-1] * 2)
    return [*found, last]
