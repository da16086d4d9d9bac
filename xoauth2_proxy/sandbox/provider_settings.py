"""The settings of a provider: profile, overrides, faults, token endpoint.

Scenario files contain them as an object, whose keys are the fields of these dataclasses.
"""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Discriminator, Field, Tag, ValidationError
from pydantic.dataclasses import dataclass

from xoauth2_proxy.sandbox.behaviour import PROFILES, STRICT, Behaviour, ProviderProfile
from xoauth2_proxy.sandbox.faults import MAX_FAULTS, Fault, TokenFault

_MAX_SEED = (1 << 63) - 1
_TAGS = ("smtp", "token")


class Rotation(StrEnum):
    """What happens to a refresh token that was used."""

    NONE = "none"  # it remains good, as at Google
    LENIENT = "lenient"  # a new one is issued, and old ones remain good, as at Microsoft
    ONCE = "once"  # a new one is issued, and the old one is refused
    STRICT = "strict"  # a new one is issued; using an old one ends the grant (RFC 9700 §4.14.2)


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class TokenEndpointSettings:
    """What the token endpoint issues, and to which clients."""

    ttl_seconds: float = Field(
        default=3600.0, gt=0, le=31_536_000, description="Lifetime of an access token."
    )
    rotation: Rotation = Field(
        default=Rotation.NONE, strict=False, description="What happens to a used refresh token."
    )
    clients: Mapping[str, str] = Field(
        default_factory=dict,
        max_length=1000,
        description='Secrets of known clients by id; public clients have "". None: any client.',
        repr=False,
    )

    def as_document(self) -> dict[str, object]:
        """Return the settings without the clients."""
        return {"ttl_seconds": self.ttl_seconds, "rotation": self.rotation.value}


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class ProviderSettings:
    """All settings of a provider except its addresses."""

    behaviour: Behaviour = Behaviour()
    faults: tuple[Fault | TokenFault, ...] = ()
    token_endpoint: TokenEndpointSettings = TokenEndpointSettings()
    seed: int = Field(default=0, ge=0, le=_MAX_SEED)

    @classmethod
    def from_dict(cls, document: object, where: str = "") -> "ProviderSettings":
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
        return cls(
            behaviour=behaviour,
            faults=tuple(read.faults),
            token_endpoint=read.token_endpoint,
            seed=read.seed,
        )


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
        default=0, ge=0, le=_MAX_SEED, description="Seed of the random faults and delays."
    )

    def behaviour(self, given: Mapping[str, object]) -> Behaviour:
        """Return the profile's behaviour with the given overrides."""
        profile = PROFILES[self.profile]
        if self.overrides is None:
            return profile
        return replace(profile, **{name: getattr(self.overrides, name) for name in given})


def document_schema() -> dict[str, Any]:
    """Return the JSON Schema of the documents that `ProviderSettings.from_dict` takes."""
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


OVERRIDES = tuple(field.name for field in fields(Behaviour))  # what `overrides` may hold
