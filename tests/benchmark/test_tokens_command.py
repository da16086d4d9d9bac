from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import aiosmtplib
import jwt
import pytest
from typer.testing import CliRunner

from bench.commands.tokens import app
from tests.support.sandbox import Sandbox
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

MAILBOX = "someone@example.org"
OPAQUE = "ya29.a0AfB_byC" + "d" * 200  # as Google's are: no JWT


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def ran(state: Path, *arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, [*arguments, "--state-dir", str(state)], input=given)


def lines(done: Result) -> list[dict[str, Any]]:
    assert done.exit_code in (0, 1), done.output
    return [json.loads(line) for line in done.stdout.splitlines()]


def minted(state: Path, *more: str) -> list[str]:
    done = ran(state, "mint", "--account", MAILBOX, *more)
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def key_of(state: Path) -> bytes:
    return load_signing_key(state)


def test_list_has_the_mock_mailboxes_and_any_name_given(state: Path) -> None:
    rows = lines(ran(state, "list", "Me@hotmail.com", "--json"))
    assert [row["mailbox"] for row in rows] == [*MOCK_MAILBOXES, "me@hotmail.com"]
    assert [row["looks_like"] for row in rows] == ["gmail"] * 2 + ["outlook"] * 3
    assert [row["is_built_in"] for row in rows] == [True] * 4 + [False]
    text = ran(state, "list").stdout
    assert all(mailbox in text for mailbox in MOCK_MAILBOXES)


def test_show_makes_a_token_for_a_mailbox_and_says_what_is_in_it(state: Path) -> None:
    (shown,) = lines(ran(state, "show", MAILBOX, "--ttl", "3600", "--json"))
    assert shown["token"] == f"ya29.eyJ… ({shown['token_characters']} characters)"
    record = ("type", "provider", "scope", "lifetime_seconds")
    assert [shown[name] for name in record] == ["Bearer", "gmail", None, 3600]
    assert (shown["mailbox"], shown["is_valid"], shown["reason"]) == (MAILBOX, True, "")
    assert 3000 < shown["seconds_left"] <= 3600
    assert shown["claims"]["sub"] == MAILBOX
    assert shown["expires_at"].endswith("Z")
    text = ran(state, "show", MAILBOX).stdout
    assert f"valid: {MAILBOX}" in text
    assert '"someone@example.org"' in text


def test_show_prints_the_whole_record_and_no_token_whole(state: Path) -> None:
    (token,) = minted(state)
    text = ran(state, "show", token).stdout
    assert token not in text
    assert token[9:] not in text
    found = dict(line.split(maxsplit=1) for line in text.splitlines()[1:6])
    assert found == {
        "token": f"ya29.eyJ… ({len(token)} characters)",
        "type": "Bearer",
        "provider": "gmail",
        "scope": "not stated",
        "lifetime": "3600 s",
    }


@pytest.mark.parametrize(
    ("claims", "scope"),
    [
        ({"scope": "https://mail.google.com/"}, "https://mail.google.com/"),
        ({"scp": "SMTP.Send offline_access"}, "SMTP.Send offline_access"),
        ({"roles": ["SMTP.SendAsApp", "Mail.Send"]}, "SMTP.SendAsApp Mail.Send"),
        ({"scope": 7, "roles": []}, None),
    ],
)
def test_show_tells_what_a_providers_token_says_of_its_scope_and_issuer(
    state: Path, claims: dict[str, object], scope: str | None
) -> None:
    issuer = {"iss": "https://sts.example.com/", "iat": 100, "exp": 3700}
    token = jwt.encode({**issuer, **claims}, b"k" * 32)
    minted(state)
    (shown,) = lines(ran(state, "show", token, "--json"))
    assert (shown["scope"], shown["provider"]) == (scope, "https://sts.example.com/")
    assert shown["lifetime_seconds"] == 3600


def test_an_expired_token_of_ours_is_shown_with_how_long_ago(state: Path) -> None:
    (token,) = minted(state, "--expired")
    (shown,) = lines(ran(state, "show", token, "--json"))
    assert shown["reason"] == "expired"
    assert shown["seconds_left"] < 0


async def test_the_initial_response_opens_the_sandbox(state: Path) -> None:
    responses = {
        mechanism: ran(state, "xoauth2", MAILBOX, "--mechanism", mechanism).stdout.strip()
        for mechanism in ("xoauth2", "oauthbearer")
    }
    assert base64.b64decode(responses["xoauth2"]).startswith(b"user=someone@example.org\1auth=")
    async with Sandbox(state, tls="none") as sandbox:
        host, port = sandbox.smtp_address
        for mechanism, response in responses.items():
            async with aiosmtplib.SMTP(hostname=host, port=port) as client:
                await client.ehlo()
                answer = await client.execute_command(
                    b"AUTH", mechanism.upper().encode(), response.encode()
                )
                assert answer.code == 235, answer


def test_mint_prints_as_many_different_tokens_as_asked(state: Path) -> None:
    tokens = minted(state, "--account", "other@example.org", "--count", "3")
    verify = MockTokens(key_of(state)).verify
    assert [verify(token) for token in tokens] == [MAILBOX] * 3 + ["other@example.org"] * 3
    assert len(set(tokens)) == 6


@pytest.mark.parametrize(
    ("flag", "more", "reason"),
    [
        ("--expired", (), "expired"),
        ("--tampered", (), "signature"),
        ("--wrong-mailbox", ("--for", MAILBOX), "mailbox"),
    ],
)
def test_bad_tokens_are_bad_and_piped_into_verify_say_why(
    state: Path, flag: str, more: tuple[str, ...], reason: str
) -> None:
    bad = minted(state, "--count", "5", flag)
    good = minted(state)
    done = ran(state, "verify", "-", "--json", *more, given="\n".join([*bad, *good]))
    assert done.exit_code == 1
    assert [row["reason"] for row in lines(done)] == [reason] * 5 + [""]
    assert "not valid" in ran(state, "verify", "-", *more, given=bad[0]).stdout


def test_verify_says_yes_with_exit_code_0(state: Path) -> None:
    (token,) = minted(state)
    done = ran(state, "verify", "-", "--for", MAILBOX.upper(), given=f"{token}\n")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"valid: {MAILBOX}, 3")


def test_verify_takes_the_base64_of_a_transcript(state: Path) -> None:
    for mechanism in ("xoauth2", "oauthbearer"):
        response = ran(state, "xoauth2", MAILBOX, "--mechanism", mechanism).stdout.strip()
        assert ran(state, "verify", response).exit_code == 0


def test_a_token_of_another_directory_is_not_valid_here(state: Path, tmp_path: Path) -> None:
    (token,) = minted(tmp_path / "other")
    minted(state)
    done = ran(state, "verify", token)
    assert done.exit_code == 1
    assert "another key" in done.stdout


def foreign(state: Path, tmp_path: Path, kind: str) -> str:
    """Return a token that may not be printed whole."""
    if kind == "opaque":
        return OPAQUE
    if kind == "jwt":
        return jwt.encode({"sub": "real@example.com", "scp": "SMTP.Send"}, b"k" * 32)
    if kind == "tampered":
        return minted(state, "--tampered")[0]
    return minted(tmp_path / "other")[0]


@pytest.mark.parametrize("kind", ["opaque", "jwt", "tampered", "other"])
@pytest.mark.parametrize(
    "words", [("show",), ("show", "--json"), ("verify",), ("verify", "--json")]
)
def test_nobody_elses_token_is_printed_whole(
    state: Path, tmp_path: Path, words: tuple[str, ...], kind: str
) -> None:
    token = foreign(state, tmp_path, kind)
    minted(state)
    done = ran(state, *words, "-", given=token)
    signature = token.rpartition(".")[2]
    assert token[9:] not in done.output
    assert signature not in done.output
    assert (words[0] == "show") == (done.exit_code == 0)
    if words == ("show", "--json"):
        (shown,) = lines(done)
        assert shown["token"] == f"{token[:8]}… ({len(token)} characters)"
        assert (shown["token_characters"], shown["is_valid"]) == (len(token), False)
        expected = {"jwt": "real@example.com", "opaque": None}.get(kind, MAILBOX)
        assert shown["claims"].get("sub") == expected


def test_what_a_foreign_token_claims_cannot_write_to_the_terminal(state: Path) -> None:
    token = jwt.encode({"sub": "\x1b[2Jgone", "\x1b]0;x": 1, "exp": 1e300}, b"k" * 32)
    minted(state)
    done = ran(state, "show", token)
    assert done.exit_code == 0
    assert "\x1b" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("mint", "--account", "nobody"),
        ("mint", "--account", MAILBOX, "--expired", "--tampered"),
        ("mint", "--account", MAILBOX, "--expired", "--ttl", "5"),
        ("mint", "--account", MAILBOX, "--count", "0"),
        ("mint",),
        ("xoauth2", "someone@example.org\1"),
        ("xoauth2", MAILBOX, "--mechanism", "plain"),
        ("verify", "two words"),
        ("verify", "-"),
        ("verify", "x" * 20_000),
    ],
)
def test_wrong_usage_has_exit_code_2(state: Path, arguments: tuple[str, ...]) -> None:
    state.mkdir()
    done = ran(state, *arguments)
    assert done.exit_code == 2
    assert done.stdout == ""


def test_verifying_makes_no_key(state: Path) -> None:
    done = ran(state, "verify", OPAQUE)
    assert done.exit_code == 2
    assert "there is no key" in done.output
    assert not state.exists()


def test_a_key_that_cannot_be_used_is_told(state: Path) -> None:
    minted(state)
    (state / "sandbox" / "signing-key").write_bytes(b"short")
    done = ran(state, "verify", OPAQUE)
    assert done.exit_code == 2
    assert "too short" in done.output
