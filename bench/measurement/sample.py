"""What became of one message, as the load tells the recorder. Pure values."""

from __future__ import annotations

from dataclasses import dataclass

OTHER = "other"  # the failures beyond the kinds that are told apart


@dataclass(frozen=True, slots=True)
class SendFailure:
    """Why a message failed: the server's reply code, or the kind of error, and its words."""

    code: str  # "550", "timeout", "connection refused" …
    text: str
    step: str = ""  # what was under way, as "AUTH" or "RCPT"; "" when that says nothing

    def __str__(self) -> str:
        where = f"{self.step}: " if self.step else ""
        return f"{where}{self.code} {self.text}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What became of one message that was taken up, and what it took."""

    number: int
    latency_seconds: float  # to its end: from the intended start if there was one, else as below
    service_seconds: float  # to its end from taking it up, opening a connection included
    lateness_seconds: float | None = None  # from the intended start to taking it up; None: closed
    has_waited: bool = False  # it was due before a connection was free
    at_seconds: float = 0.0  # its end, from the start of what is measured; negative in the warm-up
    is_warmup: bool = False
    failure: SendFailure | None = None
    connect_seconds: float | None = None  # None: the connection was open already
    auth_seconds: float | None = None  # None: likewise, or there is no login
    transaction_seconds: float | None = None  # None: there was no positive final reply
