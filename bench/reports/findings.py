"""The findings of a run: sentences that interpret its figures, the most serious first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis import assertions, sample_size
from bench.reports import formatting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BAD, ATTENTION, GOOD = "bad", "attention", "good"
_OPENED_BEFORE = "The connections were opened in the warm-up, which the phases leave out."
SIGNS = {BAD: "✕", ATTENTION: "!", GOOD: "✓"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence and its level."""

    level: str  # bad, attention or good
    sentence: str

    @property
    def sign(self) -> str:
        """A sign for the level, which does not depend on colour."""
        return SIGNS[self.level]


def findings(document: Mapping[str, Any]) -> list[Finding]:
    """Return the findings of a run, the most serious first; at least one."""
    found = [
        *_integrity(document["reconciliation"], document["reconciliation_not_checked_because"]),
        *_assertions(document["assertions"]),
        *_sending(document),
        *_sign_in(document.get("sign_in")),
        *_generator(document["generator"]),
    ]
    order = (BAD, ATTENTION, GOOD)
    return sorted(found, key=lambda finding: order.index(finding.level))


def unexpected(count: int) -> str:
    """Return the explanation of messages that arrived without an acknowledgement."""
    return (
        f"{formatting.messages(count)} arrived although the client was told of a failure, or "
        "nothing: sent again, as clients do, they arrive twice."
    )


def short(count: int, seconds: float) -> str:
    """Return the note on a run that is too short to be a measurement."""
    return (
        f"{formatting.messages(count)} in {formatting.duration(seconds)} show that it works, not "
        f"how fast it is: {sample_size.ADVICE}."
    )


def opened_before(document: Mapping[str, Any]) -> str:
    """Return the note that the warm-up opened the connections; "" if it did not."""
    results, warmup = document["results"], document["warmup"]
    is_so = (
        results["successful"] and warmup["requests"] and not results["phases"]["connect"]["count"]
    )
    return _OPENED_BEFORE if is_so else ""


def opened(connections: int, transactions: int) -> str:
    """Return the number of connections opened at the provider, in words."""
    if not connections and transactions:
        return "none opened: existing ones were used"
    return f"{formatting.count(connections)} opened"


def logins(accepted: int, transactions: int) -> str:
    """Return the number of logins that the provider accepted, in words."""
    if not accepted and transactions:
        return "none needed"
    return f"{formatting.count(accepted)} accepted"


def measured(checked: Mapping[str, Any]) -> str:
    """Return the value that an assertion was checked against, or why there is none."""
    assertion = assertions.parse(checked["expression"])
    if checked["value"] is not None:
        return formatting.in_unit(checked["value"], formatting.UNITS[assertion.measure])
    return f"not known: {assertions.missing(assertion.name)}"


def bottleneck(generator: Mapping[str, Any]) -> str:
    """Return which limit the generator reached, what that means, and the remedy."""
    advice = generator.get("advice")
    return (
        f"The generator was the bottleneck, not the target: {generator['reason']}. The target "
        f"may be faster than shown.{f' {advice}' if advice else ''}"
    )


def _integrity(reconciliation: Mapping[str, Any] | None, reason: str | None) -> Iterator[Finding]:
    if reconciliation is None:
        yield Finding(ATTENTION, f"Whether mail was lost was not checked: {reason}.")
        return
    consequences = {
        "lost": "acknowledged and never arrived",
        "duplicated": "arrived more than once",
        "corrupted": "arrived with other octets than were sent",
    }
    is_clean = True
    for name, consequence in consequences.items():
        if reconciliation[name]:
            is_clean = False
            yield Finding(BAD, f"{formatting.messages(reconciliation[name])} {consequence}.")
    if reconciliation["unexpected"]:
        yield Finding(ATTENTION, unexpected(reconciliation["unexpected"]))
    if is_clean and reconciliation["acknowledged"]:
        sentence = "Every acknowledged message arrived exactly once and unchanged."
        yield Finding(GOOD, sentence)


def _assertions(assertions: list[Mapping[str, Any]]) -> Iterator[Finding]:
    missed = [one["expression"] for one in assertions if not one["is_met"]]
    if missed:
        yield Finding(BAD, f"Not met: {', '.join(missed)}.")
    elif assertions:
        yield Finding(GOOD, "Every assertion is met.")


def _sending(document: Mapping[str, Any]) -> Iterator[Finding]:
    results = document["results"]
    if document["partial"]:
        by = document["interrupted_by"]
        yield Finding(ATTENTION, f"The run ended early{f' ({by})' if by else ''}.")
    if not results["total_requests"]:
        yield Finding(BAD, "No message was sent.")
    elif not results["successful"]:
        yield Finding(BAD, "No message succeeded.")
    elif results["failed"]:
        share = formatting.percent(results["failed"] / results["total_requests"])
        yield Finding(ATTENTION, f"{formatting.messages(results['failed'])} failed ({share}).")
    elif not results["dropped"] and not document["partial"]:
        yield Finding(
            GOOD, f"All {formatting.count(results['successful'])} messages were accepted."
        )
    if results["successful"] and sample_size.is_short(
        results["total_time_seconds"], results["successful"]
    ):
        yield Finding(ATTENTION, short(results["successful"], results["total_time_seconds"]))
    if results["dropped"]:
        yield Finding(
            ATTENTION,
            f"{formatting.messages(results['dropped'])} had no free connection at their time and "
            "were not sent: the target did not keep up with the rate asked for.",
        )


def _sign_in(users: Mapping[str, Any] | None) -> Iterator[Finding]:
    if users and users["signed_in"] < users["wanted"]:
        missing = users["wanted"] - users["signed_in"]
        yield Finding(
            ATTENTION, f"{missing} of {users['wanted']} users could not sign in; they sent nothing."
        )


def _generator(generator: Mapping[str, Any]) -> Iterator[Finding]:
    if generator["was_bottleneck"]:
        yield Finding(ATTENTION, bottleneck(generator))
