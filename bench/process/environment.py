"""Describes the machine, its operating system and the software versions."""

from __future__ import annotations

import os
import platform
import ssl
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def describe(packages: Iterable[str]) -> dict[str, object]:
    """Return the description for a document, with the versions of these packages."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count() or 1,
        "load_average": load_averages(),
        "openssl": ssl.OPENSSL_VERSION,
        **{name: _version(name) for name in packages},
    }


def load_averages() -> list[float]:
    """Return the load averages of the last 1, 5 and 15 minutes; empty if unknown."""
    with suppress(OSError, AttributeError):
        return list(os.getloadavg())
    return []


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
