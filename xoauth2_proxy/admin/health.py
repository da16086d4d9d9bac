"""The relay's health report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.credential_files import days_until
from xoauth2_proxy.health_document import health_document

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


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


@dataclass(frozen=True, slots=True)
class ListenerState:
    """Where one listener listens, how it is protected, and how long its certificate lasts."""

    name: str
    addresses: tuple[str, ...]
    tls: str
    expires: Callable[[], datetime | None]  # when the certificate does; None: it has none

    def report(self) -> dict[str, object]:
        """Return the listener's part of the body of `GET /health`."""
        body: dict[str, object] = {"name": self.name, "addresses": self.addresses, "tls": self.tls}
        if (moment := self.expires()) is not None:
            body["certificate_expires"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
            body["certificate_days_left"] = days_until(moment)
        return body


@dataclass(slots=True)
class Health:
    """The state of one relay, updated by `service` and read by the admin server."""

    accounts: dict[str, int] = field(default_factory=dict)  # how many, by state
    sandbox: dict[str, str] = field(default_factory=dict)  # its addresses, when it is embedded
    listeners: tuple[ListenerState, ...] = ()
    workers: WorkersHealth | None = None  # None: everything runs in this process
    is_ready: bool = False  # the listener accepts clients
    is_draining: bool = False
    started_at: float = field(default_factory=time.monotonic)
    store_problem: str = ""  # why no mailbox can get tokens
    has_stored: bool = False  # the store has worked since the start

    def note_store(self, problem: str) -> None:
        """Note why the store of tokens cannot be used, or "" that it works."""
        self.store_problem = problem
        self.has_stored = self.has_stored or not problem

    @property
    def problem(self) -> str:
        """What keeps all mail from going, or will once present tokens expire; "" for nothing."""
        if self._has_lost_workers:
            return "no worker is running; the log says why"
        return self.store_problem

    @property
    def status(self) -> Status:
        """The state in one word."""
        if self.is_draining:
            return Status.DRAINING
        if not self.is_ready:
            return Status.UNHEALTHY if self._has_lost_workers else Status.STARTING
        is_well = self.accounts.get("enabled") and not self.store_problem
        return Status.HEALTHY if is_well else Status.UNHEALTHY

    @property
    def readiness(self) -> Status:
        """The state as far as clients should be sent elsewhere unless it is healthy.

        A store that fails after it has worked does not count: tokens in memory serve for up to an
        hour, and relays that share the store would all be taken out of service at once.
        """
        return replace(self, store_problem="").status if self.has_stored else self.status

    @property
    def _has_lost_workers(self) -> bool:
        return not self.is_ready and self.workers is not None and self.workers.restarts > 0

    def report(self) -> dict[str, object]:
        """Return the body of `GET /health`."""
        body = health_document("xoauth2-proxy", self.status, self.started_at)
        body["accounts"] = self.accounts
        if self.listeners:
            body["listeners"] = [one.report() for one in self.listeners]
        if self.problem:
            body["problem"] = self.problem
        if self.workers is not None:
            body["workers"] = asdict(self.workers)
        return body | ({"sandbox": self.sandbox} if self.sandbox else {})
