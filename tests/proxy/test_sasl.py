"""SASL exchanges: what a client proves, and that no octets make them fail in any other way."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.smtp import sasl
from xoauth2_proxy.smtp.sasl import (
    ChallengeLogin,
    Credentials,
    MalformedResponse,
    PasswordLogin,
    TokenLogin,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\x01"), min_size=1)
_TOKEN = st.from_regex(r"[A-Za-z0-9._~+/-]{1,80}={0,2}", fullmatch=True)


def credentials(mechanism: str, *responses: bytes) -> Credentials:
    """Return what the exchange ends with after these responses."""
    exchange = sasl.MECHANISMS[mechanism]()
    next(exchange)
    for response in responses[:-1]:
        exchange.send(response)
    with pytest.raises(StopIteration) as done:
        exchange.send(responses[-1])
    found = done.value.value
    assert isinstance(found, (PasswordLogin, TokenLogin, ChallengeLogin))
    return found


def refuses(mechanism: str, response: bytes) -> bool:
    exchange = sasl.MECHANISMS[mechanism]()
    next(exchange)
    with pytest.raises(MalformedResponse):
        exchange.send(response)
    return True


# What is encoded is read back.


@given(_TEXT, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_plain_reads_login_and_password(authcid: str, password: str) -> None:
    response = f"\0{authcid}\0{password}".encode()
    assert credentials("PLAIN", response) == PasswordLogin(authcid, password)


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_login_reads_login_and_password(authcid: str, password: str) -> None:
    found = credentials("LOGIN", authcid.encode(), password.encode())
    assert found == PasswordLogin(authcid, password)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1), _TOKEN)
def test_xoauth2_reads_what_it_writes(authcid: str, token: str) -> None:
    response = base64.b64decode(sasl.xoauth2_response(authcid, token), validate=True)
    assert credentials("XOAUTH2", response) == TokenLogin(authcid, token)


@given(_TEXT, _TOKEN, st.sampled_from("ny"))
def test_oauthbearer_reads_any_login(authcid: str, token: str, flag: str) -> None:
    saslname = authcid.replace("=", "=3D").replace(",", "=2C")
    response = f"{flag},a={saslname},\x01auth=Bearer {token}\x01\x01".encode()
    assert credentials("OAUTHBEARER", response) == TokenLogin(authcid, token)


@pytest.mark.parametrize(
    ("saslname", "authcid"),
    [("a=2Cb", "a,b"), ("a=3Db", "a=b"), ("a=3D2Cb", "a=2Cb"), ("=3D=2C", "=,")],
)
def test_escapes_of_a_saslname(saslname: str, authcid: str) -> None:
    response = f"n,a={saslname},\x01host=h\x01port=587\x01auth=Bearer t\x01\x01".encode()
    assert credentials("OAUTHBEARER", response) == TokenLogin(authcid, "t")


# Nothing but MalformedResponse.


@pytest.mark.parametrize("mechanism", list(sasl.MECHANISMS))
@given(st.lists(st.binary(max_size=60), min_size=2, max_size=2))
def test_any_octets_end_in_credentials_or_malformed(mechanism: str, octets: list[bytes]) -> None:
    exchange = sasl.MECHANISMS[mechanism]()
    next(exchange)
    try:
        for response in octets:
            exchange.send(response)
    except (StopIteration, MalformedResponse):
        return
    pytest.fail("still asking after two responses")


_PIECES = st.lists(
    st.sampled_from(
        [
            b"user=",
            b"a@b",
            b"\x01",
            b"auth=",
            b"Bearer",
            b" ",
            b"t",
            b"n,a=",
            b"n,",
            b",",
            b"\0",
            b"=",
        ]
    ),
    max_size=14,
).map(b"".join)


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
@given(_PIECES)
def test_almost_right_octets_end_in_credentials_or_malformed(
    mechanism: str, response: bytes
) -> None:
    exchange = sasl.MECHANISMS[mechanism]()
    next(exchange)
    with pytest.raises((StopIteration, MalformedResponse)):
        exchange.send(response)


@pytest.mark.parametrize("response", [b"", b"a", b"a\0b", b"a\0b\0c\0d", b"\xff\0a\0p"])
def test_malformed_plain(response: bytes) -> None:
    assert refuses("PLAIN", response)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"user=a",
        b"user=a\x01\x01",
        b"auth=Bearer t\x01\x01",
        b"user=\x01auth=Bearer t\x01\x01",
        b"user=a\x01auth=t\x01\x01",
        b"user=a\x01auth=Bearer \x01\x01",
        b"user=a\x01auth=Basic t\x01\x01",
        b"user=\xff\x01auth=Bearer t\x01\x01",
    ],
)
def test_malformed_xoauth2(response: bytes) -> None:
    assert refuses("XOAUTH2", response)


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"n,,\x01auth=Bearer t\x01\x01",
        b"n,a=,\x01auth=Bearer t\x01\x01",
        b"n\x01auth=Bearer t\x01\x01",
        b"p=tls-unique,a=a,\x01auth=Bearer t\x01\x01",
        b"x,a=a,\x01auth=Bearer t\x01\x01",
        b"n,a=a,\x01\x01",
        b"n,a=a,\x01auth=t\x01\x01",
        b"n,a=a,\x01host=h\x01\x01",
    ],
)
def test_malformed_oauthbearer(response: bytes) -> None:
    assert refuses("OAUTHBEARER", response)


# Rules of each mechanism.


def test_an_authzid_that_is_the_login_is_accepted_in_any_case() -> None:
    assert credentials("PLAIN", b"A@b\0a@B\0p") == PasswordLogin("a@B", "p")


def test_acting_for_another_login_is_refused() -> None:
    assert refuses("PLAIN", b"boss@b\0a@b\0p")


def test_prompts_of_login_are_letter_for_letter() -> None:
    exchange = sasl.login()
    assert next(exchange) == b"Username:"
    assert exchange.send(b"a") == b"Password:"


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
def test_client_first_mechanisms_begin_with_an_empty_challenge(mechanism: str) -> None:
    assert next(sasl.MECHANISMS[mechanism]()) == b""


def test_unknown_keys_of_xoauth2_are_ignored_and_keys_have_no_case() -> None:
    response = b"User=a\x01vendor=v\x01AUTH=bearer t\x01\x01"
    assert credentials("XOAUTH2", response) == TokenLogin("a", "t")


def test_secrets_do_not_show_in_repr() -> None:
    shown = repr(PasswordLogin("a", "hunter2")) + repr(TokenLogin("b", "ya29.token"))
    assert "hunter2" not in shown
    assert "ya29" not in shown


def test_response_in_base64() -> None:
    assert sasl.xoauth2_response("a@b", "t") == base64.b64encode(
        b"user=a@b\x01auth=Bearer t\x01\x01"
    )


@pytest.mark.parametrize("control", [chr(code) for code in (*range(32), 127)])
def test_nothing_breaks_out_of_its_field(control: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        sasl.xoauth2_response(f"a{control}auth=Bearer x", "t")
    with pytest.raises(ValueError, match="control character") as caught:
        sasl.xoauth2_response("a", f"sesame{control}")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
def test_error_challenge_is_the_mechanisms_json(mechanism: str) -> None:
    said = json.loads(sasl.token_error_challenge(mechanism))
    assert said["status"] == ("401" if mechanism == "XOAUTH2" else "invalid_token")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("ya29.a0AfB_byC" + "d" * 200, True),
        ("EwAoA8l6BAAUs5+Q/" + "x" * 400 + "==", True),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl", True),
        ("0123456789abcdef012345", True),  # 22 characters: 2^128 of 64 each
        ("0123456789abcdef01234", False),
        ("hunter2", False),
        ("correct horse battery staple", False),
        ("Pa$$word-of-a-person-who-is-careful", False),
        ("", False),
    ],
)
def test_a_bearer_token_has_a_form_that_few_passwords_have(text: str, is_one: bool) -> None:
    assert sasl.has_token_form(text) is is_one


# CRAM-MD5.


@pytest.mark.parametrize("spell", [str.lower, str.upper])
@given(_TEXT, st.binary(min_size=16, max_size=16))
def test_cram_md5_reads_login_and_digest_of_either_case(
    spell: Callable[[str], str], authcid: str, digest: bytes
) -> None:
    exchange = sasl.cram_md5()
    challenge = next(exchange)
    with pytest.raises(StopIteration) as done:
        exchange.send(f"{authcid} {spell(digest.hex())}".encode())
    assert done.value.value == ChallengeLogin(authcid, challenge, digest)


def test_every_challenge_is_another_and_looks_like_a_message_id() -> None:
    challenges = {next(sasl.cram_md5()) for _ in range(100)}
    assert len(challenges) == 100
    assert all(re.fullmatch(rb"<[0-9a-f]{16}\.\d+@[a-z0-9-]+>", one) for one in challenges)


@pytest.mark.parametrize(
    "response",
    [
        *(b"", b"tim", b"tim ", b" " + b"a" * 32, b"tim " + b"a" * 31, b"tim " + b"g" * 32),
        *(b"tim " + b"a" * 33, b"t\0m " + b"a" * 32, b"tim\t" + b"a" * 32),
    ],
)
def test_cram_md5_refuses_what_is_no_login_and_digest(response: bytes) -> None:
    assert refuses("CRAM-MD5", response)
