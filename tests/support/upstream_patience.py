"""How long a connection to a provider waits, made short or long for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.upstream import connection
from xoauth2_proxy.upstream.dialogue import State

if TYPE_CHECKING:
    import pytest

COMMANDS = (State.COMMAND, State.ENVELOPE, State.GO_AHEAD)
PIECES = (State.GRANTED, State.CONTENT)
FINAL_REPLIES = (State.FLIGHT, State.FINAL)


def wait_only(seconds: float, states: tuple[State, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each of these states last so long without progress, and no longer."""
    for state in states:
        monkeypatch.setitem(connection._PATIENCE_SECONDS, state, seconds)
