"""A revoked token is refused until its own end, however many others are revoked later."""

from __future__ import annotations

import pytest

from tests.support.raw_smtp import MAILBOX
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.sandbox.tokens.token_verifier import Revocations, TokenVerifier, TooManyRevoked


def test_the_first_revoked_token_is_never_let_in_again() -> None:
    tokens = MockTokens(b"k" * 32)
    verifier = TokenVerifier(tokens)
    first = tokens.mint(MAILBOX)
    assert verifier.objection(MAILBOX, first) == ""
    verifier.revoke(first)
    for _ in range(10_001):
        verifier.revoke(tokens.mint(MAILBOX))
    assert verifier.objection(MAILBOX, first) == "revoked"


def test_a_token_is_remembered_until_its_own_end() -> None:
    revocations = Revocations()
    revocations.add("short", 10.0, now=0.0)
    revocations.add("long", 20.0, now=0.0)
    revocations.add("short", 10.0, now=0.0)
    assert len(revocations) == 2
    revocations.add("other", 30.0, now=15.0)
    assert len(revocations) == 2, "what has ended is refused anyway"
    assert revocations.has("long", 1.0)
    assert not revocations.has("unknown", 1.0)


def test_there_are_only_so_many_and_none_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.tokens.token_verifier.MAX_REVOKED", 2)
    revocations = Revocations()
    revocations.add("a", 10.0, now=0.0)
    revocations.add("b", 20.0, now=0.0)
    with pytest.raises(TooManyRevoked, match="2 tokens are revoked that have not expired"):
        revocations.add("c", 30.0, now=5.0)
    revocations.add("b", 20.0, now=5.0)
    assert revocations.has("a", 1.0)
    assert not revocations.has("c", 1.0)
    revocations.add("c", 30.0, now=10.0)
    assert revocations.has("c", 1.0)


def test_revoking_all_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.tokens.token_verifier.MAX_REVOKED", 1)
    revocations = Revocations()
    revocations.add("a", 100.0, now=1.0)
    revocations.add_all(2.0)
    assert revocations.has("a", 1.0)
    assert not revocations.has("later", 3.0)
    revocations.add("later", 100.0, now=4.0)
    assert revocations.has("later", 3.0)


def test_why_a_token_is_not_good_is_known() -> None:
    tokens = MockTokens(b"k" * 32)
    verifier = TokenVerifier(tokens)
    revoked = tokens.mint(MAILBOX)
    verifier.revoke(revoked)
    presented = {
        "": tokens.mint(MAILBOX),
        "revoked": revoked,
        "expired": tokens.mint(MAILBOX, ttl_seconds=-1.0),
        "wrong_mailbox": tokens.mint("somebody.else@example.com"),
        "signature": MockTokens(b"x" * 32).mint(MAILBOX),
        "malformed": "ya29.x",
    }
    for reason, token in presented.items():
        assert verifier.objection(MAILBOX, token) == reason
    verifier.revoke_all()
    assert verifier.objection(MAILBOX, presented[""]) == "revoked"
