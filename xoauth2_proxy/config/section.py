"""What every object of the configuration file has in common, and how its problems are worded.

A problem's text is made from the kind of error: pydantic's own text may repeat the value, which may
be a secret.
"""

import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from xoauth2_proxy.config.environment import Environment
from xoauth2_proxy.config.problems import Fault, Problem
from xoauth2_proxy.config.secret import KIND as SECRET
from xoauth2_proxy.config.secret import VARIABLE
from xoauth2_proxy.strict_json import json_path

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


class Section(BaseModel):
    """An object of the file: frozen, no unknown keys, no conversions, no null.

    Validated with an `Environment` as its context, secrets and files are looked up and the rules
    apply; without one, only its shape is checked, as for an account that is disabled.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # one validator for the file, and none for each section in it
    )
    former_keys: ClassVar[Mapping[str, str]] = {}  # keys no longer read, and what to do instead

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        if value is None:
            raise ValueError("must not be null; leave the key out")
        return value

    @model_validator(mode="after")
    def _check_rules(self, info: ValidationInfo) -> Self:
        faults = [*self.faults()] if info.context is not None else []
        if faults:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(
                        type=PydanticCustomError("rule", "{fault}", {"fault": fault}),
                        loc=(key,),
                        input=None,
                    )
                    for key, fault in faults
                ],
            )
        return self

    def faults(self) -> Iterable[Fault]:
        """Yield each key that does not go with the others, and why."""
        return ()


def setting(default: object, description: str, **options: Any) -> Any:  # noqa: ANN401 - as Field
    """Return the definition of a key with a default; `options` are those of pydantic's `Field`."""
    return Field(default=default, description=description, **options)


def optional(description: str, **options: Any) -> Any:  # noqa: ANN401 - as Field
    """Return the definition of a key that is None if it is left out."""
    return setting(None, description, **options)


def required(description: str, **options: Any) -> Any:  # noqa: ANN401 - as Field
    """Return the definition of a key that must not be left out."""
    return Field(description=description, **options)


_S = TypeVar("_S", bound=Section)


def validate(
    model: type[_S],
    value: object,
    path: str,
    environment: Environment | None = None,
    stand_ins: Mapping[str, object] | None = None,
) -> tuple[_S | None, list[Problem]]:
    """Return `value` as a `model`, and what is wrong with it; if anything is, None.

    With `stand_ins`, the keys that are wrong are left out instead, so that the others can be judged
    further; `stand_ins` takes their place where the model requires them.
    """
    problems: list[Problem] = []
    for _ in range(4):  # keys that are malformed; those that break a rule; what then is missing
        try:
            return model.model_validate(value, context=environment), problems
        except ValidationError as error:
            details = error.errors(include_url=False)
        for detail in details:
            # "[key]" is pydantic's mark for what is wrong with a key itself, not with its value.
            where = detail["loc"][:-1] if detail["loc"][-1:] == ("[key]",) else detail["loc"]
            problems.append((json_path(path, *where), _words(detail, model, where)))
        if stand_ins is None or not isinstance(value, dict):
            break
        wrong = {detail["loc"][0] for detail in details}
        value = {key: one for key, one in value.items() if key not in wrong}
        value |= {key: one for key, one in stand_ins.items() if key in wrong}
    return None, problems


def keys_of(model: type[Section]) -> dict[str, FieldInfo]:
    """Return the definitions of a section's keys, by what the file calls them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return words that ask whether the one of `known` was meant that is near; "" for none."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _words(detail: ErrorDetails, model: type[Section], where: tuple[int | str, ...]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown(model, where)
    if isinstance(value, str) and VARIABLE.fullmatch(value) and kind != SECRET:
        return "must be written out: a variable works for secrets only, such as client_secret"
    if kind in _OURS:
        return _OURS[kind]
    for beginning, ours in _BEGINNINGS.items():
        if detail["msg"].startswith(beginning):
            return ours + detail["msg"].removeprefix(beginning)
    return detail["msg"]


def _unknown(model: type[Section], where: tuple[int | str, ...]) -> str:
    for piece in where[:-1]:
        if isinstance(piece, int):  # of an array, whose annotation names its sections
            continue
        annotation: Any = keys_of(model)[piece].annotation
        # Of a section that is optional, or of an array of them.
        model = next(iter(typing.get_args(annotation)), annotation)
    key = str(where[-1])
    return model.former_keys.get(key) or "unknown key" + did_you_mean(key, keys_of(model))
