"""The outcome of a message, as the load reports it to the recorder. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

OTHER = "other"  # failures beyond the kinds that are counted separately


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Why a message failed: the server's reply code or the kind of error, and its text."""

    code: str  # "550", "timeout", "connection refused" …
    text: str
    step: str = ""  # the step that failed, such as "AUTH" or "RCPT"; "" if it adds no information

    def __str__(self) -> str:
        where = f"{self.step}: " if self.step else ""
        return f"{where}{self.code} {self.text}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The outcome and durations of a message that was started."""

    number: int
    latency_seconds: float  # from the intended start, if any, to its end; else as below
    service_seconds: float  # from its start, which may include connecting, to its end
    lateness_seconds: float | None = None  # from the intended start to the actual one; None: closed
    has_waited: bool = False  # it was due before a connection was free
    at_seconds: float = 0.0  # its end, after the start of measurement; negative in the warm-up
    is_warmup: bool = False
    failure: SendFailure | None = None
    connect_seconds: float | None = None  # None: the connection was open already
    auth_seconds: float | None = None  # None: likewise, or no login
    transaction_seconds: float | None = None  # None: there was no positive final reply
