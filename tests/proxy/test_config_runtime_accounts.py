"""Accounts that are added while the relay runs: kept, read with the file's, and judged."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Account

KEY = "a-key-of-sixteen-letters-or-more"
TOKEN = "a token of sixteen letters or more"
WHOLE_ORGANISATION = {
    "grant": "client_credentials",
    "client_id": "ours",
    "client_secret": "hidden",
    "tenant": "example.com",
}


@pytest.fixture
def added(config: ConfigFile) -> RuntimeAccounts:
    return RuntimeAccounts(directory_of(config), NO_ENCRYPTION)


def directory_of(config: ConfigFile) -> Path:
    return config.state_dir / "accounts"


def new(**changes: object) -> dict[str, object]:
    return account(**{"email": "New@example.com"} | changes)


class TestKeeping:
    def test_what_was_added_is_there_again(self, added: RuntimeAccounts) -> None:
        added.add(new())
        ((name, document),) = added.documents()
        assert document == new()
        assert name.endswith(".json")
        assert added.keys() == {"new@example.com"}

    def test_nothing_is_there_before_anything_was_added(
        self, added: RuntimeAccounts, config: ConfigFile
    ) -> None:
        assert added.documents() == []
        assert not added.remove("new@example.com")
        assert not directory_of(config).exists()

    def test_files_are_their_owners_alone(self, added: RuntimeAccounts, config: ConfigFile) -> None:
        added.add(new())
        (path,) = directory_of(config).iterdir()
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert "example" not in path.name

    def test_one_of_the_same_key_takes_the_place(self, added: RuntimeAccounts) -> None:
        added.add(new())
        added.add(account(email="NEW@EXAMPLE.COM", password="another"))
        ((_, document),) = added.documents()
        assert document["password"] == "another"

    def test_what_was_removed_is_gone(self, added: RuntimeAccounts) -> None:
        added.add(new())
        assert added.remove("new@example.com")
        assert not added.remove("new@example.com")
        assert added.documents() == []

    def test_a_file_that_somebody_put_there_can_be_removed(
        self, added: RuntimeAccounts, config: ConfigFile
    ) -> None:
        directory_of(config).mkdir(parents=True, mode=0o700)
        (directory_of(config) / "by-hand.json").write_text(json.dumps(new()))
        assert added.remove("new@example.com")
        assert added.documents() == []

    def test_a_sealed_account_does_not_show_on_disk(self, config: ConfigFile) -> None:
        sealed = RuntimeAccounts(directory_of(config), GrantCipher(KEY))
        sealed.add(new(password="PLANTED"))
        (path,) = directory_of(config).iterdir()
        assert b"PLANTED" not in path.read_bytes()
        assert sealed.documents()[0][1]["password"] == "PLANTED"
        assert RuntimeAccounts(directory_of(config), GrantCipher(KEY * 2)).documents() == []


class TestReading:
    def test_added_accounts_follow_those_of_the_file(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new())
        added.add(account(email="off@example.com", enabled=False))
        result = config.load_one()
        assert [one.key for one in result.accounts] == ["someone@example.com", "new@example.com"]
        assert result.runtime_accounts == {"new@example.com", "off@example.com"}
        assert result.disabled_accounts == 1
        assert result.warnings == ()

    def test_the_stores_key_opens_them(self, config: ConfigFile) -> None:
        RuntimeAccounts(directory_of(config), GrantCipher(KEY)).add(new())
        document = {"accounts": [account()], "store": {"key": KEY}}
        assert config.load(document).runtime_accounts == {"new@example.com"}
        (warning,) = config.load_one().warnings
        assert "left out" in warning
        assert "store.key" in warning

    def test_they_use_the_files_providers(self, config: ConfigFile, added: RuntimeAccounts) -> None:
        added.add(new(provider="gmail"))
        document = {"accounts": [account()], "providers": {"gmail": {"client_id": "shared"}}}
        assert config.load(document).accounts[1].oauth.client_id == "shared"

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ("{", "line 1, column 2"),
            ("[]", "must hold one account, an object"),
            (json.dumps(new(provider="gone")), "provider: there is no gone"),
            (json.dumps(new(password="${UNSET}")), "password: must be the text itself"),
            (json.dumps(new(colour="PLANTED")), "colour: unknown key"),
            (
                json.dumps(account(email="SOMEONE@example.com")),
                "email: is the same as accounts[0].email in the configuration file; one of the two",
            ),
            (json.dumps(new(provider="yahoo")), "providers.yahoo.client_id: the environment"),
        ],
    )
    def test_one_that_is_wrong_is_left_out_with_a_warning(
        self, config: ConfigFile, added: RuntimeAccounts, content: str, words: str
    ) -> None:
        added.add(account(email="right@example.com"))
        wrong = directory_of(config) / "wrong.json"
        wrong.write_text(content)
        providers = {"yahoo": {"client_id": "${UNSET}"}}
        result = config.load({"accounts": [account()], "providers": providers})
        assert result.runtime_accounts == {"right@example.com"}
        assert len(result.accounts) == 2
        (warning,) = result.warnings
        assert f"{wrong}: {words}" in warning
        assert "PLANTED" not in warning

    @pytest.mark.parametrize(
        "directions",
        [
            {"oauth_token_url": "https://elsewhere.example/token"},
            {"authorization_url": "https://elsewhere.example/authorize"},
            {"upstream": {"host": "elsewhere.example"}},
            {"scopes": "everything"},
        ],
    )
    def test_a_client_that_was_registered_since_is_sent_nowhere_else(
        self, config: ConfigFile, added: RuntimeAccounts, directions: dict[str, object]
    ) -> None:
        added.add(new(provider="gmail", **directions))
        before = config.load_one()
        assert before.runtime_accounts == {"new@example.com"}
        entry = {"client_id": "ours", "client_secret": "hidden"}
        result = config.load({"accounts": [account()], "providers": {"gmail": entry}})
        assert result.runtime_accounts == set()
        assert len(result.accounts) == 1
        (warning,) = result.warnings
        assert f"{next(iter(directions))}: cannot be changed here" in warning

    def test_a_client_for_a_whole_organisation_is_theirs_only_behind_a_token(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new(provider="outlook"))
        document = {"accounts": [account()], "providers": {"outlook": WHOLE_ORGANISATION}}
        result = config.load(document)
        assert result.runtime_accounts == set()
        assert "provider: opens every mailbox" in result.warnings[0]
        assert config.load(document | {"admin": {"token": TOKEN}}).runtime_accounts == {
            "new@example.com"
        }

    def test_a_directory_open_to_others_is_not_read(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new())
        directory_of(config).chmod(0o755)
        (warning,) = config.load_one().warnings
        assert "chmod 700" in warning

    def test_a_file_that_vanished_meanwhile_stops_nothing(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new())
        os.symlink("nowhere", directory_of(config) / "dangling.json")
        result = config.load_one()
        assert result.runtime_accounts == {"new@example.com"}
        assert "cannot be read" in result.warnings[0]

    def test_no_enabled_account_in_the_file_is_enough_if_there_are_others(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        off = account(enabled=False)
        assert set(config.problems([off])) == {"accounts"}
        added.add(new())
        assert len(config.load([off]).accounts) == 1

    def test_a_fresh_relay_may_have_no_account_yet(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        result = config.load({"accounts": []})
        assert (result.accounts, result.runtime_accounts) == ((), frozenset())
        assert result.warnings == ("there is no account yet: no one can log in",)
        added.add(new())
        assert config.load().warnings == ()

    def test_no_keyring_is_asked_before_an_account_was_added(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "store": {"keyring": True}}
        assert config.load(document).store.keyring


class Door:
    """Checks accounts as the admin server would, against a configuration file."""

    def __init__(self, config: ConfigFile, **document: object) -> None:
        config.write(json.dumps({"accounts": [account()]} | document))
        self._config = config
        self.source = ConfigSource(config.path, Overrides(), config.state_dir)

    def check(self, **changes: object) -> Account:
        return self.source.check_account(
            new(**changes), self._config.known_refreshers, self._config.environ
        )

    def problems(self, **changes: object) -> dict[str, str]:
        """Return what is wrong with an account, by JSON path."""
        with pytest.raises(ConfigError) as caught:
            self.check(**changes)
        return dict(caught.value.problems)


class TestAdmission:
    def test_a_right_account_is_returned_and_not_kept(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        door = Door(config, providers={"gmail": {"client_id": "shared"}})
        admitted = door.check(provider="gmail", limits={"max_connections": 3})
        assert (admitted.key, admitted.oauth.client_id) == ("new@example.com", "shared")
        assert admitted.limits.max_connections == 3
        assert added.documents() == []

    def test_problems_begin_in_the_account(self, config: ConfigFile) -> None:
        problems = Door(config).problems(provider="gone", limits={"max_connections": 0}, x=1)
        assert set(problems) == {"provider", "limits.max_connections", "x"}
        assert set(Door(config).problems(provider="gone")) == {"provider"}
        assert set(Door(config).problems(enabled=False)) == {"enabled"}

    def test_a_mailbox_that_is_there_is_refused(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        door = Door(config)
        taken = door.problems(email="someone@EXAMPLE.com")
        assert taken["email"].startswith(
            "is the same as accounts[0].email in the configuration file"
        )
        added.add(new())
        assert "email in " in door.problems()["email"]

    def test_a_configuration_that_became_wrong_is_named(self, config: ConfigFile) -> None:
        problems = Door(config, relay={"max_recipients": 0}).problems()
        assert set(problems) == {"relay.max_recipients"}

    @pytest.mark.parametrize("value", [None, [], "x"])
    def test_no_object_is_no_account(self, config: ConfigFile, value: object) -> None:
        source = Door(config).source
        with pytest.raises(ConfigError, match="must be an object"):
            source.check_account(value, BUILT_IN_REFRESHERS, {})

    def test_several_are_judged_beside_each_other(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new())
        documents = [
            ("accounts[0]", new()),
            ("accounts[1]", new()),
            ("accounts[2]", account(email="third@example.com", limits={"x": 1})),
            ("accounts[3]", 3),
        ]
        with pytest.raises(ConfigError) as caught:
            Door(config).source.check_accounts(
                documents,
                config.known_refreshers,
                {},
                replaced={"new@example.com"},
            )
        problems = dict(caught.value.problems)
        assert set(problems) == {"accounts[1].email", "accounts[2].limits.x", "accounts[3]"}
        assert "accounts[0].email in the request" in problems["accounts[1].email"]

    def test_an_added_account_can_be_replaced(
        self, config: ConfigFile, added: RuntimeAccounts
    ) -> None:
        added.add(new())
        (admitted,) = Door(config).source.check_accounts(
            [("", new(recipients="verified"))],
            config.known_refreshers,
            {},
            replaced={"new@example.com"},
        )
        assert admitted.verifies

    def test_a_malformed_account_looks_at_no_file_either(self, config: ConfigFile) -> None:
        problems = Door(config).problems(email=3, enabled="x", service_account="/etc/hostname")
        assert set(problems) == {"email", "enabled", "service_account"}
        assert "operator's file" in problems["service_account"]

    def test_it_names_no_file_variable_or_program(self, config: ConfigFile) -> None:
        config.environ["SECRET"] = "PLANTED"
        config.add("planted", "PLANTED")
        asked: dict[str, object] = {
            "client_secret": {"file": "planted"},
            "client_id": "${SECRET}",
            "password": {"file": "/etc/hostname"},
            "command": ["/bin/sh"],
            "certificate": "planted",
            "service_account": "planted",
            "ca_file": "planted",
            "upstream": {"ca_file": "planted"},
        }
        problems = Door(config).problems(**asked)
        assert set(problems) == {*asked, "upstream.ca_file"} - {"upstream"}
        assert "PLANTED" not in str(problems)

    def test_it_does_not_say_what_a_providers_client_is_used_for(self, config: ConfigFile) -> None:
        entry = {"client_id": "ours", "client_secret": "hidden", "tenant": "example.com"}
        door = Door(config, providers={"outlook": entry}, admin={"token": TOKEN})
        wishes = {"grant": "client_credentials", "scopes": "more", "tenant": "other.example"}
        problems = door.problems(provider="outlook", **wishes)
        assert problems == dict.fromkeys(
            wishes, "cannot be changed here: outlook has a client of its own"
        )

    @pytest.mark.parametrize("entry", [WHOLE_ORGANISATION, {"service_account": "robot.json"}])
    def test_a_client_for_a_whole_organisation_needs_a_token_on_the_way_in(
        self, config: ConfigFile, entry: dict[str, object]
    ) -> None:
        name = "gmail" if "service_account" in entry else "outlook"
        document = {"providers": {name: entry}}
        problems = Door(config, **document).problems(provider=name)
        assert "set admin.token" in problems["provider"]
        guarded = Door(config, **document, admin={"token": TOKEN})
        asked = [("", new(provider=name))]
        known = config.known_refreshers
        with pytest.raises(ConfigError, match=r"set admin\.token and restart"):
            # The server that runs was started before there was one.
            guarded.source.check_accounts(asked, known, {}, has_token=False)
        if name == "outlook":
            assert guarded.check(provider=name).oauth.client_id == "ours"

    @pytest.mark.parametrize(
        "email",
        [
            '"; rm -rf ~"@example.com',
            "../../token@example.com",
            "`id`@example.com",
            "-rf@example.com",
            "häns@example.com",
        ],
    )
    def test_a_program_is_given_plain_addresses_only(self, config: ConfigFile, email: str) -> None:
        upstream = {"host": "mx.example.com", "port": 587}
        entry = {"refresher": "command", "command": ["/bin/echo", "x"], "upstream": upstream}
        door = Door(config, providers={"own": entry})
        assert "might misread" in door.problems(provider="own", email=email)["email"]
        admitted = door.check(provider="own", email="some.one+tag_1-x@example.com")
        assert admitted.refresher == "command"
        assert door.check(email=email).email == email

    def test_a_code_is_sent_to_the_host_that_gave_it_out(self, config: ConfigFile) -> None:
        own = {"provider": "oidc", "upstream": {"host": "mx.example.com"}, "client_id": "me"}
        begin = {"authorization_url": "https://login.example/authorize"}
        door = Door(config)
        problems = door.problems(**own, **begin, oauth_token_url="https://elsewhere.example/token")
        assert set(problems) == {"oauth_token_url"}
        assert "same host" in problems["oauth_token_url"]
        admitted = door.check(**own, **begin, oauth_token_url="https://LOGIN.example:8443/token")
        assert admitted.oauth.token_host == "LOGIN.example:8443"

    @pytest.mark.parametrize("key", ["authority", "authorization_url", "issuer", "oauth_token_url"])
    @pytest.mark.parametrize("own", [{}, {"client_id": "shared"}])
    def test_it_does_not_send_a_providers_secrets_elsewhere(
        self, config: ConfigFile, key: str, own: dict[str, object]
    ) -> None:
        entry = {"client_id": "shared", "client_secret": "hidden"}
        door = Door(config, providers={"mock": entry})
        problems = door.problems(**{key: "https://elsewhere.example"}, **own)
        assert problems == {key: "cannot be changed here: mock has a client of its own"}
        assert door.problems(upstream={"host": "localhost"}) == {
            "upstream": "cannot be changed here: mock has a client of its own"
        }

    def test_with_a_client_of_its_own_it_says_where_to_go(self, config: ConfigFile) -> None:
        admitted = Door(config).check(
            provider="oidc",
            upstream={"host": "mx.example.com"},
            issuer="https://login.example",
            client_id="me",
        )
        assert admitted.upstream.host == "mx.example.com"
