"""Secrets as the configuration writes them, and how each form is resolved.

`"text"`, `"${VARIABLE}"` or `{"file": "path"}`. A problem's text names the variable or the file,
never the value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from xoauth2_proxy.accounts.accounts import LocalPassword

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
_MAX_SECRET_BYTES = 64 * 1024  # the longest secret seen, a Microsoft refresh token, has 2 KiB

# PHC string format; libargon2 wants a salt of 8 octets and a hash of 4 at least.
_PHC_ENDING = re.compile(r"\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    """A secret before it is resolved; exactly one field is not ""."""

    text: str = field(default="", repr=False)
    variable: str = ""
    file: str = ""

    def resolve(self, environ: Mapping[str, str], directory: Path) -> str:
        """Return the secret itself; a relative file is looked for in `directory`.

        Raises:
            ValueError: it cannot be had or is empty; the text says why and holds no secret.
        """
        if self.variable:
            if self.variable not in environ:
                raise ValueError(f"the environment variable {self.variable} is not set")
            if not environ[self.variable]:
                raise ValueError(f"the environment variable {self.variable} is empty")
            return environ[self.variable]
        return _read(directory / self.file) if self.file else self.text


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


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_SECRET_BYTES + 1)
        secret = content.decode()
    except OSError as error:
        raise ValueError(f"the file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not UTF-8 text") from None
    except ValueError:
        raise ValueError("the file's name holds an impossible character") from None
    if len(content) > _MAX_SECRET_BYTES:
        raise ValueError(f"the file {path} is larger than {_MAX_SECRET_BYTES} bytes")
    secret = secret.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise ValueError(f"the file {path} is empty")
    return secret


def _reference(value: object) -> SecretReference:
    if isinstance(value, str):
        return _text_reference(value)
    if isinstance(value, dict) and list(value) == ["file"]:
        file = value["file"]
        if isinstance(file, str) and file:
            return SecretReference(file=file)
    raise PydanticCustomError("secret", 'must be text, "${VARIABLE}" or {"file": "path"}')


def _text_reference(text: str) -> SecretReference:
    if not text:
        raise PydanticCustomError("secret", "must not be empty")
    if reference := _VARIABLE.fullmatch(text):
        return SecretReference(variable=reference[1])
    if text.startswith("${"):
        raise PydanticCustomError(
            "secret", 'begins with "${" but is not "${VARIABLE}"; put such a secret into a file'
        )
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise PydanticCustomError("secret", "holds half a surrogate pair, which is no character")
    return SecretReference(text=text)


Secret = Annotated[
    SecretReference,
    PlainValidator(_reference),
    WithJsonSchema(
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
    ),
]
