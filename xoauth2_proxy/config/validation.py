"""Checks values against the sections and words what is wrong for the person who wrote the file.

A problem's text is made from the kind of error alone: pydantic's own texts may repeat the value,
which may be a secret.
"""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from xoauth2_proxy.config.secret import KIND as SECRET
from xoauth2_proxy.config.secret import VARIABLE
from xoauth2_proxy.config.section import Section
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.problems import Problems

_S = TypeVar("_S", bound=Section)

_OURS = {
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
}
_BEGINNINGS = {
    "Value error, ": "",
    "Input should be": "must be",
    "String should": "must",
    "Value should": "must",
    "Tuple should": "must",
}


def validate(
    model: type[_S],
    value: object,
    path: str,
    problems: Problems,
    environment: Environment | None = None,
) -> _S | None:
    """Return `value` as a `model`, or None with what is wrong in `problems`."""
    try:
        return model.model_validate(value, context=environment)
    except ValidationError as error:
        _tell(error, model, path, problems)
        return None


def validate_remainder(
    model: type[_S],
    value: object,
    path: str,
    problems: Problems,
    environment: Environment | None,
    stand_ins: Mapping[str, object],
) -> _S | None:
    """Return `value` as a `model`, without its keys that are wrong, which are in `problems`.

    `stand_ins` takes their place where the model requires them. None: nothing is left to judge.
    """
    for _ in range(4):  # keys that are malformed; those that break a rule; what then is missing
        try:
            return model.model_validate(value, context=environment)
        except ValidationError as error:
            _tell(error, model, path, problems)
            if not isinstance(value, dict):
                return None
            wrong = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
            value = {key: one for key, one in value.items() if key not in wrong}
            value |= {key: one for key, one in stand_ins.items() if key in wrong}
    return None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the words for a key that is not one of `known`."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key"


def _tell(error: ValidationError, model: type[Section], path: str, problems: Problems) -> None:
    for detail in error.errors(include_url=False):
        where = _place(detail["loc"])
        problems.add(json_path(path, *where), _words(detail, model, where))


def _place(where: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # pydantic's mark for what is wrong with a key itself, not with its value.
    return where[:-1] if where[-1:] == ("[key]",) else where


def _words(detail: ErrorDetails, model: type[Section], where: tuple[str | int, ...]) -> str:
    kind, value = detail["type"], detail["input"]
    if isinstance(value, str) and VARIABLE.fullmatch(value) and kind != SECRET:
        return "must be written out: a variable works for secrets only, such as client_secret"
    if kind == "extra_forbidden":
        return _unknown(model, where)
    if kind in _OURS:
        return _OURS[kind]
    for beginning, ours in _BEGINNINGS.items():
        if detail["msg"].startswith(beginning):
            return ours + detail["msg"].removeprefix(beginning)
    return detail["msg"]


def _unknown(model: type[Section], where: tuple[str | int, ...]) -> str:
    for piece in where[:-1]:
        model = _section_in(model.model_fields[str(piece)].annotation)
    key = str(where[-1])
    return model.former_keys.get(key) or unknown_key(key, model.model_fields)


def _section_in(annotation: Any) -> type[Section]:  # noqa: ANN401 - an annotation is any object
    return next(
        choice
        for choice in (annotation, *typing.get_args(annotation))
        if isinstance(choice, type) and issubclass(choice, Section)
    )
