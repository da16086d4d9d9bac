"""The fuzz targets by name, and their seeds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.fuzz.content import ContentTarget
from tests.fuzz.dialogues import ClientTarget, ProviderTarget
from tests.fuzz.sender import SenderTarget
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

    def check(self, octets: bytes) -> object:
        """Run one input; the value tells new behaviour from known. Raises if something broke."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


TARGETS: dict[str, Callable[[], Target]] = {
    "client": ClientTarget,
    "client-transaction": lambda: ClientTarget(is_logged_in=True),
    "client-verified": lambda: ClientTarget(is_logged_in=True, verifies=True),
    "provider": ProviderTarget,
    "session": SessionTarget,
    "transaction": lambda: SessionTarget(is_logged_in=True),
    "verified": lambda: SessionTarget(is_logged_in=True, verifies=True),
    "strict": lambda: SessionTarget(is_logged_in=True, is_strict=True),
    "content": ContentTarget,
    "sender": SenderTarget,
    "upstream": UpstreamTarget,
    "replies": RepliesTarget,
    "sasl": SaslTarget,
    "path": PathTarget,
    "token": TokenTarget,
    "config": ConfigTarget,
}


# Targets that read the same language.
_SEEDS = {
    "client": "session",
    "client-transaction": "transaction",
    "client-verified": "transaction",
    "provider": "upstream",
    "verified": "transaction",
    "strict": "transaction",
}
_WORDS = {
    "client": "session",
    "client-transaction": "session",
    "client-verified": "session",
    "provider": "upstream",
    "transaction": "session",
    "verified": "session",
    "strict": "session",
}
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def seeds(name: str) -> dict[str, bytes]:
    """Return the seeds of a target by file name."""
    files = sorted((FOLDER / "seeds" / _SEEDS.get(name, name)).iterdir())
    return {file.name: file.read_bytes() for file in files}


def dictionary(name: str) -> Path:
    """Return the file of the target's words, in libFuzzer's format."""
    return FOLDER / "words" / f"{_WORDS.get(name, name)}.dict"


def words(name: str) -> list[bytes]:
    """Return the target's words."""
    lines = dictionary(name).read_text().splitlines()
    return [
        _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), line[1:-1].encode()) for line in lines
    ]
