"""`xoauth2-bench schema`: the form of a run's JSON, for programs that read it."""

from __future__ import annotations

from importlib import resources

HELP = """Print the JSON Schema (2020-12) of a run's document.

Units are part of the names; null stands for "no value".
"""


def schema() -> None:
    """Print the schema."""
    print(text(), end="")  # noqa: T201


def text() -> str:
    """Return the schema as it is published."""
    return (resources.files("bench") / "schema" / "run.schema.json").read_text("utf-8")
