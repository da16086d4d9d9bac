"""Fixtures that several modules share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def unused_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as bound:  # bound and not listening: refuses, and stays ours
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]
