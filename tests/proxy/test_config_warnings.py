"""What is told of a configuration that loads, and would disappoint later."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.support.config_files import ConfigFile, account

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
REDIS: dict[str, object] = {"kind": "redis"}


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def certificate(
    config: ConfigFile, authority: trustme.CA, not_before: datetime, not_after: datetime
) -> str:
    """Put a certificate with its key beside the configuration; return the file's name."""
    leaf = authority.issue_cert(
        "relay.example",
        not_before=not_before,
        not_after=not_after,
        key_type=trustme.KeyType.RSA,
    )
    config.add("cert.pem", leaf.private_key_and_cert_chain_pem.bytes().decode())
    return "cert.pem"


class TestSecretsThatEnded:
    def test_a_client_secret_is_named_with_its_last_day(self, config: ConfigFile) -> None:
        entry = {"client_id": "a", "client_secret": "b", "client_secret_expires": "2020-01-31"}
        document = {
            "accounts": [account(email=f"{n}@example.com", provider="outlook") for n in range(3)],
            "providers": {"outlook": entry},
        }
        (warning,) = config.load(document).warnings
        assert warning.startswith(
            "3 account(s) of provider outlook have a client secret that expired on 2020-01-31"
        )

    def test_today_is_not_over(self, config: ConfigFile) -> None:
        today = datetime.now(UTC).date() + DAY  # whatever the hour
        written = {"client_id": "a", "client_secret": "b", "client_secret_expires": str(today)}
        assert config.load_one(provider="outlook", **written).warnings == ()

    def test_a_client_certificate_says_it_itself(
        self, config: ConfigFile, authority: trustme.CA
    ) -> None:
        name = certificate(config, authority, NOW - 9 * DAY, NOW - 3 * DAY)
        (warning,) = config.load_one(provider="outlook", client_id="a", certificate=name).warnings
        assert f"have a certificate that expired on {(NOW - 3 * DAY).date()}" in warning


class TestListener:
    @pytest.mark.parametrize(
        ("begins", "ends", "words"),
        [(-9, -3, "expired on"), (3, 9, "is valid from"), (-3, 3, "")],
    )
    def test_a_certificate_that_clients_refuse_now(
        self, config: ConfigFile, authority: trustme.CA, begins: int, ends: int, words: str
    ) -> None:
        name = certificate(config, authority, NOW + begins * DAY, NOW + ends * DAY)
        listener = {"tls_cert": name, "tls_key": name}
        warnings = config.load({"accounts": [account()], "listener": listener}).warnings
        assert len(warnings) == bool(words)
        assert all(
            warning.startswith("listener.tls_cert: the certificate in ") and words in warning
            for warning in warnings
        )


class TestGoogle:
    def test_a_client_without_its_secret_gets_no_tokens(self, config: ConfigFile) -> None:
        (warning,) = config.load_one(provider="gmail", client_id="me").warnings
        assert warning.startswith("1 account(s) of provider gmail have no client_secret")

    @pytest.mark.parametrize(
        "written",
        [
            {"client_secret": "s"},
            {"oauth_token_url": "http://127.0.0.1:1/token"},
            {"provider": "outlook"},
        ],
    )
    def test_others_need_none(self, config: ConfigFile, written: dict[str, object]) -> None:
        assert config.load_one(**{"provider": "gmail", "client_id": "me"} | written).warnings == ()


class TestModules:
    @pytest.mark.parametrize(
        ("store", "key", "module"),
        [
            ({"kind": "redis", "url": "redis://127.0.0.1"}, "store.kind", "redis"),
            ({"keyring": True}, "store.keyring", "keyring"),
        ],
    )
    def test_a_store_whose_module_is_not_installed(
        self,
        config: ConfigFile,
        monkeypatch: pytest.MonkeyPatch,
        store: dict[str, object],
        key: str,
        module: str,
    ) -> None:
        document = {"accounts": [account()], "store": store}
        assert config.problems(document) == {}
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
        assert config.problems(document) == {
            key: f"needs the Python package {module}, which is not installed; run: "
            f"pip install {module}"
        }


class TestReaders:
    """A file with secrets that every user of the machine may read."""

    @pytest.mark.parametrize(
        "document",
        [
            {"accounts": [account(provider="gmail")]},
            {"accounts": [account()], "admin": {"token": "a token of 16 letters"}},
            {"accounts": [account()], "store": REDIS | {"url": "redis://:word@127.0.0.1"}},
            [account(), account(email="other@example.com", provider="gmail", password="p")],
        ],
    )
    def test_it_is_told_how_to_close_it(self, config: ConfigFile, document: object) -> None:
        before = config.load(document).warnings
        config.path.chmod(0o644)
        told = set(config.load().warnings) - set(before)
        assert told == {
            f"{config.path} holds secrets, and every user of this machine may read it: "
            f"chmod 600 {config.path}"
        }
        config.path.chmod(0o640)  # a group is chosen on purpose
        assert config.load().warnings == before

    @pytest.mark.parametrize(
        "document",
        [
            {"accounts": [account(password={"file": "word"})]},
            {"accounts": [account()], "admin": {"token": {"file": "word"}}},
        ],
        ids=["a password", "the admin token"],
    )
    def test_a_file_that_the_configuration_names_is_told_as_well(
        self, config: ConfigFile, document: object
    ) -> None:
        word = config.add("word", "a token of 16 letters")
        before = config.load(document).warnings
        word.chmod(0o644)
        told = set(config.load().warnings) - set(before)
        assert told == {
            f"{word} holds secrets, and every user of this machine may read it: chmod 600 {word}"
        }

    def test_a_private_key_is_a_secret(self, config: ConfigFile, authority: trustme.CA) -> None:
        name = certificate(config, authority, NOW - DAY, NOW + 9 * DAY)
        listener = {"tls_cert": name, "tls_key": name}
        before = config.load({"accounts": [account()], "listener": listener}).warnings
        (config.directory / name).chmod(0o644)
        (told,) = set(config.load().warnings) - set(before)
        assert f"/{name} holds secrets, and every user" in told

    @pytest.mark.parametrize(
        "written",
        [
            account(password="${WORD}", provider="gmail"),
            account(password={"file": "word"}, provider="gmail"),
            account(),  # a mock account's password opens nothing
            {"accounts": [account()], "store": REDIS | {"url": "redis://127.0.0.1"}},
        ],
    )
    def test_secrets_that_are_elsewhere_are_no_reason(
        self, config: ConfigFile, written: dict[str, object]
    ) -> None:
        config.environ["WORD"] = "x"
        config.add("word")
        before = config.load(written if "accounts" in written else [written]).warnings
        config.path.chmod(0o644)
        assert config.load().warnings == before


@pytest.mark.parametrize(
    ("proxies", "warned"),
    [
        (["0.0.0.0/0"], True),
        (["192.0.2.1", "2001:db8::/64"], True),
        (["10.0.0.0/8", "203.0.113.7", "fd00::/8"], False),
    ],
)
def test_networks_of_balancers_that_are_not_local_are_told(
    config: ConfigFile, proxies: list[str], warned: bool
) -> None:
    warnings = config.load({"accounts": [account()], "listener": {"proxies": proxies}}).warnings
    assert any("can claim any address" in one for one in warnings) is warned


@pytest.mark.parametrize("key_type", trustme.KeyType)
def test_old_tls_with_a_key_that_old_devices_do_not_know_is_told(
    config: ConfigFile, authority: trustme.CA, key_type: trustme.KeyType
) -> None:
    leaf = authority.issue_cert("relay.example", key_type=key_type)
    config.add("cert.pem", leaf.private_key_and_cert_chain_pem.bytes().decode())
    keys = {"tls_cert": "cert.pem", "tls_key": "cert.pem", "tls_min": "1.0"}
    warnings = config.load({"accounts": [account()], "listener": keys}).warnings
    is_told = any("is for no RSA key" in one for one in warnings)
    assert is_told is (key_type is not trustme.KeyType.RSA)
