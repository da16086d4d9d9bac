"""The disabled accounts of a configuration file, of which the proxy knows only the number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import login_key

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class DisabledAccount:
    """An account with "enabled": false."""

    email: str
    provider: str

    @property
    def key(self) -> str:
        """What accounts are found by."""
        return login_key(self.email)

    def to_json(self) -> dict[str, str]:
        """Return it as JSON has it, with the keys of an enabled account that apply."""
        return {"mailbox": self.email, "provider": self.provider, "state": "disabled"}


def disabled_accounts(file: Path | None) -> list[DisabledAccount]:
    """Return the disabled accounts of a file that was loaded without a problem. It blocks.

    Raises `OSError`, `ValueError`: it has changed since.
    """
    if file is None:
        return []
    document = json.loads(file.read_text("utf-8-sig"))
    accounts = document if isinstance(document, list) else document.get("accounts", [])
    return [
        DisabledAccount(str(one.get("email", "")), str(one.get("provider", "")))
        for one in accounts
        if isinstance(one, dict) and one.get("enabled") is False
    ]
