"""Reads a JSON file into plain values, without its comments.

Stricter than `json.load`: a key written twice in one object, NaN and Infinity are problems.
Knows nothing of what the keys mean.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from xoauth2_proxy.config.problems import Problems, join

if TYPE_CHECKING:
    from pathlib import Path

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

COMMENT_PREFIX = "_comment"  # a key that starts so is ignored, at every level

_TRAILING_COMMA = re.compile(r",\s*[}\]]")
_LOOKS_LIKE_JSON = re.compile(r"^\s*[\[{]", re.MULTILINE)
_YAML = re.compile(r"(---|%YAML|#|- |[\w-]+:(\s|$))")
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
        text = content.decode("utf-8-sig")  # some editors write a byte order mark
        value = _parsed(text)
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
            return _syntax_error(error)
        case UnicodeDecodeError():
            return f"is not UTF-8 text (octet {error.start})"
        case _:
            return str(error)


def _syntax_error(error: json.JSONDecodeError) -> str:
    """Return the place of the error and, where it is a common one, its name."""
    text, at = error.doc, error.pos
    at += len(text[at:]) - len(text[at:].lstrip())
    before, after = text[:at].rstrip(), text[at:]
    fault = error.msg
    if not text.strip():
        fault = "the file is empty; it must hold a JSON object or array"
    elif before.endswith(",") and after[:1] in {"}", "]"}:
        at = len(before) - 1
        fault = "trailing comma; JSON has none after the last element"
    elif _TRAILING_COMMA.match(after):
        fault = "trailing comma; JSON has none after the last element"
    elif after.startswith(("//", "/*")) or (
        after.startswith("#") and _LOOKS_LIKE_JSON.search(text)
    ):
        fault = f'comment; JSON has none, but a key that begins with "{COMMENT_PREFIX}" is ignored'
    elif not before and _YAML.match(after):
        fault = "this looks like YAML; the configuration is JSON"
    elif after.startswith("'"):
        fault = 'single quote; JSON writes text in double quotes (")'
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"line {line}, column {column}: {fault}"


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
