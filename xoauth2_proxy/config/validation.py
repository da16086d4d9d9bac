"""Checks values against the models and words what is wrong for the person who wrote the file.

A problem's text is made from the kind of error alone: pydantic's own texts may repeat the value,
which may be a secret.
"""

from __future__ import annotations

import difflib
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from xoauth2_proxy.config.model import AccountSection
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.values import Section

if TYPE_CHECKING:
    from collections.abc import Iterable

_S = TypeVar("_S", bound=Section)

_NO_COUNTERPART = "has no counterpart in this relay; remove it"

# The keys of the system this one replaces, and what to write in their place.
_FORMER_ACCOUNT_KEYS = {
    "oauth_endpoint": "write it as upstream.host and upstream.port",
    "ip_address": _NO_COUNTERPART,
    "vmta_name": _NO_COUNTERPART,
    "max_concurrent_messages": "write limits.max_connections",
    "max_messages_per_hour": "write limits.messages_per_minute, or remove it",
    "connection_settings": "write limits.max_connections, limits.max_messages_per_connection, "
    "limits.max_connection_age_seconds and limits.idle_seconds",
    "rate_limiting": "write limits.messages_per_minute",
    "retry": _NO_COUNTERPART,
    "circuit_breaker": _NO_COUNTERPART,
}


def structured(model: type[_S], value: object, path: str, problems: Problems) -> _S | None:
    """Return `value` as a `model`, or None with what is wrong in `problems`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            where, kind = _place(detail["loc"]), detail["type"]
            if kind == "extra_forbidden":
                text = _unknown(model, where)
            elif kind == "missing":
                text = "is required"
            elif kind in {"model_type", "dict_type"}:
                text = "must be an object"
            else:
                text = _sentence(detail["msg"])
            problems.add(join(path, *where), text)
        return None


def malformed_keys(model: type[Section], value: object) -> set[str]:
    """Return the keys of `value` at which it is no `model`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    return set()


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return the words for a key that is not one of `known`."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else "unknown key"


def _place(where: tuple[str | int, ...]) -> tuple[str | int, ...]:
    # pydantic's mark for what is wrong with a key itself, not with its value.
    return where[:-1] if where[-1:] == ("[key]",) else where


def _unknown(model: type[Section], where: tuple[str | int, ...]) -> str:
    key = str(where[-1])
    if model is AccountSection and len(where) == 1 and key in _FORMER_ACCOUNT_KEYS:
        return _FORMER_ACCOUNT_KEYS[key]
    for piece in where[:-1]:
        model = _section_in(model.model_fields[str(piece)].annotation)
    return unknown_key(key, model.model_fields)


def _section_in(annotation: Any) -> type[Section]:  # noqa: ANN401 - an annotation is any object
    return next(
        choice
        for choice in (annotation, *typing.get_args(annotation))
        if isinstance(choice, type) and issubclass(choice, Section)
    )


def _sentence(message: str) -> str:
    for beginning in ("Input should be", "String should", "Value should"):
        if message.startswith(beginning):
            ending = "must be" if beginning.endswith("be") else "must"
            return ending + message.removeprefix(beginning)
    return message
