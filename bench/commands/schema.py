"""`xoauth2-bench schema`: the JSON schema of each document and of a scenario file."""

# Annotations are read by typer when the command is built, so they stay real objects here.
import json
from enum import StrEnum
from importlib import resources
from typing import Annotated

import typer
from typer.core import TyperCommand

from bench.options.dataclass_options import single_command

HELP = """Print the JSON Schema (2020-12) of a run, a comparison, a sweep or a scenario file.

Names of figures include their units. null means that there is no value.
"""


class SchemaKind(StrEnum):
    """A kind of document."""

    RUN = "run"
    COMPARISON = "comparison"
    SWEEP = "sweep"
    SCENARIO = "scenario"


_WITH_RUNS = (SchemaKind.COMPARISON, SchemaKind.SWEEP)  # they refer to a run's schema by its $id


def schema(
    kind: Annotated[SchemaKind, typer.Argument(help="Kind of document.")] = SchemaKind.RUN,
) -> None:
    """Print the schema."""
    print(text(kind), end="")  # noqa: T201


def text(kind: SchemaKind = SchemaKind.RUN) -> str:
    """Return the complete schema; a document that holds runs includes the schema of a run."""
    if kind not in _WITH_RUNS:
        return _file(kind)
    schema = json.loads(_file(kind))
    schema.setdefault("$defs", {})["run"] = json.loads(_file(SchemaKind.RUN))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _file(kind: SchemaKind) -> str:
    return (resources.files("bench") / "schema" / f"{kind}.schema.json").read_text("utf-8")


def command() -> TyperCommand:
    """Return the sub-command."""
    return single_command("schema", schema, help=HELP)
