"""What a run measured, as values that cannot contradict themselves.

I1: planned = succeeded + failed + not attempted, and the errors listed are the failures counted.
I2: a figure is computed here, once; the screen and the JSON only write it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from bench.scenarios import Plan

_CLOCK_SECONDS = 1e-9  # what time.perf_counter can tell apart at best
OTHER = "other"  # the failures beyond the kinds that are told apart


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message failed: the server's reply code, or the kind of error, and its words."""

    code: str  # "550", "timeout", "connection refused" …
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What became of one message, and what it took."""

    number: int
    latency_seconds: float  # from taking the message up to its end, opening a connection included
    failure: Failure | None = None
    connect_seconds: float | None = None  # None: the connection was open already
    auth_seconds: float | None = None  # None: likewise
    transaction_seconds: float | None = None  # None: there was no positive final reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A distribution in seconds; all but `count` are None when nothing was measured."""

    count: int
    min_seconds: float | None = None
    max_seconds: float | None = None
    avg_seconds: float | None = None
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Where the time goes."""

    connect: Latency  # TCP, greeting, EHLO and TLS, for each connection
    auth: Latency  # AUTH to 235, for each connection
    transaction: Latency  # MAIL to the final reply, for each message accepted


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many messages failed in one way."""

    failure: Failure
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one run.

    Raises:
        ValueError: a message was not counted, or counted twice.
    """

    planned: int
    succeeded: int
    failed: int
    not_attempted: int
    wall_seconds: float  # from the first message taken up to the last one's end
    interrupted_by: str  # the signal that asked to stop, "" when none did
    latency: Latency  # of succeeded messages only
    phases: Phases
    errors: tuple[ErrorCount, ...]

    def __post_init__(self) -> None:
        if self.planned != self.succeeded + self.failed + self.not_attempted:
            raise ValueError("planned is not succeeded + failed + not attempted")
        if self.failed != sum(error.count for error in self.errors):
            raise ValueError("the errors listed are not the failures counted")
        if self.succeeded != self.latency.count:
            raise ValueError("the latencies measured are not the successes counted")

    @property
    def attempted(self) -> int:
        """How many messages were taken up."""
        return self.succeeded + self.failed

    @property
    def is_partial(self) -> bool:
        """Whether a signal ended the run early."""
        return bool(self.interrupted_by)

    @property
    def success_rate(self) -> float | None:
        """Succeeded of attempted, 0 to 1; None when nothing was attempted."""
        return self.succeeded / self.attempted if self.attempted else None

    @property
    def throughput_per_second(self) -> float | None:
        """Successes for each second of wall time; None when no time passed."""
        if self.wall_seconds < _CLOCK_SECONDS:
            return None
        return self.succeeded / self.wall_seconds

    @property
    def throughput_per_minute(self) -> float | None:
        """Successes for each minute of wall time; None when no time passed."""
        per_second = self.throughput_per_second
        return None if per_second is None else per_second * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What the relay acknowledged against what the sandbox received, in messages."""

    acknowledged: int
    arrived: int  # different messages of this run
    lost: int  # acknowledged, never arrived
    duplicated: int  # arrived more than once
    corrupted: int  # arrived with other octets than were sent
    unexpected: int  # arrived without having been acknowledged

    @property
    def is_clean(self) -> bool:
        """Whether each acknowledged message arrived exactly once and unchanged."""
        return not (self.lost or self.duplicated or self.corrupted)


@dataclass(frozen=True, slots=True)
class NotReconciled:
    """Why acknowledged and received messages could not be compared."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the figures were measured with."""

    python: str
    platform: str
    cpu_count: int
    bench_version: str
    loop: str  # uvloop or asyncio


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: what was asked, where it went and what came of it."""

    started_at: datetime  # UTC
    target: str  # host:port
    tls: str
    mechanism: str
    plan: Plan
    result: Result
    reconciliation: Reconciliation | NotReconciled
    environment: Environment

    @property
    def is_success(self) -> bool:
        """Whether every planned message succeeded and nothing was lost, doubled or changed."""
        reconciled = self.reconciliation
        return self.result.succeeded == self.result.planned and (
            isinstance(reconciled, NotReconciled) or reconciled.is_clean
        )


def change_percent(before: float | None, after: float | None) -> float | None:
    """Return by how many percent `after` exceeds `before`; None when that cannot be said."""
    if before is None or after is None or before == 0:
        return None
    return (after - before) / before * 100
