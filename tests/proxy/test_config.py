"""What a configuration file says, and what the proxy is then started with."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv6Network, ip_network
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import argon2
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.accounts.sender_rules import FromRule
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.config.account_sections import (
    AccountSection,
    LimitsSection,
    ProviderSection,
    UpstreamSection,
)
from xoauth2_proxy.config.from_section import FromSection
from xoauth2_proxy.config.listener_section import ListenerSection
from xoauth2_proxy.config.section import keys_of
from xoauth2_proxy.config.sections import (
    AdminSection,
    AlertsSection,
    FileSection,
    RelaySection,
    StoreSection,
)
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from xoauth2_proxy.config.section import Section

EXAMPLE = Path(__file__).parents[2] / "accounts.example.json"

_HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("opens sesame")


@pytest.fixture(scope="module")
def certificate(authority: trustme.CA) -> bytes:
    """A certificate with its key, as Microsoft Entra takes it; RSA takes a while to make."""
    leaf = authority.issue_cert("relay.example", key_type=trustme.KeyType.RSA)
    return leaf.private_key_and_cert_chain_pem.bytes()


@pytest.fixture
def pem(config: ConfigFile, certificate: bytes) -> Path:
    """Files beside the configuration: "there", a certificate with its key, and "key.json"."""
    path = config.add("there", certificate.decode())
    key = certificate.decode().partition("-----BEGIN CERTIFICATE-----")[0]
    config.add("key.json", json.dumps({"client_email": "me@cloud.example", "private_key": key}))
    return path


def with_provider(entry: dict[str, object]) -> dict[str, object]:
    return {"accounts": [account(provider="corp")], "providers": {"corp": entry}}


CORP: dict[str, object] = {
    "refresher": "mock",
    "upstream": {"host": "127.0.0.2", "port": 26},
}


@dataclass(frozen=True)
class Beside:
    """The path of a file beside the configuration, as an expected value."""

    name: str = "there"


# OAuth keys, which accounts and providers have in common: value, field of the client, its value.
OAUTH: dict[str, tuple[object, str, object]] = {
    "client_id": ("me", "client_id", "me"),
    "client_secret": ("s", "client_secret", "s"),
    "grant": ("client_credentials", "grant_type", GrantType.CLIENT_CREDENTIALS),
    "scopes": ("mail offline_access", "scopes", ("mail", "offline_access")),
    "parameters": ({"audience": "smtp"}, "parameters", (("audience", "smtp"),)),
    "oauth_token_url": ("https://a.example/t", "token_endpoint", "https://a.example/t"),
    "authorization_url": ("https://a.example/a", "authorization_endpoint", "https://a.example/a"),
    "issuer": ("https://a.example/x/", "issuer", "https://a.example/x/"),
    "authority": ("https://a.example/", "authority", "https://a.example"),
    "tenant": ("common", "tenant", "common"),
    "ca_file": ("there", "ca_file", Beside()),
    "certificate": ("there", "certificate", Beside()),
    "service_account": ("key.json", "service_account", Beside("key.json")),
    "command": (["/bin/sh", "-c", "token"], "command", ("/bin/sh", "-c", "token")),
    "client_secret_expires": ("2027-01-31", "secret_expires_on", date(2027, 1, 31)),
    "refresh_token_days": (7, "refresh_token_days", 7),
    "refresh_window_seconds": (60, "refresh_window_seconds", 60.0),
}

# Every other key of the file once: the document that sets it, where the result shows it, and what
# it shows.
SETTINGS: dict[str, tuple[dict[str, object], str, object]] = {
    "account.email": (account(email="other@example.com"), "account.email", "other@example.com"),
    "account.provider": (account(provider="gmail"), "account.refresher", "gmail"),
    "account.enabled": (account(enabled=False), "disabled_accounts", 1),
    "account.password": (account(password="another"), "account.password.clear_text", "another"),
    "account.allow_any_password": (
        account(password=None, allow_any_password=True),
        "account.allow_any_password",
        True,
    ),
    **{
        f"account.{key}": (account(**{key: value}), f"account.oauth.{where}", expected)
        for key, (value, where, expected) in OAUTH.items()
    },
    **{
        f"provider.{key}": (with_provider(CORP | {key: value}), f"account.oauth.{where}", expected)
        for key, (value, where, expected) in OAUTH.items()
    },
    "account.refresh_token": (account(refresh_token="r"), "account.oauth.refresh_token", "r"),
    "account.sign_in_as": (account(sign_in_as="boss"), "account.oauth.sign_in_as", "boss"),
    "account.client_tokens": (account(client_tokens=False), "account.client_tokens", False),
    # Its keys: test_config_credentials.py.
    "account.credentials": (
        account(credentials=[{"name": "copier", "networks": ["::1"]}]),
        "account.credentials",
        (Credential(name="copier", networks=(IPv6Network("::1"),)),),
    ),
    "account.senders": (account(senders=["*@a.example"]), "account.senders", ("*@a.example",)),
    "account.from": (
        account(**{"from": {"display_name": "Scanner"}}),
        "account.from_rule",
        FromRule(display_name="Scanner"),
    ),
    "from.rewrite": (
        account(**{"from": {"rewrite": "a@b.example"}}),
        "account.from_rule",
        FromRule(rewrite="a@b.example"),
    ),
    "from.reply_to": (
        account(**{"from": {"rewrite": "a@b.example", "reply_to": True}}),
        "account.from_rule",
        FromRule(rewrite="a@b.example", reply_to=True),
    ),
    "from.display_name": (
        account(**{"from": {"display_name": " Third  floor "}}),
        "account.from_rule",
        FromRule(display_name="Third floor"),
    ),
    "account.recipients": (account(recipients="verified"), "account.verifies", True),
    "account.allow_remote_mock": (
        account(upstream={"host": "mx.example.com"}, allow_remote_mock=True),
        "account.upstream.host",
        "mx.example.com",
    ),
    "account.upstream": (account(upstream={"port": 99}), "sandbox_accounts", {"spare@example.com"}),
    "account.limits": (account(limits={"idle_seconds": 7}), "account.limits.idle_seconds", 7),
    "upstream.host": (account(upstream={"host": "::1"}), "account.upstream.host", "::1"),
    "upstream.port": (account(upstream={"port": 2601}), "account.upstream.port", 2601),
    "upstream.tls": (
        account(upstream={"tls": "implicit"}),
        "account.upstream.tls",
        TlsMode.IMPLICIT,
    ),
    "upstream.ca_file": (
        account(upstream={"ca_file": "there"}),
        "account.upstream.ca_file",
        Beside(),
    ),
    "limits.max_connections": (
        account(limits={"max_connections": 3}),
        "account.limits.max_connections",
        3,
    ),
    "limits.max_messages_per_connection": (
        account(limits={"max_messages_per_connection": 4}),
        "account.limits.max_messages_per_connection",
        4,
    ),
    "limits.max_connection_age_seconds": (
        account(limits={"max_connection_age_seconds": 5.5}),
        "account.limits.max_connection_age_seconds",
        5.5,
    ),
    "limits.idle_seconds": (
        account(limits={"idle_seconds": 6}),
        "account.limits.idle_seconds",
        6.0,
    ),
    "limits.wait_seconds": (
        account(limits={"wait_seconds": 0}),
        "account.limits.wait_seconds",
        0.0,
    ),
    "limits.messages_per_minute": (
        account(limits={"messages_per_minute": 12}),
        "account.limits.messages_per_minute",
        12.0,
    ),
    "limits.max_message_bytes": (
        account(limits={"max_message_bytes": 70_000}),
        "account.limits.max_message_bytes",
        70_000,
    ),
    "provider.refresher": (
        with_provider(CORP | {"refresher": "oidc"}),
        "account.refresher",
        "oidc",
    ),
    "provider.upstream": (with_provider(CORP), "account.upstream.port", 26),
    "provider.limits": (
        with_provider(CORP | {"limits": {"max_connections": 8}}),
        "account.limits.max_connections",
        8,
    ),
    "listener.strict": ({"listener": {"strict": True}}, "listener.strict", True),
    "listener.name": ({"listener": {"name": "office"}}, "listener.name", "office"),
    "listener.host": ({"listener": {"host": "localhost"}}, "listener.host", ("localhost",)),
    "listener.port": ({"listener": {"port": 0}}, "listener.port", 0),
    "listener.tls": (
        {"listener": {"tls": "auto", "tls_cert": "there", "tls_key": "there"}},
        "listener.tls",
        "auto",
    ),
    "listener.tls_cert": (
        {"listener": {"tls_cert": "there", "tls_key": "there"}},
        "listener.tls_cert",
        Beside(),
    ),
    "listener.tls_key": (
        {"listener": {"tls_cert": "there", "tls_key": "there"}},
        "listener.tls_key",
        Beside(),
    ),
    "listener.tls_min": (
        {"listener": {"tls_min": "1.0", "tls_cert": "there", "tls_key": "there"}},
        "listener.tls_min",
        "1.0",
    ),
    "listener.allow_insecure_auth": (
        {"listener": {"allow_insecure_auth": True}},
        "listener.allow_insecure_auth",
        True,
    ),
    "listener.proxies": (
        {"listener": {"proxies": ["192.0.2.1", "fd00::/8"]}},
        "listener.proxies",
        (ip_network("192.0.2.1/32"), ip_network("fd00::/8")),
    ),
    "listener.networks": (
        {"listener": {"networks": ["192.0.2.0/24"]}},
        "listener.networks",
        (ip_network("192.0.2.0/24"),),
    ),
    "listener.mechanisms": (
        {"listener": {"mechanisms": ["LOGIN", "XOAUTH2"]}},
        "listener.mechanisms",
        ("LOGIN", "XOAUTH2"),
    ),
    "listener.auth_equals_line": (
        {"listener": {"auth_equals_line": True}},
        "listener.auth_equals_line",
        True,
    ),
    "listener.max_connections": (
        {"listener": {"max_connections": 5}},
        "listener.max_connections",
        5,
    ),
    "listener.idle_seconds": ({"listener": {"idle_seconds": 1}}, "listener.idle_seconds", 1.0),
    **{
        f"listener.{key}": ({"listener": {key: value}}, f"listener.{key}", value)
        for key, value in {
            "max_connections_per_address": 7,
            "login_seconds": 8.0,
            "message_seconds": 9.0,
            "max_commands": 10,
            "max_bad_commands": 11,
        }.items()
    },
    "admin.host": ({"admin": {"host": "::1"}}, "admin.host", "::1"),
    "admin.port": ({"admin": {"port": 0}}, "admin.port", 0),
    "admin.token": ({"admin": {"token": "t"}}, "admin.token", "t"),
    "admin.public_url": (
        {"admin": {"public_url": "https://relay.example.com"}},
        "admin.public_url",
        "https://relay.example.com",
    ),
    "admin.serves_tokens": (
        {"admin": {"token": "t", "serves_tokens": True}},
        "admin.serves_tokens",
        True,
    ),
    "relay.max_message_bytes": (
        {"relay": {"max_message_bytes": 70_000}},
        "relay.max_message_bytes",
        70_000,
    ),
    "relay.buffer_bytes": ({"relay": {"buffer_bytes": 9000}}, "relay.buffer_bytes", 9000),
    "relay.buffer_total_bytes": (
        {"relay": {"buffer_total_bytes": 1 << 30}},
        "relay.buffer_total_bytes",
        1 << 30,
    ),
    "relay.max_recipients": ({"relay": {"max_recipients": 9}}, "relay.max_recipients", 9),
    "relay.max_failed_logins": (
        {"relay": {"max_failed_logins": 0}},
        "relay.max_failed_logins",
        0,
    ),
    "relay.drain_seconds": ({"relay": {"drain_seconds": 0}}, "relay.drain_seconds", 0.0),
    "store.kind": ({"store": {"kind": "memory"}}, "store.kind", StoreKind.MEMORY),
    "store.directory": ({"store": {"directory": "there"}}, "store.directory", Beside()),
    "store.url": (
        {"store": {"kind": "redis", "url": "rediss://cache.example"}},
        "store.url",
        "rediss://cache.example",
    ),
    "store.key": ({"store": {"key": "sixteen-letters."}}, "store.key", "sixteen-letters."),
    "store.keyring": ({"store": {"keyring": True}}, "store.keyring", True),
    "alerts.warn_days": ({"alerts": {"warn_days": 3}}, "alerts.warn_days", 3),
    "alerts.webhook": (
        {"alerts": {"webhook": "http://127.0.0.1:8000/hook?a=b"}},
        "alerts.webhook",
        "http://127.0.0.1:8000/hook?a=b",
    ),
}

# `account_id` shows in problems only. `options` need a plug-in (test_plug_in_options.py). The
# sections of the file are covered by their keys.
NOT_IN_THE_RESULT = {"account.account_id", "account.options", "provider.options"}

SECTIONS: dict[str, type[Section]] = {
    "account": AccountSection,
    "from": FromSection,
    "upstream": UpstreamSection,
    "limits": LimitsSection,
    "provider": ProviderSection,
    "listener": ListenerSection,
    "admin": AdminSection,
    "relay": RelaySection,
    "store": StoreSection,
    "alerts": AlertsSection,
}


def document_of(setting: dict[str, object]) -> dict[str, object]:
    """The document that a row of SETTINGS stands for; it has a second, untouched account."""
    spare = account(email="spare@example.com")
    if "email" in setting:
        return {"accounts": [setting, spare]}
    accounts = setting.get("accounts", [])
    assert isinstance(accounts, list)
    return setting | {"accounts": [*accounts, spare]}


class TestKeys:
    def test_every_key_has_a_row(self) -> None:
        keys = {f"{name}.{key}" for name, section in SECTIONS.items() for key in keys_of(section)}
        assert keys == set(SETTINGS) | NOT_IN_THE_RESULT

    @pytest.mark.parametrize("key", SETTINGS)
    def test_setting_a_key_changes_the_result(
        self, config: ConfigFile, key: str, pem: Path
    ) -> None:
        setting, where, expected = SETTINGS[key]
        if isinstance(expected, Beside):
            expected = pem.parent / expected.name
        result = config.load(document_of(setting))
        before = config.load(document_of(account()))
        section, _, attribute = where.partition(".")
        if section == "account":
            after_value = attrgetter(attribute)(result.accounts[0])
            assert after_value != attrgetter(attribute)(before.accounts[0])
        elif section == "listener":
            after_value = getattr(result.listeners[0], attribute)
            assert after_value != getattr(before.listeners[0], attribute)
        else:
            after_value = attrgetter(where)(result)
            assert after_value != attrgetter(where)(before)
        assert after_value == expected

    def test_documented_defaults_are_the_ones_in_force(self, config: ConfigFile) -> None:
        result = config.load_one()
        for name in ("listener", "admin", "relay", "alerts"):
            written = SECTIONS[name]().model_dump(exclude_none=True)
            section = result.listeners[0] if name == "listener" else getattr(result, name)
            found = {key: getattr(section, key) for key in written}
            assert found == {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in written.items()
            }

    def test_the_mailbox_is_named_in_the_problems_of_its_account(self, config: ConfigFile) -> None:
        right = [account(email=f"{number}@example.com") for number in range(3)]
        problems = config.problems([*right, account(limits=3, emial=1)])
        assert all(text.endswith(" (someone@example.com)") for text in problems.values())
        assert set(problems) == {"accounts[3].limits", "accounts[3].emial"}
        (nameless,) = config.problems([account(email="PLANTED")]).values()
        assert "(" not in nameless

    def test_account_id_is_named_in_problems(self, config: ConfigFile) -> None:
        problems = config.problems_of_one(account_id="gmail_01", provider="gmial")
        assert problems["accounts[0].provider"].endswith(
            "(someone@example.com, account_id gmail_01)"
        )


class TestForms:
    def test_example_loads_as_it_is(self, tmp_path: Path) -> None:
        result = ConfigSource(EXAMPLE, Overrides(), tmp_path).load(BUILT_IN_REFRESHERS, {})
        assert result.store.directory == tmp_path / "tokens"
        mailboxes = (*MOCK_MAILBOXES, "you@sandbox.example")
        assert tuple(account.email for account in result.accounts) == mailboxes
        assert result.disabled_accounts == 5
        assert result.sandbox_accounts == frozenset(mailboxes)
        assert result.warnings == ()

    def test_bare_list_of_accounts_loads(self, config: ConfigFile) -> None:
        assert config.load([account()]) == config.load({"accounts": [account()]})

    def test_comments_are_ignored_at_every_level(self, config: ConfigFile) -> None:
        commented = {
            "_comment": 1,
            "accounts": [
                account(
                    _comment=["x"],
                    _comment_2=None,
                    password={"file": "there", "_comment": ""},
                    limits={"_comment": {"a": 1}, "max_connections": 1},
                )
            ],
            "providers": {"_comment": "", "mock": {"_comment": ""}},
            "admin": {"_comment_port": 1},
        }
        config.add("there")
        assert config.problems(commented) == {}

    def test_byte_order_mark_is_ignored(self, config: ConfigFile) -> None:
        config.write(b"\xef\xbb\xbf" + json.dumps([account()]).encode())
        assert len(config.load().accounts) == 1

    def test_sandbox_without_a_file_serves_its_own_mailboxes(self, tmp_path: Path) -> None:
        result = ConfigSource(None, Overrides(sandbox=True), tmp_path).load(BUILT_IN_REFRESHERS, {})
        assert tuple(account.email for account in result.accounts) == MOCK_MAILBOXES
        assert all(
            account.password and account.password.clear_text == "secret"
            for account in result.accounts
        )
        assert result.sandbox_accounts == frozenset(MOCK_MAILBOXES)

    def test_no_file_and_no_sandbox_says_what_to_do(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"--config accounts\.json.*--sandbox"):
            ConfigSource(None, Overrides(), tmp_path).load(BUILT_IN_REFRESHERS, {})


class TestUnreadable:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b'{"accounts": [\n  {,}]}', "line 2, column 4"),
            (b"", "line 1, column 1"),
            (b'{"a": "\xff"}', "UTF-8"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"relay": {"drain_seconds": NaN}}', "NaN"),
            (b'{"relay": {"drain_seconds": -Infinity}}', "Infinity"),
            (b'{"relay": {"max_recipients": ' + b"1" * 5000 + b"}}", "digits"),
            (b" \n", "the file is empty"),
            (b'{"accounts": [\n  {"a": 1},\n]}', "line 2, column 11: trailing comma"),
            (b'{"accounts": [],}', "line 1, column 16: trailing comma"),
            (b'{"relay": {"a": 1 ,\n }}', "line 1, column 19: trailing comma"),
            (b'{\n  // mine\n  "accounts": []}', "line 2, column 3: comment"),
            (b'{"accounts": [] /* none */}', "line 1, column 17: comment"),
            (b'# mine\n{"accounts": []}', "line 1, column 1: comment"),
            (b'{"accounts": [1 # mine\n]}', 'begins with "_comment" is ignored'),
            (b"accounts:\n  - email: a@b.example\n", "line 1, column 1: this looks like YAML"),
            (b"---\n- email: a@b.example\n", "YAML"),
            (b"# mine\naccounts:\n", "YAML"),
            (b"{'accounts': []}", "line 1, column 2: single quote"),
            (b'{"accounts" []}', "line 1, column 13: Expecting ':' delimiter"),
            (b"3", "must hold an object"),
            (b'"accounts"', "must hold an object"),
            (b"null", "must hold an object"),
        ],
    )
    def test_file_that_is_no_configuration(
        self, config: ConfigFile, content: bytes, words: str
    ) -> None:
        config.write(content)
        assert words in config.problems()[str(config.path)]

    def test_missing_file(self, config: ConfigFile) -> None:
        assert config.problems() == {str(config.path): "cannot be read: No such file or directory"}

    def test_directory(self, config: ConfigFile) -> None:
        config.path.mkdir()
        assert "directory" in config.problems()[str(config.path)]

    def test_file_beyond_all_measure(
        self, config: ConfigFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("xoauth2_proxy.config.load._MAX_FILE_BYTES", 1000)
        config.write(b" " * 1001)
        assert config.problems() == {str(config.path): "is larger than 1000 bytes"}


def other(**changes: object) -> dict[str, object]:
    return account(email="other@example.com", **changes)


# A document, the path of its one problem, and words of the problem.
PROBLEMS: dict[str, tuple[object, str, str]] = {
    "unknown key of the file": (
        {"accounts": [account()], "listner": {}},
        "listner",
        "unknown key; did you mean listener?",
    ),
    "unknown key without a neighbour": (
        {"accounts": [account()], "zzz": {}},
        "zzz",
        "unknown key",
    ),
    "unknown key whose value is a variable": (
        [account(), other(pasword="${WORD}")],
        "accounts[1].pasword",
        "unknown key; did you mean password?",
    ),
    "unknown key that needs quoting": (
        [account(), other(**{"my key\n": 1})],
        'accounts[1]["my key\\n"]',
        "unknown key",
    ),
    "unknown key of a section of an account": (
        [account(upstream={"hots": "localhost"})],
        "accounts[0].upstream.hots",
        "did you mean host?",
    ),
    "unknown key of a provider": (
        with_provider(CORP | {"limits": {"max_connection": 1}}),
        "providers.corp.limits.max_connection",
        "did you mean max_connections?",
    ),
    "missing email": ([account(email=None)], "accounts[0].email", "is required"),
    "missing provider": ([account(provider=None)], "accounts[0].provider", "is required"),
    "missing accounts": ({"relay": {}}, "accounts", "is required"),
    "accounts that are no array": ({"accounts": {}}, "accounts", "must be an array"),
    "providers that are no object": (
        {"accounts": [account()], "providers": []},
        "providers",
        "must be an object",
    ),
    "a section that is no object": (
        {"accounts": [account()], "listener": [1]},
        "listener",
        "must be an object",
    ),
    "a section that is null": (
        {"accounts": [account()], "relay": None},
        "relay",
        "must be an object",
    ),
    "an account that is no object": (["someone"], "accounts[0]", "must be an object"),
    "text for a number": (
        [account(limits={"max_connections": "10"})],
        "accounts[0].limits.max_connections",
        "must be a valid integer",
    ),
    "a truth for a number": (
        [account(upstream={"port": True})],
        "accounts[0].upstream.port",
        "must be a valid integer",
    ),
    "a number for a truth": ([account(enabled=1)], "accounts[0].enabled", "valid boolean"),
    "a number beyond its bounds": (
        {"accounts": [account()], "relay": {"max_recipients": 0}},
        "relay.max_recipients",
        "must be greater than or equal to 1",
    ),
    "a word for another": (
        [account(upstream={"tls": "ssl"})],
        "accounts[0].upstream.tls",
        "must be 'starttls', 'implicit' or 'none'",
    ),
    "null": (
        [{**account(), "account_id": None}],
        "accounts[0].account_id",
        "must not be null; leave the key out",
    ),
    "no enabled account": ([account(enabled=False)], "accounts", "no account is enabled"),
    "duplicate mailbox": (
        [account(), account(email="SOMEONE@Example.COM")],
        "accounts[1].email",
        "is the same as accounts[0].email",
    ),
    "duplicate mailbox, the first disabled": (
        [account(enabled=False), account()],
        "accounts[1].email",
        "is the same as accounts[0].email",
    ),
    "duplicate account_id": (
        [account(account_id="a"), other(account_id="a")],
        "accounts[1].account_id",
        "is the same as accounts[0].account_id",
    ),
    "unknown provider": (
        [account(provider="gmial")],
        "accounts[0].provider",
        "there is no gmial; there are aol, comcast, fastmail, gmail, mailru, mock, oidc, outlook,",
    ),
    "unknown provider of a disabled account": (
        [account(), other(provider="gmial", enabled=False)],
        "accounts[1].provider",
        "there is no gmial",
    ),
    "provider whose name is no word": (
        {"accounts": [account()], "providers": {"my corp": CORP}},
        'providers["my corp"]',
        "must be 1 to 64 letters",
    ),
    "new provider without a refresher": (
        with_provider({"upstream": CORP["upstream"]}),
        "providers.corp.refresher",
        "is required",
    ),
    "new provider without a host": (
        with_provider({"refresher": "mock", "upstream": {"port": 26}}),
        "providers.corp.upstream.host",
        "is required",
    ),
    "new provider without a port": (
        with_provider({"refresher": "mock", "upstream": {"host": "localhost"}}),
        "providers.corp.upstream.port",
        "is required",
    ),
    "no TLS to another machine": (
        [account(provider="gmail", upstream={"tls": "none"})],
        "accounts[0].upstream.tls",
        "loopback only",
    ),
    "no TLS to another machine, in a provider": (
        with_provider({"refresher": "mock", "upstream": {"host": "h", "port": 1, "tls": "none"}}),
        "providers.corp.upstream.tls",
        "loopback only",
    ),
    "mock account on another machine": (
        [account(upstream={"host": "192.0.2.1"})],
        "accounts[0].upstream.host",
        "allow_remote_mock",
    ),
    "mock account on another machine by its provider": (
        {
            "accounts": [account()],
            "providers": {"mock": {"upstream": {"host": "mx.example.com"}}},
        },
        "accounts[0].provider",
        "allow_remote_mock",
    ),
    "authority that is not there": (
        [account(upstream={"ca_file": "gone.pem"})],
        "accounts[0].upstream.ca_file",
        "there is no file",
    ),
    "authority of a provider that is not there": (
        with_provider(
            {"refresher": "mock", "upstream": {"host": "::1", "port": 1, "ca_file": "gone.pem"}}
        ),
        "providers.corp.upstream.ca_file",
        "there is no file",
    ),
    "more connections than Exchange Online allows": (
        [account(provider="outlook", limits={"max_connections": 4})],
        "accounts[0].limits.max_connections",
        "outlook allows 3",
    ),
    "more connections than Exchange Online allows, in the provider": (
        {
            "accounts": [account()],
            "providers": {"outlook": {"limits": {"max_connections": 4}}},
        },
        "providers.outlook.limits.max_connections",
        "outlook allows 3",
    ),
    "no password": (
        [account(password=None)],
        "accounts[0].password",
        "what the mail client must present",
    ),
    "password and any password": (
        [account(allow_any_password=True)],
        "accounts[0].allow_any_password",
        "contradicts the password",
    ),
    "broken argon2 hash": (
        [account(password="$argon2id$v=19$m=8")],
        "accounts[0].password",
        "argon2",
    ),
    "host with a port": (
        [account(upstream={"host": "localhost:2600"})],
        "accounts[0].upstream.host",
        "the port has its own key",
    ),
    "host with a blank": (
        {"accounts": [account()], "listener": {"host": "local host"}},
        "listener.host",
        "must be a host name or an IP address",
    ),
    "certificate without a key": (
        {"accounts": [account()], "listener": {"tls_cert": "accounts.json"}},
        "listener.tls_key",
        "is required with tls_cert",
    ),
    "key without a certificate": (
        {"accounts": [account()], "listener": {"tls_key": "accounts.json"}},
        "listener.tls_cert",
        "is required with tls_key",
    ),
    "certificate that is not there": (
        {
            "accounts": [account()],
            "listener": {"tls_cert": "gone.pem", "tls_key": "accounts.json"},
        },
        "listener.tls_cert",
        "there is no file",
    ),
    "AUTH that could never be offered": (
        {"accounts": [account()], "listener": {"host": "0.0.0.0"}},
        "listener.host",
        "allow_insecure_auth",
    ),
    "admin for everyone": (
        {"accounts": [account()], "admin": {"host": "0.0.0.0"}},
        "admin.token",
        "is required on 0.0.0.0",
    ),
    "empty admin token": (
        {"accounts": [account()], "admin": {"token": ""}},
        "admin.token",
        "must not be empty",
    ),
    "a name that others give a provider": (
        [account(provider="office365")],
        "accounts[0].provider",
        "outlook-personal, sandbox, yahoo, yandex; did you mean outlook?",
    ),
    "a misspelled provider": (
        [account(provider="gmial")],
        "accounts[0].provider",
        "did you mean gmail?",
    ),
    "a variable for a tenant": (
        [account(provider="outlook", tenant="${TENANT}")],
        "accounts[0].tenant",
        "a variable works for secrets only",
    ),
    "a variable for a host": (
        [account(upstream={"host": "${HOST}"})],
        "accounts[0].upstream.host",
        "a variable works for secrets only",
    ),
    "a variable for a port": (
        {"accounts": [account()], "listener": {"port": "${PORT}"}},
        "listener.port",
        "a variable works for secrets only",
    ),
    "a variable for a file": (
        [account(upstream={"ca_file": "${FILE}"})],
        "accounts[0].upstream.ca_file",
        "a variable works for secrets only",
    ),
    "one port for both": (
        {"accounts": [account()], "listener": {"port": 9090}},
        "admin.port",
        "is 9090, which is listener.port too",
    ),
    "one port for both, on every address": (
        {
            "accounts": [account()],
            "listener": {"port": 26, "host": "0.0.0.0", "allow_insecure_auth": True},
            "admin": {"port": 26, "host": "localhost"},
        },
        "admin.port",
        "give each its own",
    ),
    "half a surrogate pair": (
        [account(account_id="\ud800")],
        "accounts[0].account_id",
        "unicode",
    ),
}


class TestProblems:
    @pytest.mark.parametrize("name", PROBLEMS)
    def test_problem_names_its_path(self, config: ConfigFile, name: str) -> None:
        document, path, words = PROBLEMS[name]
        problems = config.problems(document)
        assert list(problems) == [path]
        assert words in problems[path]

    @pytest.mark.parametrize(
        "email",
        [
            "",
            "someone",
            "@example.com",
            "someone@",
            "a@b@example.com",
            "some one@example.com",
            " someone@example.com",
            "someone@example.com\n",
            "some\x01one@example.com",
            '"some\x01one"@example.com',
            "some\x7fone@example.com",
            "x" * 243 + "@example.com",
            "<someone@example.com>",
            "someone@example.com>",
            "some,one@example.com",
            "some:one@example.com",
            "someone@example..com",
            "someone@example.com.",
            "someone@-example.com",
            "someone@example-.com",
            "someone@example.com,other.com",
            "someone@example.com/x",
            "someone@[127.0.0.1",
        ],
    )
    def test_address_that_is_none(self, config: ConfigFile, email: str) -> None:
        assert list(config.problems_of_one(email=email)) == ["accounts[0].email"]

    @pytest.mark.parametrize("email", ["*@example.com", "someone@*", "someone@*.com", "*@*", "*"])
    def test_an_address_for_others_is_none(self, config: ConfigFile, email: str) -> None:
        problems = config.problems_of_one(email=email)
        assert "does not stand for others" in problems["accounts[0].email"]

    @pytest.mark.parametrize(
        "email",
        [
            "someone@localhost",
            '"a@b c"@example.com',
            "jürgen@exämple.com",
            "a'b+c@d.e",
            "a..b@my_host.e",
            "a@[127.0.0.1]",
            "a@x-y.नमस्ते",
        ],
    )
    def test_unusual_address_that_is_one(self, config: ConfigFile, email: str) -> None:
        assert config.load_one(email=email).accounts[0].email == email

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            ("oauth_endpoint", "upstream.host and upstream.port"),
            ("ip_address", "remove it"),
            ("vmta_name", "remove it"),
            ("max_concurrent_messages", "limits.max_connections"),
            ("max_messages_per_hour", "limits.messages_per_minute"),
            ("connection_settings", "limits.max_messages_per_connection"),
            ("rate_limiting", "limits.messages_per_minute"),
            ("retry", "remove it"),
            ("circuit_breaker", "remove it"),
        ],
    )
    def test_key_of_the_former_system_says_what_to_write(
        self, config: ConfigFile, key: str, words: str
    ) -> None:
        assert words in config.problems_of_one(**{key: {}})[f"accounts[0].{key}"]

    @pytest.mark.parametrize(
        ("text", "path"),
        [
            ('{"accounts": [], "accounts": [%s]}', "accounts"),
            ('{"accounts": [%s], "relay": {"drain_seconds": 1, "drain_seconds": 1}}', None),
            ('[%s, {"email": "o@b", "email": "o@b", "provider": "mock", "password": "p"}]', None),
        ],
    )
    def test_key_written_twice(self, config: ConfigFile, text: str, path: str | None) -> None:
        config.write(text % json.dumps(account()))
        expected = path or ("relay.drain_seconds" if "relay" in text else "accounts[1].email")
        assert config.problems() == {expected: "is written twice in one object"}

    def test_comment_may_be_written_twice(self, config: ConfigFile) -> None:
        comments = '{"_comment": 1, "_comment": 2, "accounts": '
        config.write(comments + json.dumps([account()]) + "}")
        assert config.problems() == {}

    def test_all_problems_are_told_at_once(self, config: ConfigFile) -> None:
        document = {
            "accounts": [
                account(email=3, retry={}),
                other(password="${UNSET_VARIABLE}", upstream={"host": "192.0.2.1"}),
                account(email="third@example.com", provider="corp"),
                account(email="OTHER@example.com"),
                account(email="fifth@example.com", provider="gmial"),
            ],
            "providers": {"corp": {"refresher": "mock", "upstream": {"host": 1, "port": 0}}},
            "listener": {"host": "0.0.0.0", "tls_cert": "gone"},
            "admin": {"port": -1},
            "relay": {"unknown": 1},
            "other": 1,
        }
        assert set(config.problems(document)) == {
            "other",
            "listener.tls_cert",
            "listener.tls_key",
            "providers.corp.upstream.host",
            "providers.corp.upstream.port",
            "accounts[0].email",
            "accounts[0].retry",
            "accounts[1].password",
            "accounts[1].upstream.host",
            "accounts[3].email",
            "accounts[4].provider",
            "admin.port",
            "relay.unknown",
        }

    def test_text_of_the_error_has_a_line_for_each_problem(self, config: ConfigFile) -> None:
        with pytest.raises(ConfigError) as caught:
            config.load([account(email=None), account(provider=None)])
        assert str(caught.value).splitlines() == [
            "accounts[0].email: is required",
            "accounts[1].provider: is required (someone@example.com)",
        ]


class TestProviders:
    def test_gmail_and_outlook_have_their_servers_built_in(self, config: ConfigFile) -> None:
        result = config.load([account(provider="gmail"), other(provider="outlook")])
        gmail, outlook = result.accounts
        assert (gmail.upstream.host, gmail.upstream.port) == ("smtp.gmail.com", 587)
        assert (outlook.upstream.host, outlook.upstream.port) == ("smtp.office365.com", 587)
        assert {gmail.upstream.tls, outlook.upstream.tls} == {TlsMode.STARTTLS}
        assert outlook.limits.max_connections < 3
        assert outlook.limits.max_connection_age_seconds <= 900

    def test_three_connections_to_exchange_online_are_allowed(self, config: ConfigFile) -> None:
        result = config.load_one(provider="outlook", limits={"max_connections": 3})
        assert result.accounts[0].limits.max_connections == 3

    def test_mock_accounts_trust_the_sandbox_before_it_ever_ran(self, config: ConfigFile) -> None:
        upstream = config.load_one().accounts[0].upstream
        assert (upstream.host, upstream.port) == ("localhost", 2600)
        assert upstream.ca_file == config.state_dir / "sandbox" / "ca.pem"
        assert not upstream.ca_file.exists()

    def test_partial_upstream_leaves_the_rest_to_the_provider(self, config: ConfigFile) -> None:
        upstream = (
            config.load_one(provider="gmail", upstream={"port": 465, "tls": "implicit"})
            .accounts[0]
            .upstream
        )
        assert (upstream.host, upstream.port) == ("smtp.gmail.com", 465)

    def test_entry_changes_a_built_in_provider(self, config: ConfigFile) -> None:
        entry = {"upstream": {"port": 26}, "limits": {"max_connections": 1}}
        result = config.load({"accounts": [account()], "providers": {"mock": entry}})
        (changed,) = result.accounts
        assert (changed.upstream.host, changed.upstream.port) == ("localhost", 26)
        assert changed.limits.max_connections == 1
        assert changed.limits.max_messages_per_connection > 1

    def test_account_beats_entry_beats_built_in(self, config: ConfigFile) -> None:
        document = {
            "accounts": [account(limits={"idle_seconds": 3})],
            "providers": {"mock": {"limits": {"idle_seconds": 2, "wait_seconds": 2}}},
        }
        limits = config.load(document).accounts[0].limits
        assert (limits.idle_seconds, limits.wait_seconds) == (3, 2)

    def test_provider_of_ones_own_requires_tls_unless_told(self, config: ConfigFile) -> None:
        assert config.load(with_provider(CORP)).accounts[0].upstream.tls is TlsMode.STARTTLS

    @pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.9.9.9", "::1"])
    def test_no_tls_on_loopback(self, config: ConfigFile, host: str) -> None:
        result = config.load_one(upstream={"host": host, "tls": "none"})
        assert result.accounts[0].upstream.tls is TlsMode.NONE

    def test_sandbox_may_move_only_what_nobody_placed(self, config: ConfigFile) -> None:
        document = {
            "accounts": [
                account(email="Free@example.com"),
                account(email="placed@example.com", upstream={"port": 2600}),
                account(email="corp@example.com", provider="corp"),
                account(email="gmail@example.com", provider="gmail"),
                account(email="off@example.com", enabled=False),
            ],
            "providers": {"corp": CORP, "mock": {"limits": {"max_connections": 1}}},
        }
        assert config.load(document).sandbox_accounts == {"free@example.com"}

    def test_entry_with_an_upstream_places_its_accounts(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "providers": {"mock": {"upstream": {"port": 26}}}}
        assert config.load(document).sandbox_accounts == frozenset()


class TestSecrets:
    @pytest.mark.parametrize(
        ("key", "where"),
        [
            ("password", "password.clear_text"),
            ("client_id", "oauth.client_id"),
            ("client_secret", "oauth.client_secret"),
            ("refresh_token", "oauth.refresh_token"),
        ],
    )
    @pytest.mark.parametrize("written", ["text", "${THE_VARIABLE}", {"file": "the.file"}])
    def test_every_secret_takes_every_form(
        self, config: ConfigFile, key: str, where: str, written: object
    ) -> None:
        config.environ["THE_VARIABLE"] = "text"
        config.add("the.file", "text\n")
        result = config.load_one(**{key: written})
        assert attrgetter(where)(result.accounts[0]) == "text"

    @pytest.mark.parametrize("written", ["text", "${THE_VARIABLE}", {"file": "the.file"}])
    def test_admin_token_takes_every_form(self, config: ConfigFile, written: object) -> None:
        config.environ["THE_VARIABLE"] = "text"
        config.add("the.file", "text\n")
        document = {"accounts": [account()], "admin": {"host": "0.0.0.0", "token": written}}
        assert config.load(document).admin.token == "text"

    def test_argon2_hash_is_kept_as_a_hash(self, config: ConfigFile) -> None:
        config.environ["HASH"] = _HASH
        for written in (_HASH, "${HASH}"):
            password = config.load_one(password=written).accounts[0].password
            assert password is not None
            assert (password.argon2_hash, password.clear_text) == (_HASH, "")

    def test_disabled_account_needs_neither_secrets_nor_files(self, config: ConfigFile) -> None:
        off = other(
            enabled=False,
            password="${UNSET_VARIABLE}",
            client_secret={"file": "gone"},
            upstream={"ca_file": "gone.pem"},
        )
        assert config.load([account(), off]).disabled_accounts == 1

    def test_disabled_account_is_checked_for_its_shape(self, config: ConfigFile) -> None:
        off = other(enabled=False, password="${not a variable}", limits={"wait_seconds": "1"})
        assert set(config.problems([account(), off])) == {
            "accounts[1].password",
            "accounts[1].limits.wait_seconds",
        }

    def test_no_secret_in_the_repr_of_a_configuration(self, config: ConfigFile) -> None:
        document = {
            "accounts": [
                account(password="PLANTED1", client_secret="PLANTED2", refresh_token="PLANTED3"),
                other(password=_HASH),
            ],
            "admin": {"token": "PLANTED4"},
        }
        shown = repr(config.load(document))
        assert "PLANTED" not in shown
        assert "argon2id" not in shown

    @pytest.mark.parametrize("wrong", [{}, {"retry": 1}, {"email": 3}, {"upstream": "PLANTED"}])
    def test_no_secret_in_the_words_of_a_problem(
        self, config: ConfigFile, wrong: dict[str, object]
    ) -> None:
        config.environ["EMPTY"] = ""
        config.add("planted", "PLANTED\0" * 20_000)
        secrets = [
            "PLANTED",
            "${PLANTED-",
            "$argon2id$PLANTED",
            ["PLANTED"],
            {"file": ["PLANTED"]},
            {"file": "planted"},
            {"text": "PLANTED"},
            "PLANTED\ud800",
            4711_4711_4711,
        ]
        document = {
            "accounts": [
                account(
                    **{
                        "email": f"{number}{key}@example.com",
                        "provider": "corp",
                        key: secret,
                        **wrong,
                    }
                )
                for number, secret in enumerate(secrets)
                for key in ("password", "client_id", "client_secret", "refresh_token")
            ],
            "admin": {"token": ["PLANTED"]},
        }
        with pytest.raises(ConfigError) as caught:
            config.load(document)
        assert "PLANTED" not in str(caught.value)
        assert "4711" not in str(caught.value)
        assert "PLANTED" not in repr(caught.value)


class TestListener:
    def test_command_line_beats_the_file(self, config: ConfigFile, pem: Path) -> None:
        given = Overrides(
            host="::1",
            port=1,
            admin_host="localhost",
            admin_port=2,
            tls_cert=pem,
            tls_key=pem,
            allow_insecure_auth=False,
        )
        result = config.load(
            {
                "accounts": [account()],
                "listener": {"host": "0.0.0.0", "port": 3, "allow_insecure_auth": True},
                "admin": {"host": "0.0.0.0", "port": 4},
            },
            given,
        )
        (listener,) = result.listeners
        assert (listener.host, listener.port) == (("::1",), 1)
        assert (result.admin.host, result.admin.port) == ("localhost", 2)
        assert listener.tls_cert == listener.tls_key == pem
        assert listener.allow_insecure_auth is False

    def test_command_line_can_be_the_one_at_fault(self, config: ConfigFile) -> None:
        given = Overrides(host="192.0.2.1", tls_cert=Path("gone"), tls_key=Path("gone"))
        assert set(config.problems([account()], given)) == {"--tls-cert", "--tls-key"}
        assert set(config.problems([account()], Overrides(host="192.0.2.1"))) == {"--host"}
        assert set(config.problems([account()], Overrides(host=""))) == {"--host"}
        assert set(config.problems([account()], Overrides(admin_host="::"))) == {"admin.token"}

    def test_one_port_for_both_is_named_by_its_options(self, config: ConfigFile) -> None:
        given = Overrides(port=26, admin_port=26)
        assert config.problems([account()], given) == {
            "--admin-port": "is 26, which is --port too; give each its own"
        }
        assert list(config.problems([account()], Overrides(port=9090))) == ["admin.port"]
        assert config.problems([account()], Overrides(port=0, admin_port=0)) == {}
        apart = {"listener": {"port": 9090, "host": "127.0.0.2"}}
        assert config.problems(apart | {"accounts": [account()]}) == {}

    def test_what_is_overridden_must_be_right_too(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "listener": {"port": "25"}}
        assert list(config.problems(document, Overrides(port=26))) == ["listener.port"]
        wrong_too = Overrides(port=70_000, admin_host="::")
        assert set(config.problems(document, wrong_too)) == {
            "listener.port", "--port", "admin.token",
        }  # fmt: skip

    def test_file_that_may_not_be_read(
        self, config: ConfigFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Taken away by hand: a superuser may read every file whatever its mode.
        monkeypatch.setattr("os.access", lambda *_: False)
        there = config.add("there")
        given = Overrides(tls_cert=there, tls_key=there)
        problems = config.problems([account()], given)
        assert problems["--tls-key"] == f"the file {there} may not be read"

    @pytest.mark.usefixtures("pem")
    def test_tls_opens_every_address(self, config: ConfigFile) -> None:
        listener = {"host": "0.0.0.0", "tls_cert": "there", "tls_key": "there"}
        result = config.load({"accounts": [account()], "listener": listener})
        assert result.warnings == ()

    def test_insecure_auth_is_warned_of(self, config: ConfigFile) -> None:
        given = Overrides(host="192.0.2.1", allow_insecure_auth=True)
        (warning,) = config.load([account()], given).warnings
        assert "192.0.2.1" in warning
        assert "without TLS" in warning

    def test_a_short_admin_token_is_warned_of(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "admin": {"token": "PLANTED"}}
        (warning,) = config.load(document).warnings
        assert warning.startswith("admin.token: has fewer than 16 characters")
        assert "PLANTED" not in warning
        assert config.load(document | {"admin": {"token": "x" * 16}}).warnings == ()

    @pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "mail.example.com"])
    def test_any_password_is_for_loopback_only(self, config: ConfigFile, host: str) -> None:
        anyone = account(password=None, allow_any_password=True)
        given = Overrides(host=host, allow_insecure_auth=True)
        assert set(config.problems([anyone], given)) == {"accounts[0].allow_any_password"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def near_misses() -> st.SearchStrategy[object]:
    """Documents of the right keys with anything for values."""

    def section(names: object) -> st.SearchStrategy[object]:
        return json_values | st.dictionaries(
            st.sampled_from(sorted(names)) | st.text(),  # type: ignore[call-overload]
            json_values | st.sampled_from([*SAMPLES]),
            max_size=6,
        )

    sections = {name: section(model.model_fields) for name, model in SECTIONS.items()}
    nested = st.fixed_dictionaries(
        {},
        optional={
            "email": st.just("a@example.com") | json_values,
            "provider": st.sampled_from(["mock", "gmail", "corp", "outlook", "oidc", "yahoo"])
            | json_values,
            "password": st.just("p") | json_values,
            "upstream": sections["upstream"],
            "limits": sections["limits"],
            **{key: st.sampled_from([*SAMPLES]) | json_values for key in OAUTH},
        },
    )
    return st.fixed_dictionaries(
        {"accounts": st.lists(sections["account"] | nested, max_size=3) | json_values},
        optional={
            "providers": st.dictionaries(
                st.sampled_from(["mock", "gmail", "corp"]) | st.text(), sections["provider"]
            ),
            "listener": sections["listener"],
            "admin": sections["admin"],
            "relay": sections["relay"],
            "store": sections["store"],
            "alerts": sections["alerts"],
        },
    )


SAMPLES = (
    "mock",
    "a@example.com",
    "${HOME}",
    "localhost",
    "starttls",
    "\ud800",
    "\0",
    "https://a.example/x",
    "2027-01-31",
    "client_credentials",
    1e308,
    2**70,
)


class TestAnything:
    @settings(
        max_examples=settings().max_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(document=json_values | near_misses())
    def test_any_json_loads_or_is_refused_in_words(
        self, config: ConfigFile, document: object
    ) -> None:
        try:
            config.load(document if document is not None else [])
        except ConfigError as error:
            str(error).encode()

    @settings(
        max_examples=settings().max_examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(content=st.binary() | st.text().map(str.encode))
    def test_any_octets_load_or_are_refused_in_words(
        self, config: ConfigFile, content: bytes
    ) -> None:
        config.write(content)
        with suppress(ConfigError):
            assert config.load().accounts == ()  # of octets by chance, at most an empty list loads


def test_sections_of_the_file_are_all_covered() -> None:
    assert set(FileSection.model_fields) == {
        "accounts",
        "providers",
        "relay",
        "listener",
        "listeners",
        "admin",
        "store",
        "alerts",
    }


class TestCertificates:
    """What is wrong with a PEM file is told by `check`, not by the first client."""

    @pytest.mark.parametrize("content", ["", "x", "-----BEGIN CERTIFICATE-----\nx\n"])
    @pytest.mark.parametrize("place", ["account", "provider"])
    def test_authorities_that_are_none(self, config: ConfigFile, content: str, place: str) -> None:
        there = config.add("there", content)
        document: object = [account(upstream={"ca_file": "there"})]
        where = "accounts[0].upstream.ca_file"
        if place == "provider":
            upstream = {"host": "::1", "port": 1, "ca_file": "there"}
            document = with_provider({"refresher": "mock", "upstream": upstream})
            where = "providers.corp.upstream.ca_file"
        assert f"the file {there} holds no certificates (PEM)" in config.problems(document)[where]

    def test_authorities_of_a_disabled_account_need_not_exist(self, config: ConfigFile) -> None:
        off = other(enabled=False, upstream={"ca_file": "gone.pem"})
        assert config.problems([account(), off]) == {}

    @pytest.mark.parametrize("fault", ["another's key", "no key", "no certificate", "encrypted"])
    def test_a_pair_that_is_none(
        self, config: ConfigFile, authority: trustme.CA, fault: str
    ) -> None:
        mine, another = (authority.issue_cert("relay.example") for _ in range(2))
        cert, key = mine.cert_chain_pems[0].bytes(), mine.private_key_pem.bytes()
        match fault:
            case "another's key":
                key = another.private_key_pem.bytes()
            case "no key":
                key = cert
            case "no certificate":
                cert = key
            case _:
                key = load_pem_private_key(key, None).private_bytes(
                    Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
                )
        (config.directory / "cert.pem").write_bytes(cert)
        (config.directory / "key.pem").write_bytes(key)
        listener = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
        problems = config.problems({"accounts": [account()], "listener": listener})
        assert set(problems) == {"listener.tls_cert"}
        for word in ("cert.pem", "key.pem", "PEM", "encrypted"):
            assert word in problems["listener.tls_cert"]


class TestMalformedAccounts:
    """A malformed key hides nothing else that is wrong with its account."""

    @pytest.mark.parametrize(
        ("malformed", "where"),
        [
            ({"enabled": "perhaps"}, "accounts[0].enabled"),
            ({"emial": "x"}, "accounts[0].emial"),
            ({"email": "none"}, "accounts[0].email"),
            ({"limits": {"max_connections": 0}}, "accounts[0].limits.max_connections"),
            ({"allow_remote_mock": 3}, "accounts[0].allow_remote_mock"),
        ],
    )
    def test_its_other_problems_are_told_as_well(
        self, config: ConfigFile, malformed: dict[str, object], where: str
    ) -> None:
        faulty = {"password": "${NOT_SET}", "upstream": {"host": "192.0.2.1"}}
        problems = config.problems([account(**faulty | malformed), other()])
        assert set(problems) == {where, "accounts[0].password", "accounts[0].upstream.host"}

    def test_a_malformed_password_is_told_once(self, config: ConfigFile) -> None:
        problems = config.problems([account(password=3, upstream={"ca_file": "gone.pem"}), other()])
        assert set(problems) == {"accounts[0].password", "accounts[0].upstream.ca_file"}
