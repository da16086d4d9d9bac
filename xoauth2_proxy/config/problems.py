"""Collects everything that is wrong with a configuration, so that it is told at once.

Problem texts name keys, files and variables, never the value of a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Problems:
    """Pairs of a JSON path and what is wrong there, in the order they were found."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], None] = {}  # each once, in order

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, path: str, problem: str) -> None:
        """Note a problem, once; what a terminal cannot show is escaped."""
        self._found[_printable(path), _printable(problem)] = None

    def add_faults(self, path: str, faults: Iterable[tuple[str, str]]) -> None:
        """Note what is wrong with keys of the object at `path`; a key may be `upstream.host`."""
        for key, problem in faults:
            self.add(json_path(path, *key.split(".")), problem)

    def take(
        self, others: Problems, note: str = "", renamed: Mapping[str, str] | None = None
    ) -> None:
        """Note the problems of `others` too, each ending in `note`.

        `renamed` maps JSON paths to what is said in their place.
        """
        for path, problem in others._found:
            self.add((renamed or {}).get(path, path), problem + note)

    def listed(self) -> list[tuple[str, str]]:
        """Return what was noted."""
        return list(self._found)

    def fail(self, path: str, problem: str) -> NoReturn:
        """Note a problem after which nothing else can be checked.

        Raises:
            ConfigError: always, with all problems.
        """
        self.add(path, problem)
        raise ConfigError(list(self._found))

    def raise_if_any(self) -> None:
        """Raise one `ConfigError` with all problems, if there are any.

        Raises:
            ConfigError: at least one problem was noted.
        """
        if self._found:
            raise ConfigError(list(self._found))


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
