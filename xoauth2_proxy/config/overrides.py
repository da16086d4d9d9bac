"""What the command line overrides in the configuration file. Needs no pydantic."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; None where it says nothing."""

    host: str | None = None
    port: int | None = None
    admin_host: str | None = None
    admin_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_insecure_auth: bool | None = None
    sandbox: bool = False

    def given(self) -> Iterator[tuple[str, str, str, object]]:
        """Yield the options that are given, each with its section, key and value in the file."""
        for name in (one.name for one in fields(self) if one.name != "sandbox"):
            value = getattr(self, name)
            if value is None:
                continue
            if name.startswith("tls_"):  # a relative path starts at the working directory
                value = str(value.absolute())
            section = "admin" if name.startswith("admin_") else "listener"
            yield f"--{name.replace('_', '-')}", section, name.removeprefix("admin_"), value
