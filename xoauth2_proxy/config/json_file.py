"""Reads a JSON file into plain values, without its comments.

Stricter than `json.load`: a key written twice in one object, NaN and Infinity are problems.
Knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from xoauth2_proxy.config.problems import Problems, join

if TYPE_CHECKING:
    from pathlib import Path

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

COMMENT_PREFIX = "_comment"  # a key that starts so is ignored, at every level

_MAX_FILE_BYTES = 64 * 1024 * 1024  # some 100,000 accounts of 600 bytes


class _Pairs(list[tuple[str, object]]):
    """An object's members as they were written, so that a key written twice is still seen."""


def read_json_file(path: Path, array_path: str, problems: Problems) -> Json:
    """Return the values in the JSON file at `path`; a key written twice is noted in `problems`.

    If the file holds a bare array, the paths of what is in it begin with `array_path`.

    Raises:
        ConfigError: the file cannot be read, or is not JSON in UTF-8.
    """
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        return problems.fail(str(path), _in_words(error))
    return parsed_json(content, str(path), array_path, problems)


def parsed_json(content: bytes, name: str, array_path: str, problems: Problems) -> Json:
    """Return the values in the JSON text `content`, as `read_json_file` does.

    Raises:
        ConfigError: it is not JSON in UTF-8; the problem's path is `name`.
    """
    try:
        value = _parsed(content.decode("utf-8-sig"))  # some editors write a byte order mark
        root = "" if isinstance(value, _Pairs) else array_path
        return _without_comments(value, root, problems)
    except (RecursionError, ValueError) as error:
        return problems.fail(name, _in_words(error))


def _in_words(error: Exception) -> str:
    match error:
        case OSError():
            return f"cannot be read: {error.strerror}"
        case RecursionError():
            return "is nested too deeply"
        case json.JSONDecodeError():
            return f"line {error.lineno}, column {error.colno}: {error.msg}"
        case UnicodeDecodeError():
            return f"is not UTF-8 text (octet {error.start})"
        case _:
            return str(error)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"is larger than {_MAX_FILE_BYTES} bytes")
    return content


def _parsed(text: str) -> object:
    parsed: object = json.loads(text, object_pairs_hook=_Pairs, parse_constant=_refuse_constant)
    return parsed


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number (RFC 8259 §6)")


def _without_comments(value: object, path: str, problems: Problems) -> Json:
    if isinstance(value, _Pairs):
        members: dict[str, Json] = {}
        for key, member in value:
            if key.startswith(COMMENT_PREFIX):
                continue
            where = join(path, key)
            if key in members:
                problems.add(where, "is written twice in one object")
            members[key] = _without_comments(member, where, problems)
        return members
    if isinstance(value, list):
        return [
            _without_comments(item, join(path, number), problems)
            for number, item in enumerate(value)
        ]
    assert value is None or isinstance(value, (str, int, float))  # noqa: S101 - JSON has no other
    return value
