"""Several listeners: how they are written, where they listen, and what is said of them."""

from __future__ import annotations

import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.config import Overrides
from xoauth2_proxy.config.config import needs_restart
from xoauth2_proxy.config.listener_section import ListenerSection
from xoauth2_proxy.service.addresses import CannotListen
from xoauth2_proxy.service.listening import ListeningSockets

TWO: list[dict[str, object]] = [
    {"name": "office", "port": 0},
    {"name": "hall", "port": 0, "host": ["127.0.0.2", "::1"]},
]


class TestConfiguration:
    def test_one_listener_is_named_default(self, config: ConfigFile) -> None:
        (listener,) = config.load({"accounts": [account()], "listener": {"port": 25}}).listeners
        assert (listener.name, listener.host, listener.port) == ("default", ("127.0.0.1",), 25)

    def test_several_have_their_own_names_and_addresses(self, config: ConfigFile) -> None:
        found = config.load({"accounts": [account()], "listeners": TWO}).listeners
        assert [one.name for one in found] == ["office", "hall"]
        assert found[1].host == ("127.0.0.2", "::1")

    @pytest.mark.parametrize(
        ("settings", "path", "words"),
        [
            ({"listeners": []}, "listeners", "at least one"),
            ({"listeners": {}}, "listeners", "must be an array"),
            ({"listeners": [1]}, "listeners[0]", "must be an object"),
            ({"listeners": TWO, "listener": {}}, "listeners", "write one of the two"),
            ({"listeners": [{"prot": 25}]}, "listeners[0].prot", "did you mean port?"),
            ({"listeners": [{"name": "a b"}]}, "listeners[0].name", "letters, digits"),
            (
                {"listeners": [{"port": 0}, {"port": 0}]},
                "listeners[1].name",
                "is that of listeners[0] too",
            ),
            (
                {"listeners": [{"name": "a"}, {"name": "b", "host": ["::1", "localhost"]}]},
                "listeners[1].port",
                "is 2525, which is listeners[0].port too",
            ),
            (
                {"listeners": [*TWO, {"name": "c", "port": 9090}]},
                "admin.port",
                "which is listeners[2].port too",
            ),
            ({"listener": {"host": []}}, "listener.host", "an array of up to 64"),
            ({"listener": {"host": [25]}}, "listener.host", "must be a valid string"),
            ({"listener": {"host": ["::1", "a b"]}}, "listener.host", "an IP address"),
            ({"listener": {"host": ["::1", "::1"]}}, "listener.host", "twice"),
            (
                {"listener": {"host": ["127.0.0.1", "192.0.2.1"]}},
                "listener.host",
                "192.0.2.1 is not loopback",
            ),
            ({"listener": {"tls": "implicit"}}, "listener.tls_cert", "is required with"),
            ({"listener": {"tls": "ssl"}}, "listener.tls", "must be"),
            ({"listener": {"tls_min": "1.0"}}, "listener.tls_min", "with a certificate"),
            ({"listener": {"tls_min": "SSLv3"}}, "listener.tls_min", "must be"),
            ({"listener": {"networks": ["192.0.2.1/24"]}}, "listener.networks[0]", "192.0.2.0/24"),
            ({"listener": {"proxies": ["balancer"]}}, "listener.proxies[0]", "an IP address"),
            ({"listener": {"host": "127.0.0.300"}}, "listener.host", "exceeds 255"),
            ({"listener": {"mechanisms": []}}, "listener.mechanisms", "and not be empty"),
            ({"listener": {"mechanisms": "PLAIN"}}, "listener.mechanisms", "an array of SASL"),
            ({"listener": {"mechanisms": ["NTLM"]}}, "listener.mechanisms", "no other than PLAIN"),
            ({"listener": {"mechanisms": ["PLAIN"] * 2}}, "listener.mechanisms", "twice"),
        ],
    )
    def test_what_is_wrong_is_told_with_its_place(
        self, config: ConfigFile, settings: dict[str, object], path: str, words: str
    ) -> None:
        problems = config.problems({"accounts": [account()]} | settings)
        assert list(problems) == [path]
        assert words in problems[path]

    def test_options_are_for_the_only_listener(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "listeners": [{"name": "office", "port": 25}]}
        (listener,) = config.load(document, Overrides(port=26, host="localhost")).listeners
        assert (listener.name, listener.port, listener.host) == ("office", 26, ("localhost",))
        assert list(config.problems(document, Overrides(port=70_000))) == ["--port"]
        problems = config.problems(document | {"listeners": TWO}, Overrides(port=26))
        assert problems == {"--port": "is for one listener, and the file has several: edit them"}

    def test_a_change_is_named_by_its_place(self, config: ConfigFile) -> None:
        old = config.load({"accounts": [account()], "listeners": TWO})
        changed = [TWO[0], TWO[1] | {"idle_seconds": 7}]
        new = config.load({"accounts": [account()], "listeners": changed})
        assert needs_restart(old, new) == ["listeners[1].idle_seconds"]
        fewer = config.load({"accounts": [account()], "listeners": TWO[:1]})
        assert needs_restart(old, fewer) == ["listeners"]

    def test_what_is_weak_is_warned_of_at_the_start(
        self, config: ConfigFile, authority: trustme.CA
    ) -> None:
        issued = authority.issue_cert(
            "relay.example",
            not_after=datetime(2020, 1, 2, tzinfo=UTC),
            key_type=trustme.KeyType.RSA,
        )
        issued.private_key_and_cert_chain_pem.write_to_path(str(config.add("old.pem")))
        keys = {"tls_cert": "old.pem", "tls_key": "old.pem", "tls_min": "1.0", "tls": "auto"}
        listeners = [TWO[0], TWO[1] | keys | {"allow_insecure_auth": True}]
        warnings = config.load({"accounts": [account()], "listeners": listeners}).warnings
        about = [one for one in warnings if one.startswith("listeners[1].")]
        assert about == list(warnings)
        assert [one.partition(":")[0] for one in about] == [
            "listeners[1].allow_insecure_auth",
            "listeners[1].tls_min",
            "listeners[1].tls_cert",
        ]
        assert "may use TLS 1.0" in about[1]
        assert "expired on 2020-01-02" in about[2]

    def test_any_password_is_for_loopback_at_every_listener(self, config: ConfigFile) -> None:
        exposed = {"name": "lan", "host": "0.0.0.0", "allow_insecure_auth": True}
        document = {
            "accounts": [account(allow_any_password=True, password=None)],
            "listeners": [*TWO, exposed],
        }
        assert list(config.problems(document)) == ["accounts[0].allow_any_password"]


GUIDE = Path(__file__).parents[2] / "docs/listeners.md"
EXAMPLES = re.findall(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_of_the_guide_are_right(
    config: ConfigFile, authority: trustme.CA, example: str
) -> None:
    issued = authority.issue_cert("relay.example.com")
    for file in re.findall(r'"tls_(?:cert|key)": "(.*?)"', example):
        (config.directory / file).parent.mkdir(parents=True, exist_ok=True)
        issued.private_key_and_cert_chain_pem.write_to_path(str(config.directory / file))
        (config.directory / file).chmod(0o600)
    assert config.load(json.loads(example)).listeners


def test_the_guide_tells_every_key() -> None:
    table = GUIDE.read_text().partition("| key |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+)`", table)) >= set(ListenerSection.model_fields)


def test_an_address_that_is_taken_is_named_with_its_key(config: ConfigFile) -> None:
    with socket.create_server(("127.0.0.2", 0)) as busy:
        port = busy.getsockname()[1]
        listeners = [TWO[0], {"name": "hall", "host": ["127.0.0.1", "127.0.0.2"], "port": port}]
        loaded = config.load({"accounts": [account()], "listeners": listeners})
        with pytest.raises(CannotListen) as caught:
            ListeningSockets.open(loaded)
    assert str(caught.value).startswith(f"cannot listen on 127.0.0.2:{port} for mail clients: ")
    assert "listeners[1].port" in str(caught.value)
    with socket.create_server(("127.0.0.1", port)):
        pass  # what was opened before is closed again
