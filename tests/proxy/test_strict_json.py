"""JSON is parsed strictly, without comments, and faults are named by their place."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.strict_json import COMMENT_PREFIX, json_path, parse

KEYS = st.text().filter(lambda key: not key.startswith(COMMENT_PREFIX))
LEAVES = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    LEAVES, lambda values: st.lists(values) | st.dictionaries(KEYS, values), max_leaves=20
)


@given(VALUES)
def test_what_is_written_is_what_is_parsed(value: object) -> None:
    assert parse(json.dumps(value).encode()) == (value, [])


@given(st.dictionaries(KEYS, LEAVES), st.text(), VALUES)
def test_a_comment_changes_nothing(value: dict[str, object], rest: str, comment: object) -> None:
    commented = value | {COMMENT_PREFIX + rest: comment}
    assert parse(json.dumps([commented]).encode()) == ([value], [])


@given(st.binary())
def test_no_octets_raise_another_error_than_value_error(octets: bytes) -> None:
    with suppress(ValueError):
        parse(octets)


def test_each_key_that_is_written_twice_is_named() -> None:
    text = b'[{"a": {"b": 1, "b": 2}}, {"my key": 1, "my key": {"c": 1, "c": 2}, "_comment": 1}]'
    _, faults = parse(text, "accounts")
    assert [path for path, _ in faults] == [
        "accounts[0].a.b",
        'accounts[1]["my key"]',
        'accounts[1]["my key"].c',
    ]


@pytest.mark.parametrize(
    ("pieces", "path"),
    [
        (("accounts", 3, "upstream", "port"), "accounts[3].upstream.port"),
        (("a-b", "c d", ""), 'a-b["c d"][""]'),
        (("x" * 100,), "x" * 80 + "..."),
    ],
)
def test_a_path_is_written_as_in_javascript(pieces: tuple[str | int, ...], path: str) -> None:
    assert json_path("", *pieces) == path


def test_a_text_is_called_by_its_name() -> None:
    with pytest.raises(ValueError, match="line 1, column 1: the body is empty"):
        parse(b"", name="body")
