from __future__ import annotations

import base64
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid, MockTokens

if TYPE_CHECKING:
    from pathlib import Path

KEY = b"k" * 32


@pytest.fixture
def tokens() -> MockTokens:
    return MockTokens(KEY)


def reason(tokens: MockTokens, token: str) -> str:
    with pytest.raises(MockTokenInvalid) as caught:
        tokens.verify(token)
    assert not token or token not in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("mailbox", MOCK_MAILBOXES)
def test_a_minted_token_opens_its_mailbox(tokens: MockTokens, mailbox: str) -> None:
    assert tokens.verify(tokens.mint(mailbox)) == mailbox


def test_the_mailbox_comes_back_in_lower_case(tokens: MockTokens) -> None:
    assert tokens.verify(tokens.mint("Test.Account1@GMAIL.com")) == MOCK_MAILBOXES[0]


@pytest.mark.parametrize(
    ("mailbox", "prefix"),
    [
        ("a@gmail.com", "ya29."),
        ("a@googlemail.com", "ya29."),
        ("a@example.org", "ya29."),
        ("a@outlook.com", "EwAoA8l6BAAURNvFLcaAUzrq"),
        ("a@HOTMAIL.com", "EwAoA8l6BAAURNvFLcaAUzrq"),
        ("a@live.com", "EwAoA8l6BAAURNvFLcaAUzrq"),
        ("a@msn.com", "EwAoA8l6BAAURNvFLcaAUzrq"),
    ],
)
def test_a_token_looks_like_its_providers(tokens: MockTokens, mailbox: str, prefix: str) -> None:
    assert tokens.mint(mailbox).startswith(prefix)


def test_no_two_tokens_are_equal(tokens: MockTokens) -> None:
    assert tokens.mint("a@gmail.com") != tokens.mint("a@gmail.com")


def test_claims_say_when_a_token_ends(tokens: MockTokens) -> None:
    claims = tokens.read(tokens.mint("a@gmail.com", ttl_seconds=60))
    assert claims.expires_at == pytest.approx(claims.issued_at + 60)


@pytest.mark.parametrize("ttl_seconds", [0.0, -1.0, -3600.0])
def test_an_expired_token_is_refused(tokens: MockTokens, ttl_seconds: float) -> None:
    assert reason(tokens, tokens.mint("a@gmail.com", ttl_seconds=ttl_seconds)) == "expired"


def test_expiry_is_kept_to_the_fraction_of_a_second(
    tokens: MockTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.9
    monkeypatch.setattr(time, "time", lambda: now)
    token = tokens.mint("a@gmail.com", ttl_seconds=0.5)
    monkeypatch.setattr(time, "time", lambda: now + 0.4)
    assert tokens.verify(token) == "a@gmail.com"
    monkeypatch.setattr(time, "time", lambda: now + 0.5)
    assert reason(tokens, token) == "expired"


def test_a_token_signed_with_another_key_is_refused(tokens: MockTokens) -> None:
    assert reason(tokens, MockTokens(b"x" * 32).mint("a@gmail.com")) == "signature"


def test_a_token_with_changed_claims_is_refused(tokens: MockTokens) -> None:
    mine, theirs = tokens.mint("a@gmail.com").split("."), tokens.mint("b@gmail.com").split(".")
    mine[2] = theirs[2]  # ya29 . header . claims . signature
    assert reason(tokens, ".".join(mine)) == "signature"


def signed(**changes: object) -> str:
    claims: dict[str, Any] = {
        "iss": "xoauth2-proxy-sandbox",
        "aud": "smtp",
        "sub": "a@gmail.com",
        "iat": time.time(),
        "exp": time.time() + 60,
        "jti": "1",
    } | changes
    present = {name: value for name, value in claims.items() if value is not None}
    return "ya29." + jwt.encode(present, KEY, algorithm="HS256")


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "ya29.",
        "ya29.nonsense",
        "EwAoA8l6BAAURNvFLcaAUzrq",
        "a.b.c",
        "ya29." + jwt.encode({"sub": "a@gmail.com"}, "", algorithm="none"),
        signed(aud="imap"),
        signed(iss="somebody else"),
        signed(exp="soon"),
        signed(exp=10**400),
        "ya29." + ".".join([encoded("[" * 100_000)] * 3),
        *(signed(**{name: None}) for name in ("iss", "aud", "sub", "iat", "exp", "jti")),
    ],
)
def test_a_malformed_token_is_refused(tokens: MockTokens, token: str) -> None:
    assert reason(tokens, token) == "malformed"


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 octets"):
        MockTokens(b"short")


def test_the_key_is_not_in_the_repr(tokens: MockTokens) -> None:
    assert "kkk" not in repr(tokens)


def test_the_signing_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    key = load_signing_key(state_dir)
    path = state_dir / "sandbox" / "signing-key"
    assert load_signing_key(state_dir) == key == path.read_bytes()
    assert len(key) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(state_dir.stat().st_mode) == 0o700


def test_racing_creators_end_with_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        keys = set(threads.map(load_signing_key, [tmp_path] * 64))
    assert len(keys) == 1
    assert [path.name for path in (tmp_path / "sandbox").iterdir()] == ["signing-key"]


def test_a_truncated_signing_key_is_not_used(tmp_path: Path) -> None:
    load_signing_key(tmp_path)
    (tmp_path / "sandbox" / "signing-key").write_bytes(b"too short")
    with pytest.raises(ValueError, match="too short to be a signing key"):
        load_signing_key(tmp_path)
