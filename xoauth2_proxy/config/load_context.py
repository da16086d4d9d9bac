"""What every part of a configuration is read with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.config.validation import structured

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from xoauth2_proxy.config.environment import Surroundings
    from xoauth2_proxy.config.json_file import Json
    from xoauth2_proxy.config.settings import Overrides
    from xoauth2_proxy.config.values import Section

_S = TypeVar("_S", bound="Section")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One file, what it is read with, and what is found out about it."""

    document: dict[str, Json] = field(repr=False)
    overrides: Overrides
    surroundings: Surroundings
    state_dir: Path
    known_refreshers: Collection[str]
    problems: Problems = field(default_factory=Problems)
    warnings: list[str] = field(default_factory=list)

    def section(self, model: type[_S], key: str) -> _S | None:
        """Return the file's object `key`, or None with what is wrong in `problems`."""
        return structured(model, self.document.get(key, {}), key, self.problems)
