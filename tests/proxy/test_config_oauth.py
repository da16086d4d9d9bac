"""What an account's OAuth client is made of, and which keys go together."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.accounts.built_in_providers import built_in_providers
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, RefresherInfo

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def leaf(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("relay.example", key_type=trustme.KeyType.RSA)


@pytest.fixture
def files(config: ConfigFile, leaf: trustme.LeafCert) -> ConfigFile:
    """Beside the configuration: client.pem, key.json (a service account's) and ca.pem."""
    pem = leaf.private_key_and_cert_chain_pem.bytes().decode()
    config.add("client.pem", pem)
    config.add("ca.pem", pem)
    key = leaf.private_key_pem.bytes().decode()
    config.add("key.json", json.dumps({"client_email": "me@cloud.example", "private_key": key}))
    return config


def client_of(config: ConfigFile, document: object) -> OAuthClient:
    return config.load(document).accounts[0].oauth


def with_entry(name: str, entry: dict[str, object], **changes: object) -> dict[str, object]:
    return {"accounts": [account(provider=name, **changes)], "providers": {name: entry}}


OWN: dict[str, object] = {"upstream": {"host": "127.0.0.2", "port": 26}}


class TestBuiltIn:
    def test_gmail_knows_its_scope_and_where_to_sign_in(self, config: ConfigFile) -> None:
        client = client_of(config, [account(provider="gmail", client_id="me")])
        assert client.scopes == ("https://mail.google.com/",)
        assert client.issuer == "https://accounts.google.com"
        assert (client.idle_days, client.token_endpoint) == (180, "")

    def test_outlook_knows_its_scopes_and_authority(self, config: ConfigFile) -> None:
        client = client_of(config, [account(provider="outlook", client_id="me")])
        assert client.scopes == ("https://outlook.office.com/SMTP.Send", "offline_access")
        assert client.authority == "https://login.microsoftonline.com"
        assert (client.tenant, client.idle_days) == ("common", 90)

    def test_an_application_asks_outlook_for_everything_it_was_granted(
        self, config: ConfigFile
    ) -> None:
        application = account(
            provider="outlook",
            grant="client_credentials",
            tenant="company.example",
            client_id="me",
            client_secret="s",
        )
        client = client_of(config, [application])
        assert client.scopes == ("https://outlook.office365.com/.default",)
        assert client_of(config, [application | {"scopes": ["a", "b"]}]).scopes == ("a", "b")

    @pytest.mark.parametrize(
        ("name", "host", "authority", "tenant"),
        [
            ("outlook-personal", "smtp-mail.outlook.com", "login.microsoftonline.com", "consumers"),
            ("outlook-gcc-high", "smtp.office365.us", "login.microsoftonline.us", "organizations"),
            (
                "outlook-china",
                "smtp.partner.outlook.cn",
                "login.partner.microsoftonline.cn",
                "organizations",
            ),
        ],
    )
    def test_microsofts_other_clouds_differ_in_host_authority_and_scope(
        self, config: ConfigFile, name: str, host: str, authority: str, tenant: str
    ) -> None:
        (loaded,) = config.load_one(provider=name, client_id="me").accounts
        assert (loaded.refresher, loaded.upstream.host) == ("outlook", host)
        assert (loaded.oauth.authority, loaded.oauth.tenant) == (f"https://{authority}", tenant)
        assert [scope.rpartition("/")[2] for scope in loaded.oauth.scopes] == [
            "SMTP.Send",
            "offline_access",
        ]

    @pytest.mark.parametrize("name", ["yahoo", "aol", "fastmail", "yandex", "mailru", "comcast"])
    def test_providers_without_discovery_have_their_endpoints_built_in(
        self, config: ConfigFile, name: str
    ) -> None:
        (loaded,) = config.load_one(provider=name, client_id="me").accounts
        assert (loaded.refresher, loaded.upstream.port) == ("oidc", 465)
        assert loaded.upstream.tls is TlsMode.IMPLICIT
        assert loaded.oauth.token_endpoint.startswith("https://")
        assert loaded.oauth.authorization_endpoint.startswith("https://")
        assert loaded.oauth.scopes

    def test_every_built_in_provider_has_a_refresher_of_this_version(self, tmp_path: Path) -> None:
        found = {provider.refresher for provider in built_in_providers(tmp_path).values()}
        assert found <= BUILT_IN_REFRESHERS.keys()


class TestLevels:
    def test_account_beats_entry_beats_built_in(self, config: ConfigFile) -> None:
        entry: dict[str, object] = {"tenant": "entry.example", "scopes": "entry"}
        client = client_of(
            config, with_entry("outlook", entry, client_id="me", tenant="account.example")
        )
        assert (client.tenant, client.scopes) == ("account.example", ("entry",))
        assert client.authority == "https://login.microsoftonline.com"

    def test_many_accounts_share_their_providers_client(self, config: ConfigFile) -> None:
        config.environ |= {"ID": "shared", "SECRET": "hidden"}
        document = with_entry("gmail", {"client_id": "${ID}", "client_secret": "${SECRET}"})
        document["accounts"] = [
            account(email=f"{number}@example.com", provider="gmail") for number in range(3)
        ]
        clients = [one.oauth for one in config.load(document).accounts]
        assert {(one.client_id, one.client_secret) for one in clients} == {("shared", "hidden")}

    def test_a_secret_goes_to_no_other_client_than_its_own(self, files: ConfigFile) -> None:
        entry: dict[str, object] = {
            "client_id": "shared",
            "client_secret": "hidden",
            "client_secret_expires": "2027-01-31",
        }
        own = client_of(files, with_entry("gmail", entry, client_id="mine"))
        assert (own.client_id, own.client_secret, own.secret_expires_on) == ("mine", "", None)
        proof = client_of(files, with_entry("outlook", entry, certificate="client.pem"))
        assert (proof.client_id, proof.client_secret) == ("shared", "")
        assert proof.secret_expires_on not in (None, date(2027, 1, 31))

    def test_a_secret_without_a_client_is_for_its_accounts_clients(
        self, config: ConfigFile
    ) -> None:
        client = client_of(config, with_entry("gmail", {"client_secret": "s"}, client_id="mine"))
        assert (client.client_id, client.client_secret) == ("mine", "s")

    def test_an_issuer_comes_with_its_own_endpoints(self, config: ConfigFile) -> None:
        issuer = "https://login.example"
        client = client_of(config, [account(provider="yahoo", client_id="me", issuer=issuer)])
        assert (client.issuer, client.token_endpoint) == (issuer, "")
        assert client.authorization_endpoint == ""

    def test_a_provider_of_ones_own_begins_with_what_its_refresher_needs(
        self, config: ConfigFile
    ) -> None:
        outlook = client_of(config, with_entry("own", OWN | {"refresher": "outlook"}))
        assert outlook.authority == "https://login.microsoftonline.com"
        entry = OWN | {"refresher": "oidc", "issuer": "https://login.example"}
        assert client_of(config, with_entry("own", entry)).scopes == (
            "openid",
            "email",
            "offline_access",
        )

    def test_oidc_is_a_provider_by_itself(self, config: ConfigFile) -> None:
        (loaded,) = config.load_one(
            provider="oidc",
            upstream={"host": "mx.example.com"},
            issuer="https://login.example",
            client_id="me",
        ).accounts
        assert (loaded.upstream.host, loaded.upstream.port) == ("mx.example.com", 587)
        assert loaded.upstream.tls is TlsMode.STARTTLS

    def test_a_key_file_alone_says_which_grant_it_is_for(self, files: ConfigFile) -> None:
        entry: dict[str, object] = {"service_account": "key.json"}
        client = client_of(files, with_entry("gmail", entry))
        assert client.grant_type is GrantType.SERVICE_ACCOUNT
        signed_in = client_of(files, with_entry("gmail", entry, grant="refresh_token"))
        assert signed_in.grant_type is GrantType.REFRESH_TOKEN

    def test_the_certificate_says_when_it_ends(
        self, files: ConfigFile, leaf: trustme.LeafCert
    ) -> None:
        del leaf
        written = account(provider="outlook", client_id="me", certificate="client.pem")
        assert client_of(files, [written]).secret_expires_on is not None
        told = client_of(files, [written | {"client_secret_expires": "2027-01-31"}])
        assert told.secret_expires_on == date(2027, 1, 31)

    def test_a_program_is_found_on_the_path_or_beside_the_configuration(
        self, config: ConfigFile
    ) -> None:
        program = config.add("token")
        program.chmod(0o755)
        entry = OWN | {"refresher": "command", "command": ["./token", "{mailbox}"]}
        assert client_of(config, with_entry("own", entry)).command == (str(program), "{mailbox}")
        config.environ["PATH"] = str(config.directory)
        document = with_entry("own", entry, command=["token"])
        assert client_of(config, document).command == (str(program),)


# What is written beside an account that would load, by provider; the key at fault; words.
FAULTS: dict[str, tuple[dict[str, object], str, str]] = {
    "tenant for gmail": ({"provider": "gmail", "tenant": "x"}, "tenant", "it is for outlook"),
    "authority for yahoo": (
        {"provider": "yahoo", "authority": "https://a.example"},
        "authority",
        "not for yahoo, whose refresher is oidc",
    ),
    "certificate for oidc": (
        {"provider": "yahoo", "client_id": "me", "certificate": "client.pem"},
        "certificate",
        "it is for outlook",
    ),
    "service account for outlook": (
        {"provider": "outlook", "service_account": "key.json"},
        "service_account",
        "it is for gmail",
    ),
    "plain token URL for outlook": (
        {"provider": "outlook", "client_id": "me", "oauth_token_url": "http://localhost/token"},
        "oauth_token_url",
        "must begin with https:// for outlook",
    ),
    "token URL without a path for outlook": (
        {"provider": "outlook", "client_id": "me", "oauth_token_url": "https://localhost/"},
        "oauth_token_url",
        "must have a path",
    ),
    "command for gmail": ({"provider": "gmail", "command": ["sh"]}, "command", "is for command"),
    "application for gmail": (
        {
            "provider": "gmail",
            "grant": "client_credentials",
            "client_id": "a",
            "client_secret": "b",
        },
        "grant",
        "client_credentials is not for gmail",
    ),
    "service account's grant for outlook": (
        {"provider": "outlook", "grant": "service_account", "service_account": None},
        "grant",
        "it is for gmail",
    ),
    "refresh token without a client": (
        {"provider": "gmail", "refresh_token": "r"},
        "client_id",
        "is required with refresh_token",
    ),
    "client secret without a client": (
        {"provider": "outlook", "client_secret": "s"},
        "client_id",
        "is required with client_secret",
    ),
    "secret and certificate": (
        {
            "provider": "outlook",
            "client_id": "me",
            "client_secret": "s",
            "certificate": "client.pem",
        },
        "certificate",
        "contradicts client_secret",
    ),
    "application without a secret": (
        {
            "provider": "outlook",
            "grant": "client_credentials",
            "client_id": "me",
            "tenant": "t.example",
        },
        "client_secret",
        "is required for the grant client_credentials, unless there is a certificate",
    ),
    "application without an id": (
        {
            "provider": "outlook",
            "grant": "client_credentials",
            "client_secret": "s",
            "tenant": "t.example",
        },
        "client_id",
        "for the grant client_credentials",
    ),
    "application of no tenant": (
        {
            "provider": "outlook",
            "grant": "client_credentials",
            "client_id": "me",
            "client_secret": "s",
        },
        "tenant",
        "the organisation's id or domain",
    ),
    "application of a shared tenant": (
        {
            "provider": "outlook",
            "grant": "client_credentials",
            "client_id": "me",
            "client_secret": "s",
            "tenant": "Organizations",
        },
        "tenant",
        "not Organizations",
    ),
    "application with a person's token": (
        {
            "provider": "outlook",
            "grant": "client_credentials",
            "client_id": "me",
            "client_secret": "s",
            "tenant": "t.example",
            "refresh_token": "r",
        },
        "refresh_token",
        "needs no sign-in",
    ),
    "service account without its key": (
        {"provider": "gmail", "grant": "service_account"},
        "service_account",
        "is required",
    ),
    "key file with a person's grant": (
        {
            "provider": "gmail",
            "client_id": "me",
            "grant": "refresh_token",
            "service_account": "key.json",
        },
        "service_account",
        "contradicts the grant refresh_token",
    ),
    "service account with a person's name": (
        {"provider": "gmail", "service_account": "key.json", "sign_in_as": "boss"},
        "sign_in_as",
        "contradicts the grant service_account",
    ),
    "oidc without an issuer": (
        {"provider": "oidc", "upstream": {"host": "mx.example.com"}, "client_id": "me"},
        "issuer",
        "or oauth_token_url",
    ),
    "oidc without a place to sign in": (
        {
            "provider": "oidc",
            "upstream": {"host": "mx.example.com"},
            "client_id": "me",
            "oauth_token_url": "https://a.example/token",
        },
        "authorization_url",
        "is required for signing in",
    ),
    "oidc without a server": (
        {"provider": "oidc", "issuer": "https://a.example", "client_id": "me"},
        "upstream.host",
        "is required, here or in oidc",
    ),
    "authorities that are not there": (
        {"provider": "gmail", "client_id": "me", "ca_file": "gone.pem"},
        "ca_file",
        "there is no file",
    ),
    "key file that is not there": (
        {"provider": "gmail", "service_account": "gone.json"},
        "service_account",
        "there is no file",
    ),
    "certificate that is not there": (
        {"provider": "outlook", "client_id": "me", "certificate": "gone.pem"},
        "certificate",
        "there is no file",
    ),
}

# A key, a value that is never right, and words.
MALFORMED: list[tuple[str, object, str]] = [
    ("grant", "password", "must be 'refresh_token', 'client_credentials' or 'service_account'"),
    ("scopes", "", "words of printable ASCII"),
    ("scopes", "a  b", "one blank"),
    ("scopes", 'a"b', "words of printable ASCII"),
    ("scopes", [], "words with blanks between"),
    ("scopes", ["a b"], "words of printable ASCII"),
    ("scopes", [1], "words of printable ASCII"),
    ("parameters", {"audience": 1}, "must be a valid string"),
    ("oauth_token_url", "http://a.example/t", "http:// is for loopback only"),
    ("oauth_token_url", "https:///t", "names a host"),
    ("oauth_token_url", "ftp://a.example/t", "begins with https://"),
    ("oauth_token_url", "https://me:word@a.example/t", "user name or a password"),
    ("oauth_token_url", "https://a.example/t#x", "fragment"),
    ("oauth_token_url", "https://a.example:x/t", "must be a URL"),
    ("oauth_token_url", "https://a.example/t x", "without blanks"),
    ("oauth_token_url", "https://ä.example/t", "in ASCII"),
    ("oauth_token_url", "https://a.example\\@b.example/", "without blanks"),
    ("authorization_url", "a.example", "begins with https://"),
    ("issuer", "https://a.example/?a=b", "query"),
    ("authority", "http://127.0.0.1", "must begin with https://"),
    ("authority", "https://a.example/common", "the tenant has its own key"),
    ("command", [], "at least 1 item"),
    ("command", "sh -c x", "must be an array"),
    ("client_secret_expires", "31.1.2027", "must be a date as text, like 2027-01-31"),
    ("client_secret_expires", "2027-02-30", "must be a date"),
    ("client_secret_expires", 20270131, "must be a date"),
    ("refresh_token_days", -1, "greater than or equal to 0"),
    ("refresh_window_seconds", 59, "greater than or equal to 60"),
    ("refresh_window_seconds", 3001, "less than or equal to 3000"),
]


class TestFaults:
    @pytest.mark.parametrize("name", FAULTS)
    def test_keys_that_do_not_go_together(self, files: ConfigFile, name: str) -> None:
        written, key, words = FAULTS[name]
        problems = files.problems_of_one(**written)
        assert list(problems) == [f"accounts[0].{key}"]
        assert words in problems[f"accounts[0].{key}"]

    @pytest.mark.parametrize(("key", "value", "words"), MALFORMED)
    def test_values_that_are_never_right(
        self, config: ConfigFile, key: str, value: object, words: str
    ) -> None:
        for place, document in (
            ("accounts[0]", [account(**{key: value})]),
            ("providers.mock", with_entry("mock", {key: value})),
        ):
            (problem,) = [
                text
                for path, text in config.problems(document).items()
                if path.startswith(f"{place}.{key}")
            ]
            assert words in problem

    @pytest.mark.parametrize("url", ["http://localhost:1/t", "http://[::1]:8/t", "https://a.b/?x"])
    def test_urls_that_are_right(self, config: ConfigFile, url: str) -> None:
        written = account(provider="gmail", client_id="me", oauth_token_url=url)
        assert client_of(config, [written]).token_endpoint == url

    @pytest.mark.parametrize("name", ["scope", "Client_Assertion", "grant_type", "code"])
    def test_parameters_of_the_relay_are_its_own(self, config: ConfigFile, name: str) -> None:
        problems = config.problems_of_one(parameters={name: "x", "audience": "y"})
        assert problems == {
            f"accounts[0].parameters.{name}": "is set by the proxy and cannot be given here "
            "(someone@example.com)"
        }

    def test_a_provider_is_judged_as_its_accounts_are(self, config: ConfigFile) -> None:
        problems = config.problems(with_entry("gmail", {"tenant": "x", "certificate": "gone"}))
        assert set(problems) == {"providers.gmail.tenant", "providers.gmail.certificate"}

    def test_a_command_is_required_of_its_refresher(self, config: ConfigFile) -> None:
        document = with_entry("own", OWN | {"refresher": "command"})
        assert "its refresher is command" in config.problems(document)["accounts[0].command"]
        (own,) = config.load(
            with_entry("own", OWN | {"refresher": "command"}, command=["sh"])
        ).accounts
        assert own.oauth.command

    @pytest.mark.parametrize("program", ["no-such-program", "./gone", "plain", ""])
    def test_a_program_must_be_there_and_be_one(self, config: ConfigFile, program: str) -> None:
        config.add("plain")
        document = with_entry("own", OWN | {"refresher": "command"}, command=[program])
        assert list(config.problems(document)) == ["accounts[0].command"]

    def test_a_refresher_nobody_has_is_named_with_those_there_are(self, config: ConfigFile) -> None:
        problems = config.problems(with_entry("own", OWN | {"refresher": "gmial"}))
        assert problems == {
            "providers.own.refresher": "there is no refresher gmial; there are command, gmail, "
            "mock, oidc, outlook"
        }

    def test_a_plug_in_takes_every_key(self, files: ConfigFile) -> None:
        files.known_refreshers["plug-in"] = RefresherInfo(name="plug-in", origin="a-test")
        keys: dict[str, object] = {"tenant": "t", "command": ["sh"], "service_account": "key.json"}
        entry = OWN | {"refresher": "plug-in"}
        client = client_of(files, with_entry("own", entry, **keys))
        assert client.tenant == "t"
        assert client_of(files, with_entry("own", entry)).is_empty

    def test_a_malformed_key_is_not_missed_as_well(self, config: ConfigFile) -> None:
        problems = config.problems_of_one(provider="gmail", client_id=[], refresh_token="r")
        assert set(problems) == {"accounts[0].client_id"}


class TestCredentials:
    def problem(self, config: ConfigFile, **written: object) -> str:
        ((_, problem),) = config.problems_of_one(client_id="me", **written).items()
        return problem

    @pytest.mark.parametrize("fault", ["nothing", "no key", "no certificate", "encrypted", "large"])
    def test_a_certificate_needs_its_unencrypted_key(
        self, files: ConfigFile, leaf: trustme.LeafCert, fault: str
    ) -> None:
        cert, key = leaf.cert_chain_pems[0].bytes(), leaf.private_key_pem.bytes()
        locked = load_pem_private_key(key, None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        content = {
            "nothing": b"x",
            "no key": cert,
            "no certificate": key,
            "encrypted": cert + locked,
            "large": cert + key + b"x" * 300_000,
        }[fault]
        (files.directory / "client.pem").write_bytes(content)
        problem = self.problem(files, provider="outlook", certificate="client.pem")
        assert ("is larger" if fault == "large" else "must hold a certificate and its") in problem

    def test_a_certificate_needs_its_own_key(
        self, files: ConfigFile, leaf: trustme.LeafCert, authority: trustme.CA
    ) -> None:
        other = authority.issue_cert("other.example", key_type=trustme.KeyType.RSA)
        content = leaf.cert_chain_pems[0].bytes() + other.private_key_pem.bytes()
        (files.directory / "client.pem").write_bytes(content)
        problem = self.problem(files, provider="outlook", certificate="client.pem")
        assert "is not that of its first certificate" in problem

    def test_microsoft_takes_rsa_keys_only(self, files: ConfigFile, authority: trustme.CA) -> None:
        leaf = authority.issue_cert("other.example", key_type=trustme.KeyType.ECDSA)
        leaf.private_key_and_cert_chain_pem.write_to_path(str(files.directory / "client.pem"))
        problem = self.problem(files, provider="outlook", certificate="client.pem")
        assert "no RSA key" in problem

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (None, "is not JSON as Google Cloud hands it out"),
            ({"client_email": ""}, "there is no client_email"),
            ({"private_key": None}, "there is no private_key"),
            ({"private_key": "PLANTED"}, "private_key is no private key"),
            ({"token_uri": "http://a.example/"}, "token_uri must begin with https://"),
            ({"token_uri": 3}, "token_uri must be text"),
        ],
    )
    def test_a_service_accounts_file_is_looked_into(
        self, files: ConfigFile, change: dict[str, Any] | None, words: str
    ) -> None:
        content = json.loads((files.directory / "key.json").read_text())
        files.add("key.json", json.dumps(content | change) if change else "[")
        problem = self.problem(files, provider="gmail", service_account="key.json")
        assert words in problem
        assert "PLANTED" not in problem


class TestProviders:
    def test_what_their_accounts_begin_with_is_told(self, config: ConfigFile) -> None:
        config.environ["ID"] = "shared"
        document = with_entry("outlook", {"client_id": "${ID}", "tenant": "company.example"})
        told = {one.name: one for one in config.load(document).providers}
        assert told["outlook"].refresher.name == "outlook"
        assert told["outlook"].client.client_id == "shared"
        assert told["outlook"].client.tenant == "company.example"
        assert told["yahoo"].refresher.name == "oidc"
        assert told["yahoo"].client.token_endpoint

    def test_one_whose_secrets_are_not_there_is_told_without_them(self, config: ConfigFile) -> None:
        document = {"accounts": [account()], "providers": {"gmail": UNSET}}
        told = {one.name: one for one in config.load(document).providers}
        assert told["gmail"].client.client_id == ""
        assert told["gmail"].client.issuer == "https://accounts.google.com"


class TestWithoutAClient:
    def test_clients_may_bring_their_own_tokens(self, config: ConfigFile) -> None:
        others = account(email="other@example.com", provider="gmail")
        result = config.load([account(provider="gmail"), others])
        assert result.accounts[0].oauth.is_empty
        (warning,) = result.warnings
        assert warning.startswith("2 account(s) of provider gmail have no OAuth client")
        assert "bring their own token" in warning

    def test_nobody_is_warned_of_an_account_with_a_client(self, config: ConfigFile) -> None:
        assert config.load_one(provider="gmail", client_id="me", client_secret="s").warnings == ()
        assert config.load_one().warnings == ()

    def test_a_refresher_that_is_not_there_hinders_no_such_account(
        self, config: ConfigFile
    ) -> None:
        config.known_refreshers = {"mock": BUILT_IN_REFRESHERS["mock"]}
        assert config.load_one(provider="gmail").accounts[0].refresher == "gmail"


UNSET: dict[str, object] = {
    "client_id": "${UNSET_VARIABLE}",
    "client_secret": {"file": "gone"},
    "ca_file": "gone.pem",
}


class TestSecretsAndFiles:
    def test_a_disabled_account_needs_no_secrets_and_files(self, config: ConfigFile) -> None:
        off = account(email="off@example.com", provider="gmail", enabled=False, **UNSET)
        assert config.load([account(), off]).disabled_accounts == 1

    def test_a_disabled_account_has_keys_that_fit(self, config: ConfigFile) -> None:
        off = account(email="off@example.com", provider="gmail", enabled=False, tenant="x")
        assert set(config.problems([account(), off])) == {"accounts[1].tenant"}

    def test_a_provider_that_nobody_uses_needs_none_either(self, config: ConfigFile) -> None:
        document = with_entry("gmail", UNSET)
        off = account(email="off@example.com", provider="gmail", enabled=False)
        document["accounts"] = [account(), off]
        assert config.load(document).disabled_accounts == 1

    def test_a_providers_missing_secrets_are_told_once(self, config: ConfigFile) -> None:
        document = with_entry("gmail", UNSET)
        document["accounts"] = [
            account(email=f"{number}@example.com", provider="gmail", account_id=f"id {number}")
            for number in range(3)
        ]
        assert set(config.problems(document)) == {
            "providers.gmail.client_id",
            "providers.gmail.client_secret",
            "providers.gmail.ca_file",
        }

    def test_no_secret_is_in_a_repr(self, config: ConfigFile) -> None:
        secrets: dict[str, object] = {
            "client_secret": "PLANTED",
            "refresh_token": "PLANTED",
            "parameters": {"a": "PLANTED"},
        }
        document = {
            "accounts": [account(provider="gmail", client_id="me", **secrets)],
            "store": {"kind": "redis", "url": "rediss://:PLANTED@a.example", "key": "PLANTED" * 3},
            "alerts": {"webhook": "https://a.example/PLANTED"},
        }
        assert "PLANTED" not in repr(config.load(document))
