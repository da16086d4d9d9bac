"""What a run measured, as values that cannot contradict themselves.

I1: planned = succeeded + failed + not attempted + dropped, and the errors listed are the failures
counted; a run by duration in the closed model plans no number.
I2: a figure is computed here, once; the screen and the JSON only write it down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from bench.measurement.sample import SendFailure
    from bench.plan.scenarios import RunPlan

PROCESS_LOST = "process lost"  # in place of a signal's name
_CLOCK_SECONDS = 1e-9  # what time.perf_counter can tell apart at best


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution in seconds; all but `count` are None when nothing was measured."""

    count: int
    min_seconds: float | None = None
    max_seconds: float | None = None
    avg_seconds: float | None = None
    p50_seconds: float | None = None
    p90_seconds: float | None = None
    p95_seconds: float | None = None
    p99_seconds: float | None = None
    p999_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """Where the time goes."""

    connect: Distribution  # TCP, greeting, EHLO and TLS, for each connection
    auth: Distribution  # AUTH to 235, for each connection
    transaction: Distribution  # MAIL to the final reply, for each message accepted


@dataclass(frozen=True, slots=True)
class Bucket:
    """How many values lie above the bucket before and not above `up_to_seconds`."""

    up_to_seconds: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBin:
    """What ended within one stretch of the run."""

    start_seconds: float
    successful: int
    failed: int
    dropped: int
    p50_seconds: float | None  # latency of the successful; None without any
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The run in stretches of equal length, without gaps."""

    bin_seconds: float
    bins: tuple[TimelineBin, ...]


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many messages failed in one way."""

    failure: SendFailure
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """What was sent before the measuring began."""

    seconds: float
    requests: int  # messages taken up
    failed: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of one run, its warm-up apart.

    Raises:
        ValueError: a message was not counted, or counted twice.
    """

    planned: int | None  # None: as many as the time allowed
    succeeded: int
    failed: int
    not_attempted: int | None  # None exactly when `planned` is
    dropped: int  # due, and given up because no connection was free for too long
    late_starts: int
    wall_seconds: float  # from the start of the measuring to the last message's end
    interrupted_by: str  # the signal that asked to stop, or PROCESS_LOST; "" when none did
    latency: Distribution  # of succeeded messages only, as the next one
    service_time: Distribution
    lateness: Distribution
    phases: Phases
    histogram: tuple[Bucket, ...]  # of `latency`, ascending, none of them empty
    timeline: Timeline
    warmup: Warmup
    errors: tuple[ErrorCount, ...]

    def __post_init__(self) -> None:
        settled = self.succeeded + self.failed + self.dropped
        if (self.planned is None) != (self.not_attempted is None):
            raise ValueError("planned and not attempted are known together")
        if self.planned is not None and self.planned != settled + (self.not_attempted or 0):
            raise ValueError("planned is not succeeded + failed + not attempted + dropped")
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
        """Whether the run ended early."""
        return bool(self.interrupted_by)

    @property
    def is_complete(self) -> bool:
        """Whether every message that was planned or taken up succeeded."""
        expected = self.attempted if self.planned is None else self.planned
        return self.succeeded == expected and not self.dropped

    @property
    def success_rate(self) -> float | None:
        """Succeeded of all that should have been sent, 0 to 1; None when nothing was to be.

        What was dropped has not succeeded, nor what a lost process left; what nobody tried because
        a signal asked to stop is left out.
        """
        wanted = self.attempted + self.dropped
        if self.interrupted_by in ("", PROCESS_LOST):
            wanted += self.not_attempted or 0
        return self.succeeded / wanted if wanted else None

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
    """What the relay acknowledged against what the sandbox received, the warm-up included."""

    acknowledged: int
    arrived: int  # different messages of this run
    lost: int  # acknowledged, never arrived
    duplicated: int  # arrived more than once
    corrupted: int  # arrived with other octets, or for other recipients, than were sent
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
class ProviderFigures:
    """What the sandbox counted between the run's start and its end."""

    connections_opened: int
    peak_connections_per_mailbox: int  # of this run's mailboxes
    auth_accepted: int
    auth_refused: int
    transactions_accepted: int
    transactions_refused: int
    turns: int  # flights of replies while a client waited
    token_requests: int | None  # of the proxy at a token endpoint; None: it does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLag:
    """How much later than asked the generator's event loop ran a timer."""

    p50_seconds: float | None
    p99_seconds: float | None
    max_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFigures:
    """What the generator itself needed, and whether that limited the run."""

    processes: int
    cpu_seconds: float
    cpu_share: float  # of one core for each process, 0 to 1
    loop_lag: LoopLag
    was_bottleneck: bool
    reason: str  # "" when it was not
    advice: str = ""  # what to do about the reason, a sentence; "" when it was not


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleClientFigures:
    """What became of the idle clients."""

    clients: int
    refused: int  # could not connect or log in
    lost: int  # were disconnected while the load ran


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What the figures were measured with."""

    python: str
    platform: str
    cpu_count: int
    bench_version: str
    loop: str  # uvloop or asyncio
    load_average: float | None  # of the last minute, when the run began; None: not to be had


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: what was asked, where it went and what came of it."""

    started_at: datetime  # UTC
    target: str  # host:port
    tls: str
    mechanism: str
    plan: RunPlan
    result: Result
    reconciliation: Reconciliation | NotReconciled
    generator: GeneratorFigures
    environment: Environment
    provider: ProviderFigures | None = None  # None: there is no sandbox to ask
    # How the sandbox was set when the run began, as it says; None: no sandbox, or it does not say.
    provider_settings: Mapping[str, object] | None = None
    idle_clients: IdleClientFigures | None = None  # None: no idle clients were asked for
    target_log: tuple[str, ...] = ()  # the last lines of a private proxy, when messages failed

    @property
    def is_intact(self) -> bool:
        """Whether nothing was lost, doubled or changed, as far as that could be checked."""
        reconciled = self.reconciliation
        return isinstance(reconciled, NotReconciled) or reconciled.is_clean

    @property
    def is_success(self) -> bool:
        """Whether every planned message succeeded and nothing was lost, doubled or changed."""
        return self.result.is_complete and self.is_intact
