"""What the configuration file says of senders, and the faults that it is told of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.proxy.test_config_credentials import KEY
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules

if TYPE_CHECKING:
    from tests.support.config_files import ConfigFile

OWN = "own@x.example"
NOT_AMONG = (
    "own@x.example is not among the senders allowed here; add it to senders, or write one of those"
)


def problems(config: ConfigFile, **keys: Any) -> dict[str, str]:
    found = config.problems_of_one(**keys)
    return {path.removeprefix("accounts[0]."): fault for path, fault in found.items()}


def test_without_keys_nothing_is_checked(config: ConfigFile) -> None:
    account = config.load_one(credentials=[KEY]).accounts[0]
    assert Login(account).sender_rules is None
    assert Login(account, account.own_credential).sender_rules is None
    assert Login(account, account.credentials[0]).sender_rules is None


def test_a_credential_may_change_what_its_account_says(config: ConfigFile) -> None:
    keys: dict[str, Any] = {"senders": [OWN, "*@y.example"], "from": {"rewrite": OWN}}
    free = KEY | {"senders": ["*"], "from": {}}
    other = KEY | {"name": "b", "from": {"display_name": "B"}}
    account = config.load_one(**keys, credentials=[free, other]).accounts[0]
    assert Login(account).sender_rules == SenderRules((OWN, "*@y.example"), FromRule(rewrite=OWN))
    first, second = (Login(account, one).sender_rules for one in account.credentials)
    assert first is None
    assert second == SenderRules((OWN, "*@y.example"), FromRule(display_name="B"))


@pytest.mark.parametrize(
    ("keys", "path", "fault"),
    [
        ({"senders": ["x.example"]}, "senders[0]", "; *@domain and * are allowed too"),
        ({"senders": ["*@"]}, "senders[0]", "must be"),
        ({"senders": ["*@*.example"]}, "senders[0]", "must be an address, *@domain, or *"),
        ({"senders": ["a*@x.example"]}, "senders[0]", "must be an address, *@domain, or *"),
        ({"senders": ["a@x.example\n"]}, "senders[0]", "must be one e-mail address"),
        ({"senders": [["*"]]}, "senders[0]", "must be a valid string"),
        ({"senders": []}, "senders", "must not be empty; leave the key out"),
        ({"senders": "*"}, "senders", "must be an array"),
        ({"senders": ["*"] * 101}, "senders", "must have at most 100 items"),
        ({"from": OWN}, "from", "must be an object"),
        ({"from": {"rewrite": "*@x.example"}}, "from.rewrite", "must be one mailbox"),
        ({"from": {"rewrite": ""}}, "from.rewrite", "must be one e-mail address"),
        ({"from": {"reply_to": True}}, "from.reply_to", "is of no use without rewrite"),
        ({"from": {"display_name": "a\nb"}}, "from.display_name", "without control characters"),
        ({"from": {"display_name": "a\x07b"}}, "from.display_name", "without control characters"),
        ({"from": {"display_name": " "}}, "from.display_name", "must be printable"),
        ({"from": {"display_name": "a" * 201}}, "from.display_name", "at most 200"),
        ({"from": {"name": "a"}}, "from.name", "unknown key"),
        ({"form": {}}, "form", "unknown key; did you mean from?"),
        ({"from_": {}}, "from_", "unknown key; did you mean from?"),
        ({"senders": ["a@x.example"], "from": {"rewrite": OWN}}, "from.rewrite", NOT_AMONG),
        (
            {"credentials": [KEY | {"senders": ["a@x"], "from": {"rewrite": OWN}}]},
            "credentials[0].from.rewrite",
            NOT_AMONG,
        ),
        (
            {"credentials": [KEY | {"from": {"rewrite": OWN}}], "senders": ["a@x.example"]},
            "credentials[0].from.rewrite",
            NOT_AMONG,
        ),
        (
            {"credentials": [KEY | {"senders": ["a@x"]}], "from": {"rewrite": OWN}},
            "credentials[0].senders",
            f"does not allow {OWN}, to which the account's from.rewrite leads",
        ),
        (
            {"credentials": [KEY | {"from": {"rewrites": OWN}}]},
            "credentials[0].from.rewrites",
            "unknown key; did you mean rewrite?",
        ),
    ],
)
def test_each_fault_has_its_path_and_words(
    config: ConfigFile, keys: dict[str, Any], path: str, fault: str
) -> None:
    found = problems(config, **keys)
    assert [*found] == [path]
    assert fault in found[path]


def test_all_faults_are_told_at_once(config: ConfigFile) -> None:
    second = {"name": "c", "password": "p", "senders": ["c@x"], "from": {"rewrite": OWN}}
    found = problems(
        config,
        senders=["a@x.example"],
        credentials=[KEY | {"senders": ["b@x"]}, second],
        **{"from": {"rewrite": OWN}},
    )
    assert found.keys() == {
        "from.rewrite",
        "credentials[0].senders",
        "credentials[1].from.rewrite",
    }


def test_the_guides_example_loads_as_it_is(config: ConfigFile) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "senders.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", guide, re.DOTALL)
    (account,) = config.load(json.loads(example)).accounts
    copier, newsletter = account.credentials
    assert Login(account, copier).sender_rules == SenderRules(
        ("copier@example.com",),
        FromRule(rewrite="copier@example.com", reply_to=True, display_name="Copier, 3rd floor"),
    )
    assert Login(account, newsletter).sender_rules is None
