from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bench.client.login import Mechanism
from bench.options.scenario_file import ScenarioFile, ScenarioFileError, read
from bench.options.scenario_schema import schema

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "bench" / "schema" / "scenario.schema.json"
EXAMPLES = sorted((ROOT / "docs" / "scenarios").glob("*.toml"))

WHOLE = """
version = 1
name = "a-case"
description = "Shows nothing."
assert = ["p95<=500ms", "lost==0"]

[load]
arrival_rate = 50
duration = 2.5
concurrent = 7
sizes = "4k:70,100k:25"
recipients = "1-3"
connection = "per-message"
pipelined = true
from = ["one@example.org", "two@example.org"]
to = "somebody@example.org"
mechanism = "oauthbearer"

[provider]
profile = "gmail"
seed = 7

[provider.overrides]
rtt_seconds = 0.01

[[provider.faults]]
step = "end"
action = "drop"
rate = 0.01
"""


def case(folder: Path, document: str | dict[str, Any]) -> ScenarioFile:
    if isinstance(document, str):
        path = folder / "case.toml"
        path.write_text(document)
    else:
        path = folder / "case.json"
        path.write_text(json.dumps({"version": 1, "name": "a-case"} | document))
    return read(path)


def problems(folder: Path, document: str | dict[str, Any]) -> list[str]:
    with pytest.raises(ScenarioFileError) as told:
        case(folder, document)
    assert all(one in str(told.value) for one in told.value.problems)
    return told.value.problems


def test_load_provider_faults_and_assertions_are_read(tmp_path: Path) -> None:
    found = case(tmp_path, WHOLE)
    options = found.options
    assert (found.name, found.assertions) == ("a-case", ("p95<=500ms", "lost==0"))
    assert (options.arrival_rate, options.duration, options.concurrent) == (50, 2.5, 7)
    assert options.from_emails == ["one@example.org", "two@example.org"]
    assert options.to_email == "somebody@example.org"
    assert options.mechanism is Mechanism.OAUTHBEARER
    assert options.pipelined
    assert found.provider["profile"] == "gmail"


def test_json_says_the_same_as_toml(tmp_path: Path) -> None:
    assert case(tmp_path, tomllib.loads(WHOLE)) == case(tmp_path, WHOLE)


def test_what_is_left_out_is_the_command_lines_default(tmp_path: Path) -> None:
    options = case(tmp_path, {}).options
    assert (options.scenario, options.num_emails, options.warmup) == (None, None, 0.0)
    assert options.drain_seconds == 30.0


def test_everything_wrong_is_told_at_once_with_its_path(tmp_path: Path) -> None:
    document = {
        "version": 2,
        "name": "A case!",
        "frequency": 1,
        "load": {
            "arrival_rate": -1,
            "concurrent": "many",
            "num_mails": 5,
            "sizes": "4x",
            "recipients": "0",
            "connection": "sometimes",
            "scenario": "compare",
            "mechanism": "digest",
            "duration": None,
        },
        "provider": {
            "profile": "yahoo",
            "overrides": {"rtt_seconds": -1, "speed": 3},
            "faults": [{"step": "end", "action": "drop"}, {"step": "end", "action": "sing"}],
        },
        "assert": ["lost==0", "p95<=500"],
    }
    found = problems(tmp_path, document)
    paths = {one.partition(":")[0] for one in found}
    assert paths == {
        *("version", "name", "frequency"),
        *("load.arrival_rate", "load.concurrent", "load.num_mails", "load.sizes"),
        *("load.recipients", "load.connection", "load.scenario", "load.mechanism"),
        "load.duration",
        *("provider.profile", "provider.overrides.rtt_seconds", "provider.overrides.speed"),
        "provider.faults[1].action",
        "assert[1]",
    }
    assert len(found) == len(paths)
    assert "frequency: there is no such key" in found


@pytest.mark.parametrize(
    ("load", "path"),
    [
        ({"num_emails": 5, "duration": 2}, "load.duration"),
        ({"size_bytes": 5, "sizes": "4k"}, "load.sizes"),
        ({"ramp_from": 5}, "load.ramp_from"),
        ({"from": ["nobody"]}, "load.from"),
        ({"to": "nobody"}, "load.to"),
        ({"eml_dir": "nowhere"}, "load.eml_dir"),
    ],
)
def test_what_does_not_go_together_is_told_with_its_path(
    tmp_path: Path, load: dict[str, Any], path: str
) -> None:
    (problem,) = problems(tmp_path, {"load": load})
    assert problem.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("case.toml", "version = ", "Invalid value"),
        ("case.json", "{", "line 1"),
        ("case.json", "[]", "no object"),
        ("case.json", '{"name": "a", "name": "b"}', "written twice"),
        ("case.json", "[" * 100_000, "nested too deeply"),
        ("case.json", "\xff", "can't decode"),
        ("case.yaml", "", "neither in .toml nor in .json"),
        ("case.toml", "#" * (1 << 20) + "#", "larger than"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words(
    tmp_path: Path, name: str, text: str, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ScenarioFileError) as told:
        read(path)
    assert name in str(told.value)
    assert complaint in str(told.value)
    with pytest.raises(ScenarioFileError, match="No such file"):
        read(tmp_path / "there-is-none.toml")


@pytest.mark.parametrize("value", ["nan", "inf", "1979-05-27T07:32:00Z"])
def test_values_that_only_toml_has_are_refused_with_their_path(tmp_path: Path, value: str) -> None:
    text = f'version = 1\nname = "a"\n[load]\nwarmup = {value}\n[provider]\nseed = {value}\n'
    paths = [one.partition(":")[0] for one in problems(tmp_path, text)]
    assert paths == ["load.warmup", "provider.seed"]


def test_a_folder_of_messages_is_looked_for_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "one.eml").write_bytes(b"Subject: a\r\n\r\nb\r\n")
    assert case(tmp_path, {"load": {"eml_dir": "mail"}}).options.eml_dir == tmp_path / "mail"


def test_clients_log_in_with_passwords_where_the_token_endpoint_matters(tmp_path: Path) -> None:
    provider = {"faults": [{"step": "token", "action": "503"}]}
    assert case(tmp_path, {"provider": provider}).options.mechanism is Mechanism.PLAIN
    (problem,) = problems(tmp_path, {"provider": provider, "load": {"mechanism": "xoauth2"}})
    assert problem.startswith("load.mechanism: ")


def test_the_published_schema_is_that_of_the_models() -> None:
    assert json.loads(PUBLISHED.read_text()) == schema(), (
        "bench/schema/scenario.schema.json is out of date: write `schema()` of "
        "bench.options.scenario_schema there"
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_right_by_the_schema_and_by_the_program(path: Path) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert list(validator.iter_errors(tomllib.loads(path.read_text()))) == []
    assert read(path).name == path.stem


def test_the_schema_refuses_what_the_program_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(tomllib.loads(WHOLE))
    good: dict[str, Any] = {"version": 1, "name": "a-case"}
    assert validator.is_valid(good)
    for wrong in (
        {"version": 2},
        {"name": "A case!"},
        {"load": {"arrival_rate": 0}},
        {"load": {"from_emails": ["one@example.org"]}},
        {"load": {"password": "secret"}},
        {"provider": {"profile": "yahoo"}},
        {"provider": {"faults": [{"step": "end", "action": "sing"}]}},
        {"assert": "lost==0"},
        {"extra": 1},
    ):
        assert not validator.is_valid(good | wrong), wrong
