"""What programs print: tokens alone, tokens with a lifetime, and complaints."""

from __future__ import annotations

import json
import string

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.oauth.refreshers.command_output import (
    UNSTATED_LIFETIME_SECONDS,
    UnreadableToken,
    last_line,
    parse_token,
)

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def lifetime(document: dict[str, object]) -> float:
    printed = json.dumps({"access_token": "token-1", **document}).encode()
    return parse_token(printed, NOW).lifetime_seconds


@pytest.mark.parametrize(
    "printed", [b"token-1", b"token-1\n", b"\n token-1 \r\n", b"token-1\nok\n"]
)
def test_a_token_stands_alone_on_the_first_line(printed: bytes) -> None:
    issued = parse_token(printed, NOW)
    assert issued.access_token == "token-1"
    assert issued.lifetime_seconds == UNSTATED_LIFETIME_SECONDS


@given(st.text(string.ascii_letters + string.digits + "-._~+/=", min_size=1))
def test_every_bearer_token_is_read_as_it_is(value: str) -> None:
    assert parse_token(f"{value}\n".encode(), NOW).access_token == value


@pytest.mark.parametrize(
    ("document", "seconds"),
    [
        ({"expires_in": 3599}, 3599.0),
        ({"expires_in": "3599"}, 3599.0),
        ({"expires_in": 3599.5}, 3599.5),
        ({"expires_at": NOW + 60}, 60.0),
        ({"expires_at": str(int(NOW) + 60)}, 60.0),
        ({"expiry": "2027-01-15T08:01:00Z"}, 60.0),
        ({"expiry": "2027-01-15T09:01:00.000+01:00"}, 60.0),
        ({"expires_at": "2027-01-15T08:01:00Z"}, 60.0),
        ({"expires_in": 5, "expires_at": NOW + 60}, 5.0),
    ],
)
def test_a_lifetime_is_told_in_any_of_the_usual_ways(
    document: dict[str, object], seconds: float
) -> None:
    assert lifetime(document) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"expires_in": None},
        {"expires_in": True},
        {"expires_in": "soon"},
        {"expires_in": float("inf")},
        {"expires_in": 10**400},
        {"expires_at": []},
        {"expiry": "2027-01-15T08:01:00"},  # whose clock?
        {"expiry": "tomorrow"},
    ],
)
def test_a_lifetime_that_cannot_be_read_is_a_short_one(document: dict[str, object]) -> None:
    assert lifetime(document) == UNSTATED_LIFETIME_SECONDS


def test_a_jwt_tells_its_own_end() -> None:
    token = jwt.encode({"exp": int(NOW) + 900}, "a key that nobody here knows, of 32 bytes")
    assert parse_token(token.encode(), NOW).lifetime_seconds == 900.0
    document = json.dumps({"access_token": token}).encode()
    assert parse_token(document, NOW).lifetime_seconds == 900.0


@pytest.mark.parametrize("token", ["a.b.c", "a.eyJ9.c", "a.MQ.c", "a.e30.c", "ya29.a0.b1"])
def test_what_only_looks_like_a_jwt_tells_nothing(token: str) -> None:
    assert parse_token(token.encode(), NOW).lifetime_seconds == UNSTATED_LIFETIME_SECONDS


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (b"", "no token"),
        (b" \n \n", "no token"),
        (b"{}", "no token"),
        (b'{"access_token": ""}', "no token"),
        (b'{"access_token": 7}', "something other than a token"),
        (b'{"access_token": "two words"}', "something other than a token"),
        (b'{"access_token": ', "something other than a token"),
        (b'{"a":' * 100_000, "something other than a token"),
        (b"Please sign in first", "something other than a token"),
        ("tökén".encode(), "something other than a token"),
        (b"\xff\xfe", "something other than a token"),
        (b"token\x00", "something other than a token"),
        (b'{"access_token": "token-1", "expires_in": 0}', "a token that has expired"),
        (b'{"access_token": "token-1", "expires_at": 1700000000}', "a token that has expired"),
    ],
)
def test_anything_else_is_no_token(printed: bytes, reason: str) -> None:
    with pytest.raises(UnreadableToken) as caught:
        parse_token(printed, NOW)
    assert str(caught.value) == reason


@given(st.binary())
def test_no_output_does_harm(printed: bytes) -> None:
    try:
        issued = parse_token(printed, NOW)
    except UnreadableToken:
        return
    assert issued.access_token.isascii()
    assert issued.lifetime_seconds > 0


# Complaints.


def test_a_complaint_is_the_last_line_that_says_something() -> None:
    assert last_line("Traceback\n  frame\nError: no such account\n\n") == "Error: no such account"


def test_a_complaint_holds_neither_controls_nor_long_words() -> None:
    assert last_line("bad\x1b[2J \t token " + "x" * 40) == "bad [2J token …"


def test_a_complaint_is_short() -> None:
    assert len(last_line("word " * 1000)) == 200


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_silence_is_no_complaint(text: str) -> None:
    assert last_line(text) == ""
