"""The problems of a configuration, which are reported together.

Their texts name keys, files and variables, never the value of a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Iterable

Problem: TypeAlias = tuple[str, str]  # a JSON path, and what is wrong there
Fault: TypeAlias = tuple[str, str]  # a key of one object, as `upstream.host`, and what is wrong


def beneath(path: str, faults: Iterable[Fault]) -> list[Problem]:
    """Return the faults of the object at `path` as problems; a number is an index of an array."""
    return [
        (json_path(path, *(int(one) if one.isdecimal() else one for one in key.split("."))), fault)
        for key, fault in faults
    ]


def shown(problems: Iterable[Problem]) -> list[Problem]:
    """Return each problem once, in order; what a terminal cannot show is escaped."""
    return list(dict.fromkeys((_printable(path), _printable(fault)) for path, fault in problems))


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raise one `ConfigError` with all problems, if there are any."""
    if found := shown(problems):
        raise ConfigError(found)


def _printable(text: str) -> str:
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
