"""Plain values that the configuration and the command line share; nothing here needs pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class StoreKind(StrEnum):
    """Where grants outlive the process."""

    FILE = "file"
    MEMORY = "memory"  # they do not
    REDIS = "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; None where it says nothing. It beats the file."""

    host: str | None = None
    port: int | None = None
    admin_host: str | None = None
    admin_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_insecure_auth: bool | None = None
    sandbox: bool = False
