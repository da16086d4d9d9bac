"""The fuzz targets by name, and their seeds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.fuzz.content import ContentTarget
from tests.fuzz.session import SessionTarget
from tests.fuzz.upstream import UpstreamTarget
from tests.fuzz.values import (
    ConfigTarget,
    PathTarget,
    RepliesTarget,
    SaslTarget,
    TokenTarget,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parent
FOUND = FOLDER / "found"  # inputs that broke something; a mended one belongs among the seeds


class Target(Protocol):
    """What takes any octets and asserts what must hold for all."""

    max_bytes: int
    tokens: tuple[bytes, ...]  # words of its language, for mutations

    def check(self, octets: bytes) -> object:
        """Run one input; the value tells new behaviour from known. Raises if something broke."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


TARGETS: dict[str, Callable[[], Target]] = {
    "session": lambda: SessionTarget(is_logged_in=False),
    "transaction": lambda: SessionTarget(is_logged_in=True),
    "content": ContentTarget,
    "upstream": UpstreamTarget,
    "replies": RepliesTarget,
    "sasl": SaslTarget,
    "path": PathTarget,
    "token": TokenTarget,
    "config": ConfigTarget,
}


def seeds(name: str) -> dict[str, bytes]:
    """Return the seeds of a target by file name."""
    files = sorted((FOLDER / "seeds" / name).iterdir())
    return {file.name: file.read_bytes() for file in files}
