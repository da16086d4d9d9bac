"""The request for one run or several equal runs. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.client.login import Mechanism
    from bench.measurement.result import SignInFigures
    from bench.plan.scenarios import RunPlan
    from bench.sign_in.request import SignInRequest
    from bench.targets.mailboxes import MailboxesToAdd
    from bench.targets.target_request import TargetRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A request for one or several runs."""

    plan: RunPlan
    target: TargetRequest
    mechanism: Mechanism
    secret: str | None = field(repr=False)  # password or token; None: mock tokens, or no login
    token_ttl_seconds: float | None = None  # of the mock tokens; None: an hour
    files: tuple[bytes, ...] = field(default=(), repr=False)  # messages to send; empty: generated
    accounts: MailboxesToAdd | None = None  # mailboxes to create, which the plan uses
    sign_in: SignInRequest | None = None  # how their users sign in; None: they do not
    signed_in: SignInFigures | None = None  # the outcome, once they have
    runs: int = 1  # of each side, with the scenario compare
    prometheus_port: int | None = None  # on loopback, 0: any; None: the run is not exposed
