"""Parses JSON strictly, and says where a text is not JSON.

A key that is written twice in one object, NaN and Infinity are errors. A key that begins with
"_comment" is left out.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn, TypeAlias

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"

COMMENT_PREFIX = "_comment"

_PLAIN_KEY = re.compile(r"[A-Za-z_][\w-]*", re.ASCII)
_LONGEST_KEY_SHOWN = 80  # characters; a key is meant to be a word, not a page
_TRAILING_COMMA = re.compile(r",\s*[}\]]")
_LOOKS_LIKE_JSON = re.compile(r"^\s*[\[{]", re.MULTILINE)
_YAML = re.compile(r"(---|%YAML|#|- |[\w-]+:(\s|$))")


class _Members(list[tuple[str, object]]):
    """An object's members as they were written, which shows a key that is written twice."""


def parse(
    octets: bytes, array_path: str = "", name: str = "file"
) -> tuple[Json, list[tuple[str, str]]]:
    """Return the value, and the JSON path of each key that is written twice, with the fault.

    The paths in an array begin with `array_path`. Messages call the text `name`.

    Raises:
        ValueError: this is not JSON in UTF-8; the message says where.
    """
    try:
        text = octets.decode("utf-8-sig")  # some editors write a byte order mark
        value = json.loads(text, object_pairs_hook=_Members, parse_constant=_refuse_constant)
        faults: list[tuple[str, str]] = []
        root = "" if isinstance(value, _Members) else array_path
        return _without_comments(value, root, faults), faults
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (octet {error.start})") from None
    except json.JSONDecodeError as error:
        raise ValueError(_syntax_error(error, name)) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def json_path(path: str, *pieces: str | int) -> str:
    """Return the JSON path of a value below `path`: `accounts[3].upstream.port`."""
    for piece in pieces:
        if isinstance(piece, int):
            path += f"[{piece}]"
            continue
        is_long = len(piece) > _LONGEST_KEY_SHOWN
        shown = piece[:_LONGEST_KEY_SHOWN] + "..." if is_long else piece
        if not _PLAIN_KEY.fullmatch(piece):
            path += f"[{json.dumps(shown)}]"
        else:
            path += f".{shown}" if path else shown
    return path


def _syntax_error(error: json.JSONDecodeError, name: str) -> str:
    """Return the place of the error and, where it is a common one, its name."""
    text, at = error.doc, error.pos
    at += len(text[at:]) - len(text[at:].lstrip())
    before, after = text[:at].rstrip(), text[at:]
    fault = error.msg
    if not text.strip():
        fault = f"the {name} is empty; it must hold a JSON object or array"
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
        fault = "this looks like YAML, not JSON"
    elif after.startswith("'"):
        fault = 'single quote; JSON writes text in double quotes (")'
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"line {line}, column {column}: {fault}"


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number (RFC 8259 §6)")


def _without_comments(value: object, path: str, faults: list[tuple[str, str]]) -> Json:
    if isinstance(value, _Members):
        members: dict[str, Json] = {}
        for key, member in value:
            if key.startswith(COMMENT_PREFIX):
                continue
            where = json_path(path, key)
            if key in members:
                faults.append((where, "is written twice in one object"))
            members[key] = _without_comments(member, where, faults)
        return members
    if isinstance(value, list):
        return [
            _without_comments(item, json_path(path, number), faults)
            for number, item in enumerate(value)
        ]
    assert value is None or isinstance(value, (str, int, float))  # noqa: S101 - JSON has no other
    return value
