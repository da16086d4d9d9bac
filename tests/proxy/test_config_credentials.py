"""What the configuration file says of credentials, and the faults that it is told of."""

from __future__ import annotations

import ipaddress
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import pytest

from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.local_password import LocalPassword
from xoauth2_proxy.accounts.sender_rules import FromRule
from xoauth2_proxy.config.credential_section import CredentialSection
from xoauth2_proxy.config.section import keys_of

if TYPE_CHECKING:
    from tests.support.config_files import ConfigFile

KEY: dict[str, object] = {"name": "copier", "password": "k2mnp4qrs7tuv9wxyz23"}
ADDRESS: dict[str, object] = {"name": "copier", "networks": ["192.168.1.20"]}


def load(config: ConfigFile, **keys: object) -> Credential:
    (credential,) = config.load_one(credentials=[keys]).accounts[0].credentials
    return credential


def problem_at(config: ConfigFile, key: str, **keys: object) -> str:
    """The one problem of a credential; it is at this key."""
    problems = config.problems_of_one(credentials=[keys])
    ((path, fault),) = problems.items()
    assert path == f"accounts[0].credentials[0].{key}"
    return fault


def test_a_credential_needs_a_name_and_a_password(config: ConfigFile) -> None:
    assert load(config, **KEY) == Credential(
        name="copier",
        login="copier",
        password=LocalPassword(clear_text="k2mnp4qrs7tuv9wxyz23"),
    )


def test_every_key_of_a_credential_is_read(config: ConfigFile) -> None:
    config.environ["COPIER"] = "from the environment"
    networks = ["10.0.0.0/8", "::ffff:192.168.7.0/120", "fd00::1"]
    written: dict[str, Any] = {
        "name": "copier-2",
        "login": "Copier 2",
        "password": "${COPIER}",
        "networks": networks,
        "senders": ["a@example.com", "*@example.com", "*"],
        "from": {"rewrite": "a@example.com", "reply_to": True, "display_name": "Copier"},
        "messages_per_minute": 2.5,
        "messages_per_day": 100,
        "max_connections": 2,
        "expires": "2027-01-31",
        "enabled": False,
    }
    assert {*written, "allow_public_networks"} == set(keys_of(CredentialSection))
    assert load(config, **written) == Credential(
        name="copier-2",
        login="Copier 2",
        password=LocalPassword(clear_text="from the environment"),
        networks=tuple(
            ipaddress.ip_network(one) for one in ("10.0.0.0/8", "192.168.7.0/24", "fd00::1")
        ),
        senders=("a@example.com", "*@example.com", "*"),
        from_rule=FromRule(rewrite="a@example.com", reply_to=True, display_name="Copier"),
        messages_per_minute=2.5,
        messages_per_day=100,
        max_connections=2,
        expires=date(2027, 1, 31),
        enabled=False,
    )


def test_a_time_of_day_needs_its_offset(config: ConfigFile) -> None:
    at = load(config, **KEY, expires="2027-01-31T18:00:00Z").expires
    assert at == datetime(2027, 1, 31, 18, tzinfo=UTC)
    for text in ("2027-01-31T18:00:00", "tomorrow", 20270131):
        assert "2027-01-31" in problem_at(config, "expires", **KEY, expires=text)


def test_a_password_is_required_unless_networks_tell_the_client(config: ConfigFile) -> None:
    assert "or networks" in problem_at(config, "password", name="copier")
    credential = load(config, **ADDRESS)
    assert (credential.password, credential.login) == (None, "")


def test_a_login_without_a_password_is_a_fault(config: ConfigFile) -> None:
    assert "no use" in problem_at(config, "login", **ADDRESS, login="copier")


@pytest.mark.parametrize(
    "network", ["203.0.113.0/24", "0.0.0.0/0", "::/0", "10.0.0.0/7", "2001:db8::/32", "100.64.0.1"]
)
def test_a_public_network_sends_without_a_password_only_by_a_second_setting(
    config: ConfigFile, network: str
) -> None:
    keys: dict[str, Any] = {"name": "copier", "networks": ["10.0.0.1", network]}
    fault = problem_at(config, "networks", **keys)
    assert "allow_public_networks" in fault
    assert "10.0.0.1" not in fault
    assert len(load(config, **keys, allow_public_networks=True).networks) == 2
    assert load(config, **keys, password="secret of it").networks


@pytest.mark.parametrize(
    "network",
    [
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.1.1", "127.0.0.1", "169.254.0.0/16"),
        *("::1", "fe80::/10", "fd00::/8", "::ffff:10.0.0.0/104"),
    ],
)
def test_local_networks_need_no_second_setting(config: ConfigFile, network: str) -> None:
    assert load(config, name="copier", networks=[network]).networks


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("192.168.1.7/24", "did you mean 192.168.1.0/24"),
        ("copier.example.com", "must be a network like"),
        ("10.0.0.0/33", "must be a network like"),
        (7, "must be a network like"),
    ],
)
def test_what_is_no_network_is_told(config: ConfigFile, network: object, words: str) -> None:
    assert words in problem_at(config, "networks[0]", **KEY, networks=[network])


@pytest.mark.parametrize("sender", ["example.com", "*@*", "a*@example.com", "*@", ""])
def test_what_is_no_sender_is_told(config: ConfigFile, sender: str) -> None:
    assert problem_at(config, "senders[0]", **KEY, senders=[sender])


@pytest.mark.parametrize("login", ["", " copier", "copier\n", "cop\x00ier", "c" * 256])
def test_what_nobody_can_type_is_no_login(config: ConfigFile, login: str) -> None:
    assert problem_at(config, "login", **KEY, login=login)


def account(email: str, *credentials: dict[str, object]) -> dict[str, object]:
    keys = {"email": email, "provider": "mock", "password": "opens sesame"}
    return keys | {"credentials": list(credentials)}


def test_logins_are_unique_over_all_accounts(config: ConfigFile) -> None:
    problems = config.problems(
        [
            account("one@example.com", KEY, KEY | {"name": "fax", "login": "Fax"}),
            account("two@example.com", KEY, KEY | {"name": "x", "login": "ONE@example.com"}),
            account("three@example.com", KEY | {"name": "z", "login": "fAX"}),
        ]
    )
    assert problems == {
        "accounts[1].credentials[0].name": "is the same as accounts[0].credentials[0].name "
        "(two@example.com)",
        "accounts[1].credentials[1].login": "is the same as accounts[0].email (two@example.com)",
        "accounts[2].credentials[0].login": "is the same as accounts[0].credentials[1].login "
        "(three@example.com)",
    }


def test_a_login_may_not_be_the_address_of_a_later_mailbox(config: ConfigFile) -> None:
    problems = config.problems(
        [
            account("one@example.com", KEY | {"login": "two@example.com"}),
            account("two@example.com"),
        ]
    )
    assert list(problems) == ["accounts[1].email"]
    assert "accounts[0].credentials[0].login" in problems["accounts[1].email"]


def test_names_are_unique_in_an_account_only(config: ConfigFile) -> None:
    problems = config.problems(
        [
            account("one@example.com", ADDRESS, KEY | {"login": "copier-1"}),
            account("two@example.com", ADDRESS),
        ]
    )
    assert list(problems) == ["accounts[0].credentials[1].name"]


def test_an_account_may_have_credentials_only(config: ConfigFile) -> None:
    (account,) = config.load_one(password=None, credentials=[KEY]).accounts
    assert account.password is None
    assert not account.allow_any_password
