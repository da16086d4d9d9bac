"""What can be sent: the named scenarios, and the plan of one run. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

COMPARE = "compare"
CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named amount of mail, so that two runs can be compared."""

    name: str
    title: str
    num_emails: int  # a run; `compare` has two
    concurrent: int
    purpose: str


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("quick", "Quick Validation", 100, 10, "does it work at all?"),
        Scenario("baseline", "Performance Baseline", 500, 25, "the figure to compare with"),
        Scenario("moderate", "Moderate Load", 1000, 50, "an ordinary busy hour"),
        Scenario("stress", "Stress Test", 2000, 100, "where do latencies begin to rise?"),
        Scenario("sustained", "Sustained Load", 5000, 50, "does it stay as fast?"),
        Scenario("peak", "Peak Load", 10000, 150, "the most connections at once"),
        Scenario(COMPARE, "Before and After", 500, 25, "two runs, a pause to change something"),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one run sends."""

    scenario: str  # a name of `SCENARIOS`, or `custom`
    num_emails: int
    concurrent: int  # connections, each with one message in flight
    mailboxes: tuple[str, ...]  # logins and reverse-paths, dealt to the connections in turn
    to_email: str
    size_bytes: int  # of each message; its header fields are the least
    drain_seconds: float  # how long a send in flight may go on after a request to stop
