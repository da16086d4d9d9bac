"""Reads a scenario file, in JSON or TOML: load, provider, faults and expected result.

All errors are reported together, each with its path. A scenario runs against its own proxy and
provider, which makes a failure reproducible.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer
from pydantic import ValidationError

from bench.client.login import Mechanism
from bench.options import request_builder
from bench.options.run_options import RunOptions
from bench.options.scenario_schema import ScenarioDocument
from bench.targets.private_provider import asks_token_endpoint
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_BYTES = 1 << 20


class ScenarioFileError(Exception):
    """The file is not a valid scenario; `problems` lists each error with its path."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        count = len(problems)
        head = f"{path}: {count} problem{'s'[: count != 1]}:"
        super().__init__("\n  ".join([head, *problems]))
        self.problems = problems


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioFile:
    """A validated scenario."""

    name: str
    options: RunOptions  # of the load; no target and no reports
    provider: Mapping[str, object]  # as `read_settings` reads it
    limits: Mapping[str, object]  # of the relay, per mailbox
    assertions: tuple[str, ...]


def read(path: Path) -> ScenarioFile:
    """Return the scenario in the file; the suffix, .toml or .json, gives its format.

    Raises:
        ScenarioFileError: the file is invalid; it lists every problem.
    """
    document = _parsed(path)
    problems: list[str] = []
    case: Any = None
    try:
        # As JSON, which applies the same types to both formats.
        case = ScenarioDocument.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems += _told(error)
    provider = document.get("provider")
    if isinstance(provider, dict):
        problems += _provider_problems(provider)
    if problems:
        raise ScenarioFileError(path, problems)
    options = _options(case, path.parent)
    problems += _contradictions(options, case.provider)
    if problems:
        raise ScenarioFileError(path, problems)
    return ScenarioFile(
        name=case.name,
        options=options,
        provider=case.provider,
        limits=case.relay.limits.model_dump(exclude_none=True),
        assertions=tuple(case.assertions),
    )


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            octets = file.read(_MAX_BYTES + 1)
        if len(octets) > _MAX_BYTES:
            raise ValueError(f"it is larger than {_MAX_BYTES} octets")
        document = _members(path.suffix, octets.decode("utf-8-sig"))
    except RecursionError:
        raise ScenarioFileError(path, ["it is nested too deeply"]) from None
    except (OSError, ValueError) as error:
        raise ScenarioFileError(path, [getattr(error, "strerror", None) or str(error)]) from None
    if not isinstance(document, dict):
        raise ScenarioFileError(path, ["it holds no object"])
    return document


def _members(suffix: str, text: str) -> object:
    if suffix == ".toml":
        # JSON has no dates; they become text.
        return json.loads(json.dumps(tomllib.loads(text), default=str))
    if suffix != ".json":
        raise ValueError("its name ends neither in .toml nor in .json")
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError(f"a key is written twice in one object, near {pairs[-1][0]!r}")
    return members


def _options(case: Any, folder: Path) -> RunOptions:  # noqa: ANN401 - of a model made here
    values = case.load.model_dump(exclude_unset=True)
    if "eml_dir" in values:
        values["eml_dir"] = folder / values["eml_dir"]
    if asks_token_endpoint(case.provider):
        # If the client brings a token, the relay requests none.
        values.setdefault("mechanism", Mechanism.PLAIN)
    return RunOptions(use_mock_tokens=True, assertions=case.assertions or None, **values)


def _contradictions(options: RunOptions, provider: Mapping[str, object]) -> list[str]:
    """Return the conflicts between values that are valid by themselves."""
    problems = []
    if options.eml_dir is not None and not options.eml_dir.is_dir():
        return [f"load.eml_dir: there is no folder {options.eml_dir}"]
    if asks_token_endpoint(provider) and options.mechanism in {
        Mechanism.XOAUTH2,
        Mechanism.OAUTHBEARER,
    }:
        problems.append(
            f"load.mechanism: with {options.mechanism}, clients bring their own tokens, and the "
            "token endpoint, which has settings or faults here, is never used; plain or login"
        )
    try:
        request_builder.request_of(options)
    except typer.BadParameter as error:
        key = str(error.param_hint).removeprefix("--").replace("-", "_")
        problems.append(f"load.{key}: {error.message}")
    return problems


def _told(error: ValidationError) -> list[str]:
    problems = []
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        path = ""
        for part in problem["loc"]:
            path += f"[{part}]" if isinstance(part, int) else f".{part}"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such key"
        problems.append(f"{path.lstrip('.') or 'the file'}: {message}")
    return problems


def _provider_problems(provider: dict[str, Any]) -> list[str]:
    try:
        read_settings(provider, "provider")
    except ValueError as error:
        # One text with all of them, each beginning with its path.
        return re.split(r"; (?=provider[.:\[])", str(error))
    return []
