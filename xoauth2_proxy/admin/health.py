"""The relay's health report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy import __version__

if TYPE_CHECKING:
    from collections.abc import Callable


class Status(StrEnum):
    """One word for the whole relay."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # no account can work, or tokens cannot be kept
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class WorkersHealth:
    """The state of the worker processes."""

    running: int  # that accept clients
    restarts: int  # since the start


@dataclass(slots=True)
class Health:
    """The state of one relay, updated by `service` and read by the admin server."""

    accounts: dict[str, int] = field(default_factory=dict)  # how many, by state
    sandbox: dict[str, str] = field(default_factory=dict)  # its addresses, when it is embedded
    workers: WorkersHealth | None = None  # None: everything runs in this process
    is_ready: bool = False  # the listener accepts clients
    is_draining: bool = False
    started_at: float = field(default_factory=time.monotonic)
    find_problem: Callable[[], str | None] = lambda: (
        None
    )  # looks for what keeps all mail from going

    @property
    def status(self) -> Status:
        """The state in one word."""
        if self.is_draining:
            return Status.DRAINING
        if not self.is_ready:
            return Status.STARTING
        is_well = self.accounts.get("enabled") and not self.find_problem()
        return Status.HEALTHY if is_well else Status.UNHEALTHY

    def report(self) -> dict[str, object]:
        """Return the body of `GET /health`."""
        body: dict[str, object] = {
            "status": self.status,
            "service": "xoauth2-proxy",
            "version": __version__,
            "uptime_seconds": round(time.monotonic() - self.started_at, 3),
            "accounts": self.accounts,
        }
        if problem := self.find_problem():
            body["problem"] = problem
        if self.workers is not None:
            body["workers"] = asdict(self.workers)
        return body | ({"sandbox": self.sandbox} if self.sandbox else {})
