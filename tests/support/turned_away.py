"""The log's lines about clients that were turned away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


def turned_away(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the fields of each line about a client that was turned away."""
    lines = [one for one in caplog.records if one.getMessage() == "client turned away"]
    return [vars(one)["fields"] for one in lines]
