"""`xoauth2-bench schema`: the form of a run's JSON and of a scenario file, for programs."""

# Annotations are read by typer when the command is built, so they stay real objects here.
from enum import StrEnum
from importlib import resources
from typing import Annotated

import typer

HELP = """Print a JSON Schema (2020-12): of a run's document, or of a scenario file.

In a run's document units are part of the names; null stands for "no value".
"""


class Kind(StrEnum):
    """What is described."""

    RUN = "run"
    SCENARIO = "scenario"


def schema(
    kind: Annotated[Kind, typer.Argument(help="Whose form; a run's.")] = Kind.RUN,
) -> None:
    """Print the schema."""
    print(text(kind), end="")  # noqa: T201


def text(kind: Kind = Kind.RUN) -> str:
    """Return the schema as it is published."""
    return (resources.files("bench") / "schema" / f"{kind}.schema.json").read_text("utf-8")
