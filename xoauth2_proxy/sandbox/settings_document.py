"""Reads a provider's settings from a document: profile, overrides, faults, token endpoint.

Scenario files contain such a document as an object.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, TypeAdapter, ValidationError

from xoauth2_proxy.sandbox.behaviour import STRICT, Behaviour, ProviderProfile, shown
from xoauth2_proxy.sandbox.faults import MAX_FAULTS, Fault, TokenFault
from xoauth2_proxy.sandbox.profiles import PROFILES
from xoauth2_proxy.sandbox.provider_settings import (
    MAX_SEED,
    ProviderSettings,
    TokenEndpointSettings,
)

_PERIODS = ("minute_seconds", "day_seconds")
_TAGS = ("smtp", "token")
OVERRIDES = tuple(field.name for field in fields(Behaviour))  # what `overrides` may hold
# What `token_endpoint` may hold and is written in a word.
TOKEN_SETTINGS = frozenset(field.name for field in fields(TokenEndpointSettings)) - {"clients"}


def _kind(fault: object) -> str:
    step = fault.get("step") if isinstance(fault, dict) else getattr(fault, "step", "")
    return "token" if step == "token" else "smtp"


class _Document(BaseModel, title="Provider"):
    """A stand-in mail provider for tests."""

    model_config = STRICT

    profile: ProviderProfile = Field(
        default=ProviderProfile.UNLIMITED,
        description="The provider whose limits and words it starts with.",
    )
    overrides: Behaviour | None = Field(
        default=None, description="Settings that differ from the profile."
    )
    faults: list[
        Annotated[
            Annotated[Fault, Tag("smtp")] | Annotated[TokenFault, Tag("token")],
            Discriminator(_kind),
        ]
    ] = Field(default=[], max_length=MAX_FAULTS)
    token_endpoint: TokenEndpointSettings = TokenEndpointSettings()
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="Seed of the random faults and delays."
    )

    def behaviour(self, given: Mapping[str, object]) -> Behaviour:
        """Return the profile's behaviour with the given overrides."""
        profile = PROFILES[self.profile]
        if self.overrides is None:
            return profile
        return replace(profile, **{name: getattr(self.overrides, name) for name in given})


def read_settings(document: object, where: str = "") -> ProviderSettings:
    """Return the settings of a document; missing values are those of the profile.

    Raises:
        ValueError: the document is invalid; the text names each place, starting with `where`.
    """
    try:
        octets = json.dumps(document)
        read = _Document.model_validate_json(octets)
    except ValidationError as error:
        raise ValueError(_describe_errors(error, where)) from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where or 'the provider'}: {error}") from None
    given = document["overrides"] if isinstance(document, dict) and read.overrides else {}
    try:
        behaviour = read.behaviour(given)
    except ValidationError as error:
        raise ValueError(_describe_errors(error, f"{where}.overrides".lstrip("."))) from None
    return ProviderSettings(
        behaviour=behaviour,
        faults=tuple(read.faults),
        token_endpoint=read.token_endpoint,
        seed=read.seed,
    )


def read_document(file: Path) -> dict[str, object]:
    """Return the document of a settings file, JSON or TOML by its name.

    Raises `ValueError`: it cannot be read, or holds no object; the text names the file.
    """
    try:
        text = file.read_text(encoding="utf-8")
        document = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file} holds no object")
    return document


def read_settings_file(file: Path | None) -> ProviderSettings:
    """Return the settings of a file; without one, the usual settings.

    Raises `ValueError`: the file cannot be read or is invalid; the text says where.
    """
    if file is None:
        return ProviderSettings()
    document = read_document(file)
    try:
        return read_settings(document)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def fault_from(document: object) -> Fault | TokenFault:
    """Return one fault from its document.

    Raises `ValueError`: it is invalid; the text says where.
    """
    try:
        return read_settings({"faults": [document]}).faults[0]
    except ValueError as error:
        raise ValueError(
            str(error).replace("faults[0].", "").replace("faults[0]", "fault")
        ) from None


def describe(behaviour: Behaviour) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of each setting that has an effect."""
    rows = []
    for name, setting in TypeAdapter(Behaviour).json_schema()["properties"].items():
        value = getattr(behaviour, name)
        if name == "rate_limits":
            if not value:
                rows.append((name, shown(value), str(setting["description"])))
        elif value and not (name in _PERIODS and value == setting["default"]):
            rows.append((name, shown(value), str(setting["description"])))
    return rows


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema of the documents that `read_settings` takes."""
    return _Document.model_json_schema()


def _describe_errors(error: ValidationError, where: str) -> str:
    problems = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        path = where
        for part in problem["loc"]:
            if part not in _TAGS:
                path += f"[{part}]" if isinstance(part, int) else f".{part}"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
            message = "there is no such key"
        if problem["type"] == "enum" and problem["loc"][-1] == "step":
            message += ", or 'token' for the token endpoint"
        problems.append(f"{path.lstrip('.') or 'the provider'}: {message}")
    return "; ".join(problems)
