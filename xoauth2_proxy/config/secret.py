"""Secrets as the configuration writes them: `"text"`, `"${VARIABLE}"` or `{"file": "path"}`.

A problem's text names the variable or the file, never the value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from pydantic import PlainValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from xoauth2_proxy.accounts.local_password import LocalPassword, local_password

if TYPE_CHECKING:
    from xoauth2_proxy.config.environment import Environment

VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)
KIND = "secret"  # of a validation error

_SECRET_KEYS = re.compile(r"(^|_)(password|secret|token|key|webhook|url)$")


def holds_secrets(document: object) -> bool:
    """Whether any secret is written out in a document, but for those of the sandbox's accounts."""
    if isinstance(document, list):
        return any(map(holds_secrets, document))
    if not isinstance(document, dict) or document.get("provider") in ("mock", "sandbox"):
        return False
    return any(
        isinstance(value, str)
        and not value.startswith(("${", "$argon2"))
        and (not key.endswith("url") or "@" in value)  # as that of Redis, with a password
        if _SECRET_KEYS.search(key)
        else holds_secrets(value)
        for key, value in document.items()
    )


def _secret(value: object, info: ValidationInfo) -> str:
    """Return the secret itself; "" where there is no environment to look it up in."""
    environment: Environment | None = info.context
    try:
        match value:
            case {"file": str(name), **others} if name and not others:
                return environment.secret_in(name) if environment else ""
            case str(text):
                reference = VARIABLE.fullmatch(_checked(text))
                if reference is None:
                    return text
                return environment.variable(reference[1]) if environment else ""
        raise ValueError('must be text, "${VARIABLE}" or {"file": "path"}')
    except ValueError as error:
        raise PydanticCustomError(KIND, "{fault}", {"fault": str(error)}) from None


def _checked(text: str) -> str:
    if not text:
        raise ValueError("must not be empty")
    if text.startswith("${") and not VARIABLE.fullmatch(text):
        raise ValueError('begins with "${" but is not "${VARIABLE}"; put such a secret into a file')
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half a surrogate pair, which is no character")
    return text


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
