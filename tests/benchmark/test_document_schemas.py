"""The published forms against documents that the program really made, and against spoilt ones."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from bench.analysis.comparison import compare
from bench.commands import schema as schema_command
from bench.commands.schema import SchemaKind
from tests.benchmark.runs import invoked, strict_json
from tests.benchmark.scripted_server import PASSWORD, scripted_server
from tests.support.beside import beside
from tests.support.run_documents import run_document, steady

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

on_one_loop = pytest.mark.one_loop
LOGIN = ("--from", "someone@example.org", "--password", PASSWORD)


def wrong(kind: SchemaKind, document: object) -> list[str]:
    """Return what the published schema finds wrong with the document."""
    validator = jsonschema.Draft202012Validator(json.loads(schema_command.text(kind)))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("kind", list(SchemaKind))
def test_a_schema_is_one(kind: SchemaKind) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_command.text(kind)))


@pytest.mark.parametrize("kind", [SchemaKind.COMPARISON, SchemaKind.SWEEP])
def test_the_schema_is_printed_whole(tmp_path: Path, kind: SchemaKind) -> None:
    code, out, _ = invoked(tmp_path, "schema", kind.value)
    assert (code, out) == (0, schema_command.text(kind))
    assert strict_json(out)["$defs"]["run"] == json.loads(schema_command.text(SchemaKind.RUN))


@on_one_loop
def test_what_the_program_writes_is_of_the_published_form(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        port = ("--port", str(server.port), *LOGIN)
        for name in ("a", "b"):
            arguments = (*port, "--num-emails", "20", "--output", f"{name}.json")
            assert (invoked(tmp_path, *arguments))[0] == 0
        assert (invoked(tmp_path, "compare", "a.json", "b.json", "--output", "c.json"))[0] == 0
        sweeping = ("sweep", *port, "--concurrent", "1,2", "--num-emails", "20")
        assert (invoked(tmp_path, *sweeping, "--output", "s.json"))[0] == 0
        pair = (*port, "--scenario", "compare", "--num-emails", "20", "--yes")
        assert (invoked(tmp_path, *pair, "--output", "p.json"))[0] == 0
    for name, kind in (
        ("a", SchemaKind.RUN),
        ("c", SchemaKind.COMPARISON),
        ("p", SchemaKind.COMPARISON),
        ("s", SchemaKind.SWEEP),
    ):
        assert wrong(kind, strict_json((tmp_path / f"{name}.json").read_text())) == [], name


def comparison(count: int = 4) -> dict[str, Any]:
    before = [run_document(steady(100 + at, 0.01)) for at in range(count)]
    after = [run_document(steady(200 + at, 0.02), dropped_at=[0.1]) for at in range(count)]
    return json.loads(json.dumps(compare(before, after)))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "document",
    [
        comparison(),
        comparison(1),
        compare(
            [run_document(steady(9, 0.1))], [run_document([(1.0, "550")], reconciliation=None)]
        ),
        compare([run_document(steady(9, 0.1))] * 3, [run_document([(0.5, "535")])] * 3),
        compare(
            [run_document(steady(9, 0.1), dropped_at=[])] * 3,
            [run_document(steady(9, 0.1), dropped_at=[0.1])] * 3,
        ),
    ],
)
def test_comparisons_of_every_sort_are_of_the_published_form(document: dict[str, Any]) -> None:
    assert wrong(SchemaKind.COMPARISON, json.loads(json.dumps(document))) == []


def objects(found: Any) -> Iterator[dict[str, Any]]:
    if isinstance(found, dict):
        yield found
        for one in found.values():
            yield from objects(one)
    elif isinstance(found, list):
        for one in found:
            yield from objects(one)


def test_every_object_of_a_comparison_is_described_to_its_last_name() -> None:
    document = comparison()
    for side in ("baseline", "candidate"):
        del document[side][1:]  # the runs are not what is looked at
    assert wrong(SchemaKind.COMPARISON, document) == []
    count = len(list(objects({**document, "baseline": [], "candidate": []})))
    for at in range(count):
        more, less = copy.deepcopy(document), copy.deepcopy(document)
        list(objects({**more, "baseline": [], "candidate": []}))[at]["surprise"] = 1
        if at:  # the first one is the copy made here
            assert wrong(SchemaKind.COMPARISON, more), at
            spoilt = list(objects({**less, "baseline": [], "candidate": []}))[at]
            del spoilt[next(iter(spoilt))]
            assert wrong(SchemaKind.COMPARISON, less), at
    assert wrong(SchemaKind.COMPARISON, document | {"surprise": 1})
    assert wrong(SchemaKind.COMPARISON, document | {"baseline": [{}]})
    assert wrong(SchemaKind.SWEEP, {"schema_version": 2, "kind": "sweep"})
