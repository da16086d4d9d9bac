"""Accounts for tests that build parts of the relay themselves."""

from __future__ import annotations

from dataclasses import replace

from xoauth2_proxy.accounts.accounts import Account, Limits, TlsMode, Upstream
from xoauth2_proxy.accounts.local_password import LocalPassword

GENEROUS = Limits(
    max_connections=10,
    max_messages_per_connection=1000,
    max_connection_age_seconds=3600.0,
    idle_seconds=240.0,
    wait_seconds=5.0,
)


def mailbox(
    email: str = "someone@example.com", upstream: Upstream | None = None, **limits: float
) -> Account:
    """Return an account; `limits` change `GENEROUS`."""
    return Account(
        email=email,
        provider="mock",
        refresher="mock",
        upstream=upstream or Upstream("localhost", 2600, TlsMode.NONE),
        limits=replace(GENEROUS, **limits),  # type: ignore[arg-type]
        password=LocalPassword(clear_text="opens sesame"),
    )
