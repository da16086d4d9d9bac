"""The format of a scenario file: its types, limits and published schema.

The keys of `load` are generated from the definitions of the command line's options; `provider` has
the format of the sandbox's settings.
"""

# Annotations are read by pydantic, so they stay real objects here.
import dataclasses
import types
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, create_model

from bench.analysis import assertions
from bench.options.run_options import CLIENTS, LOAD, MESSAGES, RunOptions
from bench.plan.scenarios import COMPARE, SCENARIOS
from bench.plan.workloads import ConnectionReuse, Recipients, Sizes
from xoauth2_proxy.sandbox.settings_document import document_schema

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_MAX_ASSERTIONS = 100

# Options in other groups that belong to the load as well; and the one that names the file.
_MORE = frozenset({"from_emails", "mechanism", "token_ttl", "drain_seconds", "reply_seconds"})
_NOT = frozenset({"scenario_file", "runs", "users"})
# Without scenarios that have two runs or their own provider, which the file defines.
_SCENARIOS = tuple(
    one.name
    for one in SCENARIOS.values()
    if one.name != COMPARE and one.provider is None and one.accounts is None
)


def _checked(parse: Callable[[str], object]) -> AfterValidator:
    """Return a validator that accepts text if `parse` does."""

    def check(text: str) -> str:
        parse(text)
        return text

    return AfterValidator(check)


def _known(name: str) -> None:
    if name not in _SCENARIOS:
        raise ValueError(f"is not one of {', '.join(_SCENARIOS)}")


_CHECKS: dict[str, tuple[Any, ...]] = {
    "scenario": (_checked(_known), WithJsonSchema({"type": "string", "enum": [*_SCENARIOS]})),
    "sizes": (_checked(Sizes.parse),),
    "recipients": (_checked(Recipients.parse),),
    "connection": (_checked(ConnectionReuse.parse),),
}


def _load_model() -> type[BaseModel]:
    """Return the model of `load`, with a field for each command-line option of the load.

    Each has the option's type, limits and help.
    """
    hints = get_type_hints(RunOptions, include_extras=True)
    fields: dict[str, Any] = {}
    for one in dataclasses.fields(RunOptions):
        kind, option = get_args(hints[one.name])
        is_load = option.rich_help_panel in {LOAD, MESSAGES, CLIENTS} or one.name in _MORE
        if is_load and one.name not in _NOT:
            annotated: Any = Annotated[
                (_without_none(kind), _field(one.name, option), *_CHECKS.get(one.name, ()))
            ]
            fields[one.name] = (annotated, one.default)
    return create_model("Load", __config__=_STRICT, __doc__="What is sent, and when.", **fields)


def _field(name: str, option: typer.models.OptionInfo) -> Any:  # noqa: ANN401 - pydantic's own
    def drop_null(schema: dict[str, Any]) -> None:
        if schema.get("default", 0) is None:
            del schema["default"]

    return Field(
        alias=_key(name, option),
        ge=option.min,
        le=option.max,
        description=option.help,
        json_schema_extra=drop_null,
    )


def _key(name: str, option: typer.models.OptionInfo) -> str:
    """Return the option's long name as a key."""
    # In an annotation, typer takes the first name for a default and corrects that later.
    words = (option.default, *(option.param_decls or ()))
    long = [one for one in words if isinstance(one, str) and one.startswith("--")]
    return long[0].removeprefix("--").replace("-", "_") if long else name


def _without_none(kind: Any) -> Any:  # noqa: ANN401 - a type
    if get_origin(kind) is not types.UnionType:
        return kind
    (wanted,) = (one for one in get_args(kind) if one is not types.NoneType)
    return wanted


LoadSection = _load_model()
_Assertion = Annotated[
    str, _checked(lambda one: [assertions.parse(each) for each in assertions.expanded([one])])
]


class RelayLimits(BaseModel):
    """What the relay allows each mailbox."""

    model_config = _STRICT

    max_connections: int = Field(
        default=50, ge=1, le=1000, description="Connections to the provider."
    )
    max_messages_per_connection: int = Field(
        default=1000, ge=1, description="Then the relay opens another and logs in again."
    )
    messages_per_minute: int | None = Field(default=None, ge=1, description="Further ones wait.")
    wait_seconds: float | None = Field(
        default=None,
        ge=0,
        le=3600,
        description="Longest wait for a connection or a turn; then 451 4.3.2.",
    )


class RelaySection(BaseModel):
    """The relay of the case."""

    model_config = _STRICT

    limits: RelayLimits = Field(default_factory=RelayLimits)


class ScenarioDocument(BaseModel, title="Scenario"):
    """A case for xoauth2-bench: load, provider and faults, and what has to come of it."""

    model_config = _STRICT

    schema_url: str = Field(default="", alias="$schema", description="For editors.")
    version: Literal[1] = Field(description="Of this form.")
    name: str = Field(
        pattern="^[a-z0-9][a-z0-9-]{0,63}$", description="Name of the run in the report."
    )
    description: str = Field(default="", max_length=2000, description="Description for people.")
    load: LoadSection = Field(default_factory=LoadSection)  # type: ignore[valid-type]
    provider: dict[str, Any] = {}
    relay: RelaySection = Field(default_factory=RelaySection)
    assertions: list[_Assertion] = Field(
        default=[],
        alias="assert",
        max_length=_MAX_ASSERTIONS,
        description="What the run has to reach, as p95<=500ms or lost==0. They decide instead of "
        "the rule that every message must succeed.",
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a scenario file."""
    document = ScenarioDocument.model_json_schema()
    provider = document_schema()
    definitions = document.pop("$defs") | provider.pop("$defs")
    document["properties"]["provider"] = {"$ref": "#/$defs/Provider"}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return head | document | {"$defs": definitions | {"Provider": provider}}
