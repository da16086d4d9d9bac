"""How each written form of a secret is resolved, and what is said when it cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import argon2
import pytest
from pydantic import TypeAdapter, ValidationError

from xoauth2_proxy.accounts.local_password import local_password
from xoauth2_proxy.config.environment import Environment
from xoauth2_proxy.config.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

_HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("secret")
_SECRET: TypeAdapter[str] = TypeAdapter(Secret)


def resolved(written: object, directory: Path, **environ: str) -> str:
    environment = Environment(directory=directory, state_dir=directory, environ=environ)
    return _SECRET.validate_python(written, context=environment)


@pytest.mark.parametrize("text", ["secret", " ", "$", "$HOME", "x${HOME}", "{HOME}", "geheimä"])
def test_text_is_the_secret_itself(tmp_path: Path, text: str) -> None:
    assert resolved(text, tmp_path, HOME="no") == text


def test_variable_stands_for_its_value(tmp_path: Path) -> None:
    assert resolved("${A_1}", tmp_path, A_1="  secret ") == "  secret "


def test_value_of_a_variable_is_not_a_reference_again(tmp_path: Path) -> None:
    assert resolved("${A}", tmp_path, A="${B}", B="no") == "${B}"


@pytest.mark.parametrize(
    "text", ["${", "${}", "${A", "${A}x", "${A}${B}", "${A-b}", "${1A}", "${ A }", "${A}\n"]
)
def test_text_that_only_begins_like_a_reference_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r'is not "\$\{VARIABLE\}"'):
        _SECRET.validate_python(text)


@pytest.mark.parametrize(
    "written", [None, 1, True, [], {}, {"file": ""}, {"file": 1}, {"file": "a", "b": 1}, {"b": "a"}]
)
def test_other_forms_are_refused(written: object) -> None:
    with pytest.raises(ValidationError, match=r'must be text, "\$\{VARIABLE\}" or \{"file"'):
        _SECRET.validate_python(written)


@pytest.mark.parametrize(("environ", "words"), [({}, "is not set"), ({"A": ""}, "is empty")])
def test_variable_that_is_missing_is_named(
    tmp_path: Path, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ValueError, match=f"variable A {words}"):
        resolved("${A}", tmp_path, **environ)


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        ("secret", "secret"),
        ("secret\n", "secret"),
        ("secret\r\n", "secret"),
        ("secret\n\n", "secret\n"),
        (" secret ", " secret "),
        ("${A}", "${A}"),
    ],
)
def test_file_loses_one_line_end(tmp_path: Path, content: str, secret: str) -> None:
    (tmp_path / "secret").write_bytes(content.encode())
    assert resolved({"file": "secret"}, tmp_path) == secret
    assert resolved({"file": str(tmp_path / "secret")}, tmp_path / "elsewhere") == secret


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"PLANTED\xff", "is not UTF-8"),
        (b"PLANTED" * 10_000, "is larger than 65536 bytes"),
    ],
)
def test_file_that_holds_no_secret_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "planted").write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        resolved({"file": "planted"}, tmp_path)
    assert str(tmp_path / "planted") in str(caught.value)
    assert "PLANTED" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"), [("gone", "No such file"), (".", "directory"), ("a\0b", "impossible")]
)
def test_file_that_cannot_be_read(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        resolved({"file": name}, tmp_path)


@pytest.mark.parametrize("variant", argon2.Type)
def test_every_argon2_hash_is_a_hash(variant: argon2.Type) -> None:
    stored = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, type=variant).hash("")
    assert local_password(stored).argon2_hash == stored


@pytest.mark.parametrize("text", ["secret", "argon2", "$2b$12$abc", "x$argon2id$v=19"])
def test_anything_else_is_clear_text(text: str) -> None:
    assert local_password(text).clear_text == text


@pytest.mark.parametrize(
    "broken",
    [_HASH[:-50], _HASH + "\n", _HASH + "$", _HASH.replace("m=", ""), "$argon2id$"],
    ids=["cut", "newline", "dollar", "no parameter", "beginning"],
)
def test_part_of_an_argon2_hash_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="argon2") as caught:
        local_password(broken)
    assert "$" not in str(caught.value)
