"""The real messages that tests may use, where they are at hand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "corpus"
COUNT = 58


def real_messages() -> dict[str, bytes]:
    """Return the messages by file name: line ends made CRLF, the last line ended.

    Skips the test where the folder is absent; fails it there when CI=true.
    """
    files = sorted(FOLDER.glob("*.eml"))
    if not files:
        reason = f"the corpus of real messages is not at hand ({FOLDER.name}/*.eml)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    assert len(files) == COUNT
    return {file.name: with_crlf(file.read_bytes()) for file in files}


def with_crlf(octets: bytes) -> bytes:
    """Return `octets` with every line end made CRLF, and the last line ended."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", octets)
    return lines if lines.endswith(b"\r\n") or not lines else lines + b"\r\n"
