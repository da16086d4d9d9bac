"""A server's address and the protection of the connection to it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


class Tls(StrEnum):
    """The protection of the connection to the relay."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The relay's address and TLS settings."""

    host: str
    port: int
    tls: Tls = Tls.NONE
    tls_context: ssl.SSLContext | None = None  # None exactly when `tls` is none

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
