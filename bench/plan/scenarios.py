"""The named scenarios and the plan of one run. Pure values."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - a dataclass field's type
from dataclasses import dataclass, field

from bench.plan.arrivals import Pace  # noqa: TC001 - a dataclass field's type
from bench.plan.workloads import REPLY_SECONDS, Workload

COMPARE = "compare"
COMPARED_RUNS = 5  # on each side: two runs of the same relay differ
CUSTOM = "custom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A named load, which makes runs comparable; `compare` measures it before and after a pause."""

    name: str
    title: str
    purpose: str
    concurrent: int
    num_emails: int | None = None  # exactly one of this and the next is given
    duration_seconds: float | None = None
    arrival_rate: float | None = None  # messages a second; None: the closed model
    connection: str = "kept"
    sizes: str | None = None  # None: 4 kB
    recipients: str = "1"
    token_ttl_seconds: float | None = None  # None: an hour
    idle_clients: int = 0
    # Settings of a sandbox: the scenario starts its own proxy and provider, with mailboxes that log
    # in with passwords. None: it suits any relay.
    provider: Mapping[str, object] | None = field(default=None, hash=False)
    limits: Mapping[str, object] = field(default_factory=dict, hash=False)  # of that proxy
    accounts: int | None = None  # mailboxes to create; None: existing ones

    @property
    def amount(self) -> str:
        """A description of the amount."""
        times = f"2 × {COMPARED_RUNS} × " if self.name == COMPARE else ""
        if self.num_emails is not None:
            return f"{times}{self.num_emails}"
        return f"{self.arrival_rate:g}/s, {self.duration_seconds:g} s"


def _closed(name: str, title: str, num_emails: int, concurrent: int, purpose: str) -> Scenario:
    return Scenario(
        name=name, title=title, num_emails=num_emails, concurrent=concurrent, purpose=purpose
    )


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        _closed("quick", "Quick Validation", 100, 10, "does it work?"),
        _closed("baseline", "Performance Baseline", 500, 25, "a figure to compare with"),
        _closed("moderate", "Moderate Load", 1000, 50, "a busy hour"),
        _closed("stress", "Stress Test", 2000, 100, "when does latency rise?"),
        _closed("sustained", "Sustained Load", 5000, 50, "does it stay fast?"),
        _closed("peak", "Peak Load", 10000, 150, "the most connections at once"),
        Scenario(
            name="open",
            title="Open Model",
            purpose="mail arrives at a fixed rate",
            arrival_rate=200,
            duration_seconds=30,
            concurrent=50,
        ),
        Scenario(
            name="churn",
            title="Connection Churn",
            purpose="a login for each message",
            num_emails=1000,
            concurrent=25,
            connection="per-message",
        ),
        Scenario(
            name="storm",
            title="Token Storm",
            purpose="tokens expire after 2 s",
            arrival_rate=200,
            duration_seconds=15,
            concurrent=50,
            connection="per-message",
            token_ttl_seconds=2,
            accounts=50,
            provider={},
            limits={"max_messages_per_connection": 10},  # makes the relay log in again as well
        ),
        Scenario(
            name="crowd",
            title="Idle Crowd",
            purpose="500 idle clients alongside",
            num_emails=1000,
            concurrent=25,
            idle_clients=500,
        ),
        Scenario(
            name="sizes",
            title="Mixed Sizes",
            purpose="4 kB to 1 MB",
            num_emails=500,
            concurrent=25,
            sizes="4k:70,100k:25,1m:5",
        ),
        Scenario(
            name="mixed",
            title="Mixed Mail",
            purpose="sizes, recipients, providers",
            num_emails=500,
            concurrent=25,
            connection="20",
            sizes="4k:70,100k:25,1m:5",
            recipients="1-5",
        ),
        Scenario(
            name="reuse",
            title="Connection Reuse",
            purpose="20 messages a login",
            num_emails=1000,
            concurrent=25,
            connection="20",
        ),
        Scenario(
            name="users",
            title="Fifty Users",
            purpose="50 mailboxes, 10 messages each on average",
            num_emails=500,
            concurrent=50,
            accounts=50,
        ),
        _closed(COMPARE, "Before and After", 500, 25, "did a change help?"),
    )
}


OTHER_NAMES = {"refresh-storm": "storm"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """The plan of one run."""

    scenario: str  # a name of `SCENARIOS`, or `custom`
    pace: Pace
    concurrent: int  # maximum number of connections, each with one message in flight
    workload: Workload = Workload()  # noqa: RUF009 - frozen
    mailboxes: tuple[str, ...]  # logins and reverse paths, assigned to the connections in turn
    to_email: str
    # The time for messages in flight after a request to stop or the end of a duration.
    drain_seconds: float
    reply_seconds: float = REPLY_SECONDS  # the longest wait for a reply or a connection
    processes: int = 1
