"""Secrets as the configuration writes them, and how each form is resolved.

`"text"`, `"${VARIABLE}"` or `{"file": "path"}`. A problem's text names the variable or the file,
never the value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from xoauth2_proxy.accounts.accounts import LocalPassword
from xoauth2_proxy.files import read_at_most

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.config.environment import Environment

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
KIND = "secret"  # of a validation error

_SECRET_KEYS = {"password", "client_secret", "refresh_token", "token", "key", "webhook"}
_MAX_SECRET_BYTES = 64 * 1024  # the longest secret seen, a Microsoft refresh token, has 2 KiB
# PHC string format; libargon2 wants a salt of 8 octets and a hash of 4 at least.
_PHC_ENDING = re.compile(r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}\Z", re.ASCII)


def local_password(secret: str) -> LocalPassword:
    """Return the password that `secret` is: an argon2 hash (PHC string), else clear text.

    Raises:
        ValueError: it begins as an argon2 hash and is not a whole one.
    """
    if not secret.startswith("$argon2"):
        return LocalPassword(clear_text=secret)
    import argon2  # not above: see `accounts.accounts`

    try:
        argon2.extract_parameters(secret)
    except argon2.exceptions.InvalidHashError:
        is_whole = False
    else:
        is_whole = _PHC_ENDING.search(secret) is not None
    if not is_whole:
        raise ValueError("begins like an argon2 hash, but is not a whole one")
    return LocalPassword(argon2_hash=secret)


def holds_secrets(document: object) -> bool:
    """Whether any secret is written out in a document, but for passwords of mock accounts."""
    if isinstance(document, list):
        return any(map(holds_secrets, document))
    if not isinstance(document, dict) or document.get("provider") == "mock":
        return False
    return any(
        isinstance(value, str) and not value.startswith(("${", "$argon2"))
        if key in _SECRET_KEYS
        else holds_secrets(value)
        for key, value in document.items()
    )


def _secret(value: object, info: ValidationInfo) -> str:
    """Return the secret itself; "" where there is no environment to look it up in."""
    try:
        return _resolved(value, info.context)
    except ValueError as error:
        raise PydanticCustomError(KIND, "{fault}", {"fault": str(error)}) from None


def _resolved(value: object, environment: Environment | None) -> str:
    if isinstance(value, dict) and list(value) == ["file"]:
        file = value["file"]
        if isinstance(file, str) and file:
            return _looked_up(environment, file=file)
    if not isinstance(value, str):
        raise ValueError('must be text, "${VARIABLE}" or {"file": "path"}')
    if not value:
        raise ValueError("must not be empty")
    if reference := VARIABLE.fullmatch(value):
        return _looked_up(environment, variable=reference[1])
    if value.startswith("${"):
        raise ValueError('begins with "${" but is not "${VARIABLE}"; put such a secret into a file')
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("holds half a surrogate pair, which is no character")
    return value


def _looked_up(environment: Environment | None, *, variable: str = "", file: str = "") -> str:
    if environment is None:
        return ""
    if environment.is_posted:
        raise ValueError("must be the text itself, no variable and no file")
    if file:
        return _content(environment.directory / file)
    if variable not in environment.environ:
        raise ValueError(f"the environment variable {variable} is not set")
    if not environment.environ[variable]:
        raise ValueError(f"the environment variable {variable} is empty")
    return environment.environ[variable]


def _content(path: Path) -> str:
    try:
        secret = read_at_most(path, _MAX_SECRET_BYTES).decode()
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8 text") from None
    except ValueError as error:
        raise ValueError(f"the file {path} {error}") from None
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ValueError(f"the file {path} is empty")
    return secret


def _password(value: object, info: ValidationInfo) -> LocalPassword:
    return local_password(_secret(value, info))


_FORMS = WithJsonSchema(
    {
        "oneOf": [
            {"type": "string", "minLength": 1, "examples": ["${VARIABLE}"]},
            {
                "type": "object",
                "properties": {"file": {"type": "string", "minLength": 1}},
                "required": ["file"],
                "additionalProperties": False,
            },
        ]
    }
)
Secret = Annotated[str, PlainValidator(_secret), _FORMS]
Password = Annotated[LocalPassword, PlainValidator(_password), _FORMS]
