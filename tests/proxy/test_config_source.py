"""The configuration read again: from where, and what of it only a restart can change."""

from __future__ import annotations

import json
import pickle

import pytest

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.config import Config, ConfigSource, Overrides, needs_restart
from xoauth2_proxy.errors import ConfigError


def load(config: ConfigFile, source: ConfigSource) -> Config:
    return source.load(config.known_refreshers, config.environ)


class TestSource:
    def test_each_reading_sees_the_file_as_it_is_by_then(self, config: ConfigFile) -> None:
        source = ConfigSource(config.path, Overrides(port=1), config.state_dir)
        config.write(json.dumps([account()]))
        assert load(config, source).accounts[0].email == "someone@example.com"
        config.write(json.dumps([account(email="other@example.com", password="${WORD}")]))
        with pytest.raises(ConfigError, match="WORD is not set"):
            load(config, source)
        config.environ["WORD"] = "x"
        result = load(config, source)
        assert (result.accounts[0].email, result.listeners[0].port) == ("other@example.com", 1)

    def test_a_source_travels_to_another_process(self, config: ConfigFile) -> None:
        source = ConfigSource(config.path, Overrides(sandbox=True), config.state_dir)
        assert pickle.loads(pickle.dumps(source)) == source

    def test_a_configuration_travels_to_another_process(self, config: ConfigFile) -> None:
        written = account(provider="gmail", client_id="me", parameters={"a": "b"})
        loaded = config.load([written | {"client_secret_expires": "2027-01-31"}])
        assert pickle.loads(pickle.dumps(loaded)) == loaded


class TestNeedsRestart:
    @pytest.mark.parametrize(
        ("section", "key", "value"),
        [
            ("listener", "port", 99),
            ("listener", "proxies", ["::1"]),
            ("admin", "token", "PLANTED"),
            ("relay", "max_recipients", 7),
            ("store", "kind", "memory"),
            ("store", "keyring", True),
            ("alerts", "warn_days", 1),
        ],
    )
    def test_what_is_read_once_is_named_as_in_the_file(
        self, config: ConfigFile, section: str, key: str, value: object
    ) -> None:
        before = config.load_one()
        after = config.load({"accounts": [account()], section: {key: value}})
        assert needs_restart(before, after) == [f"{section}.{key}"]
        assert needs_restart(after, after) == []

    def test_accounts_and_providers_need_none(self, config: ConfigFile) -> None:
        before = config.load_one()
        after = config.load(
            {
                "accounts": [account(email="a@example.com", client_id="x")],
                "providers": {"mock": {"limits": {"max_connections": 1}}},
            }
        )
        assert needs_restart(before, after) == []


class TestStore:
    def test_grants_are_kept_in_the_state_directory(self, config: ConfigFile) -> None:
        store = config.load_one().store
        assert (store.kind, store.directory) == ("file", config.state_dir / "tokens")
        assert (store.key, store.url, store.keyring) == ("", "", False)

    @pytest.mark.parametrize(
        "url", ["redis://localhost", "rediss://:pw@a.example:1/2", "unix:///x"]
    )
    def test_redis_has_a_url(self, config: ConfigFile, url: str) -> None:
        config.environ["URL"] = url
        result = config.load({"accounts": [account()], "store": {"kind": "redis", "url": "${URL}"}})
        assert result.store.url == url
        assert result.warnings == ()

    @pytest.mark.parametrize(
        ("store", "key", "words"),
        [
            ({"kind": "redis"}, "url", "is required for kind redis"),
            ({"url": "redis://localhost"}, "url", "is for kind redis, not file"),
            ({"kind": "redis", "url": "http://PLANTED"}, "url", "must be a rediss://"),
            ({"kind": "redis", "url": "redis:PLANTED"}, "url", "must be a rediss://"),
            ({"kind": "redis", "url": "redis://PLANTED:x"}, "url", "must be a rediss://"),
            ({"kind": "redis", "url": "unix:"}, "url", "must be a rediss://"),
            (
                {"kind": "redis", "url": "rediss://a.example/0?ssl_cert_reqs=none"},
                "url",
                "must have no parameters but db and ssl_ca_certs",
            ),
            ({"kind": "memory", "directory": "x"}, "directory", "is for kind file, not memory"),
            ({"kind": "sqlite"}, "kind", "must be 'file', 'memory' or 'redis'"),
            ({"key": "PLANTED"}, "key", "16 characters"),
            ({"key": "  ,  "}, "key", "holds no key"),
            ({"key": "x" * 16, "keyring": True}, "keyring", "contradicts key"),
        ],
    )
    def test_settings_that_do_not_go_together(
        self, config: ConfigFile, store: dict[str, object], key: str, words: str
    ) -> None:
        problems = config.problems({"accounts": [account()], "store": store})
        assert list(problems) == [f"store.{key}"]
        assert words in problems[f"store.{key}"]
        assert "PLANTED" not in str(problems)

    @pytest.mark.parametrize(
        ("more", "is_refused"), [({}, True), ({"key": "x" * 16}, False), ({"keyring": True}, False)]
    )
    def test_tokens_in_the_clear_on_a_network_are_refused_as_at_the_start(
        self, config: ConfigFile, more: dict[str, object], is_refused: bool
    ) -> None:
        store = {"kind": "redis", "url": "redis://:PLANTED@cache.example"} | more
        problems = config.problems({"accounts": [account()], "store": store})
        assert list(problems) == ["store.url"] * is_refused
        assert "PLANTED" not in str(problems)
        if is_refused:
            assert "cache.example without TLS" in problems["store.url"]


class TestAlerts:
    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://hooks.example/PLANTED", "http:// is for loopback only"),
            ("PLANTED", "begins with https://"),
            ("https://a:PLANTED@hooks.example/", "user name or a password"),
        ],
    )
    def test_a_webhook_is_not_read_on_the_way(
        self, config: ConfigFile, url: str, words: str
    ) -> None:
        problems = config.problems({"accounts": [account()], "alerts": {"webhook": url}})
        assert words in problems["alerts.webhook"]
        assert "PLANTED" not in str(problems)
