"""The overall verdict of a comparison: a few figures, named in advance and decided together.

Among many figures, one soon differs by chance: if each of seven decided at its own 95 %, up to one
in three comparisons of a relay with itself would show a difference and fail a build. So the
headline and the exit code rest on two or three figures named before anything is measured: the
relay's speed (throughput in the closed model; p95 latency in the open model, where throughput is
given), the share of messages that succeed, and, in the open model, the number that the relay could
not take in time. Latencies of the closed model are left out, because there the mean follows from
throughput (Little's law).

Together they err in at most 5 of 100 comparisons of equal sides, by Holm's procedure (S. Holm, "A
simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6,
1979); each step uses the interval of `bench.analysis.confidence` at the confidence it needs. With
all figures in this procedure each would need 99.3 %, which takes six runs a side, and most of the
power would go to figures that follow from each other.

A figure that is the same in every run, such as a success rate of 100 %, cannot differ and needs no
share of the error (R. E. Tarone, "A modified Bonferroni method for discrete data", Biometrics 46,
1990). Hence four runs a side decide if no message fails, and five otherwise. Fewer runs decide
nothing. Mail lost, duplicated or changed, or a side that sent nothing, is not decided here: these
are facts, not estimates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analysis import confidence
from bench.analysis.verdict import Verdict, judged

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSED = ("throughput", "success")
OPEN = ("p95", "success", "dropped")
_ERROR = 1 - confidence.WANTED  # of all together
_DECIDED = frozenset({Verdict.BETTER, Verdict.WORSE})


@dataclass(frozen=True, slots=True)
class Question:
    """A figure that decides, with its value in every run; None if a run does not have it."""

    title: str
    first: Sequence[float | None]
    second: Sequence[float | None]
    is_higher_better: bool | None

    @property
    def is_open(self) -> bool:
        """Whether it differs between any two runs; otherwise there is nothing to decide."""
        return len({*self.first, *self.second}) > 1

    def reaches(self, wanted: float) -> bool:
        """Whether the number of runs suffices to decide it with this confidence."""
        first, second = (known(side) for side in (self.first, self.second))
        return confidence.reach(len(first), len(second)) >= wanted

    def answer(self, wanted: float, min_change: float) -> Verdict:
        """Return the verdict at this confidence."""
        if not self.reaches(wanted):
            return Verdict.CANNOT_TELL
        found = confidence.interval(known(self.first), known(self.second), wanted)
        return judged(found, self.is_higher_better, min_change)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdicts reached, and why there are no more."""

    answers: dict[str, Verdict]  # by title: better or worse
    is_decidable: bool  # there were enough runs to show an existing difference
    reason: str  # a sentence


def decide(questions: Sequence[Question], min_change: float) -> Decision:
    """Return the decision that the figures allow together."""
    answers: dict[str, Verdict] = {}
    left = [question for question in questions if question.is_open]
    while left:
        wanted = 1 - _ERROR / len(left)
        said = {question.title: question.answer(wanted, min_change) for question in left}
        found = {title: verdict for title, verdict in said.items() if verdict in _DECIDED}
        if not found:
            break
        answers |= found
        left = [question for question in left if question.title not in found]
    if answers:
        shown = ", ".join(f"{title} is {verdict}" for title, verdict in answers.items())
        return Decision(answers, True, f"{shown}; {_sureness()}.")
    return _undecided(questions, left)


def known(values: Sequence[float | None]) -> list[float]:
    """Return those that there are."""
    return [one for one in values if one is not None]


def _undecided(questions: Sequence[Question], left: Sequence[Question]) -> Decision:
    wanted = 1 - _ERROR / max(1, len(left))
    # If all are the same in every run, the number of runs alone decides if that is conclusive.
    dumb = [question for question in left or questions if not question.reaches(wanted)]
    if not dumb:
        titles = ", ".join(question.title for question in questions)
        return Decision({}, True, f"{titles}: nothing beyond chance; {_sureness()}.")
    counts = [len(known(side)) for side in (dumb[0].first, dumb[0].second)]
    runs = [len(side) for side in (dumb[0].first, dumb[0].second)]
    what = "" if counts == runs else f" with a {dumb[0].title}"
    return Decision(
        {},
        False,
        f"Too few runs{what} to decide: {counts[0]} against {counts[1]}. Measure each side at "
        f"least {confidence.runs_needed(wanted)} times, the sides in turn.",
    )


def _sureness() -> str:
    return f"{confidence.WANTED * 100:g} % confidence for all that decides, together"
