"""Which addresses `senders` allows, and when there is nothing to check."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules, sender_rules

OTHER = FromRule(rewrite="other@x.example")


@pytest.mark.parametrize(
    ("pattern", "address", "is_allowed"),
    [
        ("a@x.example", "a@x.example", True),
        ("a@x.example", "A@X.EXAMPLE", True),
        ("A@X.Example", "a@x.example", True),
        ("a@x.example", '"a"@x.example', True),
        ('"a b"@x.example', '"A b"@x.example', True),
        ("a@x.example", "b@x.example", False),
        ("a@x.example", "a@sub.x.example", False),
        ("a@x.example", "a", False),
        ("a@x.example", "", False),
        ("*@x.example", "anyone@X.example", True),
        ("*@x.example", "anyone@sub.x.example", False),
        ("*@x.example", "anyone@ax.example", False),
        ("*@x.example", "x.example", False),
        ("*@x.example", '"b@y.example\\""@x.example', False),
        ("*@x.example", '"b c"@x.example', False),
        ("*@x.example", "b@y.example@x.example", False),
        ("*", "anyone@anywhere.example", True),
        ("*", "no address", True),
        ("k@x.example", "\u212a@x.example", False),  # the Kelvin sign, whose lower case is k
        ("ü@x.example", "ü@X.example", True),
        ("ü@x.example", "Ü@x.example", False),
        ("a@[192.0.2.1]", "a@[192.0.2.1]", True),
    ],
)
def test_an_address_is_allowed_by_its_pattern(pattern: str, address: str, is_allowed: bool) -> None:
    assert SenderRules((pattern,), FromRule()).allows(address) is is_allowed


def test_without_rules_there_is_nothing_to_check() -> None:
    assert sender_rules((), None) is None
    assert sender_rules((), FromRule()) is None
    assert sender_rules(("*",), None) is None
    assert sender_rules(("a@x.example", "*"), FromRule()) is None


def test_a_name_is_set_whoever_the_sender_is() -> None:
    rules = sender_rules((), FromRule(display_name="Scanner"))
    assert rules is not None
    assert rules.allows_all


def test_without_senders_only_the_address_that_others_become_is_allowed() -> None:
    rules = sender_rules((), OTHER)
    assert rules is not None
    assert rules.allows("other@x.example")
    assert not rules.allows("someone@example.com")


def test_a_credential_has_its_own_rules_or_its_accounts() -> None:
    account = replace(
        mailbox(), senders=("a@x.example",), from_rule=FromRule(rewrite="a@x.example")
    )
    key = Credential(name="copier", login="copier")

    def of(**changes: object) -> SenderRules | None:
        return Login(account, replace(key, **changes)).sender_rules  # type: ignore[arg-type]

    inherited = SenderRules(("a@x.example",), FromRule(rewrite="a@x.example"))
    assert Login(account).sender_rules == inherited  # a client's own token
    assert Login(account, account.own_credential).sender_rules == inherited
    assert of() == inherited
    both = ("a@x.example", "b@x.example")
    assert of(senders=both) == SenderRules(both, inherited.from_rule)
    named = FromRule(display_name="B")
    assert of(from_rule=named) == SenderRules(("a@x.example",), named)
    assert of(from_rule=FromRule()) == SenderRules(("a@x.example",), FromRule())
    assert of(senders=("*",), from_rule=FromRule()) is None


def test_nothing_is_rewritten_to_an_address_that_is_not_allowed() -> None:
    assert sender_rules(("a@x.example",), OTHER) == SenderRules(("a@x.example",), FromRule())


def test_a_person_is_told_a_few_of_the_senders() -> None:
    assert SenderRules(("a@x", "*@y"), OTHER).words == "a@x, *@y"
    many = tuple(f"{letter}@x" for letter in "abcdef")
    assert SenderRules(many, OTHER).words == "a@x, b@x, c@x and 3 more"
