"""What every object of the configuration file has in common."""

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError


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

    def faults(self) -> Iterable[tuple[str, str]]:
        """Yield each key that does not go with the others, and why."""
        return ()

    def warnings(self) -> Iterator[str]:
        """Yield what the operator should know although nothing is wrong."""
        return iter(())
