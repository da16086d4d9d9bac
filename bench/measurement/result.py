"""The results of a run, as consistent values.

I1: planned = succeeded + failed + not attempted + dropped, and the listed errors add up to the
failures; a run by duration in the closed model has no planned number.
I2: every figure is computed here, once; the terminal and JSON reports only print it.
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
_CLOCK_SECONDS = 1e-9  # the best resolution of time.perf_counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution in seconds; all but `count` are None if nothing was measured."""

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
    """The durations of the phases."""

    connect: Distribution  # TCP, greeting, EHLO and TLS, for each connection
    auth: Distribution  # AUTH to 235, for each connection
    transaction: Distribution  # MAIL to the final reply, for each message accepted


@dataclass(frozen=True, slots=True)
class Bucket:
    """The number of values above the previous bucket's limit and up to `up_to_seconds`."""

    up_to_seconds: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBin:
    """The messages that ended within one interval of the run."""

    start_seconds: float
    successful: int
    failed: int
    dropped: int
    p50_seconds: float | None  # latency of the successful; None without any
    p95_seconds: float | None


@dataclass(frozen=True, slots=True)
class Timeline:
    """The run in consecutive intervals of equal length."""

    bin_seconds: float
    bins: tuple[TimelineBin, ...]


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """The number of messages that failed with one error."""

    failure: SendFailure
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """The messages sent before the measurement began."""

    seconds: float
    requests: int  # messages started
    failed: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The figures of a run, without its warm-up.

    Raises:
        ValueError: a message was not counted, or counted twice.
    """

    planned: int | None  # None: as many as the time allowed
    succeeded: int
    failed: int
    not_attempted: int | None  # None exactly when `planned` is
    dropped: int  # due, but given up because no connection was free in time
    late_starts: int
    wall_seconds: float  # from the start of measurement to the end of the last message
    interrupted_by: str  # the signal received, or PROCESS_LOST; "" if not interrupted
    latency: Distribution  # of successful messages only, like the next one
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
        """The number of messages started."""
        return self.succeeded + self.failed

    @property
    def is_partial(self) -> bool:
        """Whether the run ended early."""
        return bool(self.interrupted_by)

    @property
    def is_complete(self) -> bool:
        """Whether every planned or started message succeeded."""
        expected = self.attempted if self.planned is None else self.planned
        return self.succeeded == expected and not self.dropped

    @property
    def success_rate(self) -> float | None:
        """The share of the messages to be sent that succeeded, 0 to 1; None if there were none.

        Dropped messages and those left by a lost process count as not succeeded; those not
        attempted because of a signal are left out.
        """
        wanted = self.attempted + self.dropped
        if self.interrupted_by in ("", PROCESS_LOST):
            wanted += self.not_attempted or 0
        return self.succeeded / wanted if wanted else None

    @property
    def throughput_per_second(self) -> float | None:
        """Successes per second of wall time; None if no time passed."""
        if self.wall_seconds < _CLOCK_SECONDS:
            return None
        return self.succeeded / self.wall_seconds

    @property
    def throughput_per_minute(self) -> float | None:
        """Successes per minute of wall time; None if no time passed."""
        per_second = self.throughput_per_second
        return None if per_second is None else per_second * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """The comparison of acknowledged and received messages, including the warm-up."""

    acknowledged: int
    arrived: int  # different messages of this run
    lost: int  # acknowledged but never arrived
    duplicated: int  # arrived more than once
    corrupted: int  # arrived with different octets or recipients
    unexpected: int  # arrived without an acknowledgement

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
    """The sandbox's counts from the start of the run to its end."""

    connections_opened: int
    peak_connections_per_mailbox: int  # of this run's mailboxes
    auth_accepted: int
    auth_refused: int
    transactions_accepted: int
    transactions_refused: int
    turns: int  # flights of replies while a client waited
    token_requests: int | None  # of the proxy at a token endpoint; None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLag:
    """The delay of timers in the generator's event loop."""

    p50_seconds: float | None
    p99_seconds: float | None
    max_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorFigures:
    """The resources that the generator used, and whether they limited the run."""

    processes: int
    cpu_seconds: float
    cpu_share: float  # of one core for each process, 0 to 1
    loop_lag: LoopLag
    was_bottleneck: bool
    reason: str  # "" when it was not
    advice: str = ""  # a sentence on the remedy; "" when it was not


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleClientFigures:
    """The outcome of the idle clients."""

    clients: int
    refused: int  # could not connect or log in
    lost: int  # were disconnected while the load ran


@dataclass(frozen=True, slots=True)
class SignInFailure:
    """The number of users who could not sign in for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInFigures:
    """The outcome of the sign-ins before the load."""

    method: str  # browser, code or mint
    wanted: int
    signed_in: int
    wall_seconds: float  # of all of them, the pauses between their beginnings included
    duration: Distribution  # of one: from the provider's page to the tokens; empty with mint
    failures: tuple[SignInFailure, ...]  # the most frequent first


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and software that the figures were measured with."""

    python: str
    platform: str
    cpu_count: int
    bench_version: str
    loop: str  # uvloop or asyncio
    load_average: float | None  # of the last minute, when the run began; None: unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run: its plan, target and results."""

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
    # The sandbox's settings when the run began; None: no sandbox, or they are unknown.
    provider_settings: Mapping[str, object] | None = None
    idle_clients: IdleClientFigures | None = None  # None: no idle clients were asked for
    sign_in: SignInFigures | None = None  # None: no users had to sign in
    target_log: tuple[str, ...] = ()  # the last lines of a private proxy's log, if messages failed

    @property
    def is_intact(self) -> bool:
        """Whether no message was lost, duplicated or changed, as far as that could be checked."""
        reconciled = self.reconciliation
        return isinstance(reconciled, NotReconciled) or reconciled.is_clean

    @property
    def is_success(self) -> bool:
        """Whether every planned message succeeded and none was lost, duplicated or changed."""
        return self.result.is_complete and self.is_intact
