"""What a program can add to its token manager, what is then asked of the provider, and where."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.managers import CLIENT_SECRET, application
from tests.support.planted import Planted, chain, objects, told_by
from tests.support.token_endpoint import TokenEndpoint, error
from xoauth2_proxy.errors import ConfigError, TokenError
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.token_manager import (
    ClientCredentials,
    Google,
    Microsoft,
    Provider,
    SignedIn,
    TokenManager,
    default_manager,
)
from xoauth2_proxy.token_manager.providers import account_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trustme

    from tests.support.token_endpoint import Answer, Request
    from xoauth2_proxy.oauth.grant import Grant

SCOPE = "https://mail.google.com/"


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as running:
        yield running


async def asked(endpoint: TokenEndpoint, provider: Provider) -> tuple[dict[str, str], str]:
    """Return the form that the endpoint was sent for a token, and the token."""
    async with TokenManager() as tokens:
        tokens.add_provider("me@example.com", provider)
        token = await tokens.get_token("me@example.com")
    return endpoint.token_requests[-1].form, token.access_token


# What is asked.


@pytest.mark.parametrize("scopes", ["read write", ["read", "write"], ("read", "write")])
async def test_client_credentials_with_scopes_as_text_or_list_and_parameters(
    endpoint: TokenEndpoint, scopes: Any
) -> None:
    audience = {"audience": "https://api.example"}
    form, token = await asked(endpoint, application(endpoint, scopes=scopes, parameters=audience))
    assert token == endpoint.issued[0]
    assert (form["grant_type"], form["scope"]) == ("client_credentials", "read write")
    assert form["audience"] == "https://api.example"
    assert endpoint.token_requests[0].client == ("billing-client", CLIENT_SECRET)


async def test_the_token_endpoint_is_found_by_the_issuer(
    endpoint: TokenEndpoint,
) -> None:
    endpoint.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_basic"]}
    await asked(endpoint, application(endpoint, token_url="", issuer=endpoint.issuer))
    assert endpoint.token_requests[0].client == ("billing-client", CLIENT_SECRET)
    assert "client_secret" not in endpoint.token_requests[0].form


async def test_a_person_who_signed_in_is_a_refresh_token(endpoint: TokenEndpoint) -> None:
    endpoint.grants("rt-1")
    person = SignedIn(client_id="c", refresh_token="rt-1", token_url=endpoint.token_url)
    form, _ = await asked(endpoint, person)
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "rt-1")


async def test_google_for_a_person(endpoint: TokenEndpoint) -> None:
    endpoint.grants("rt-1")
    google = Google(
        client_id="c", client_secret="s", refresh_token="rt-1", token_url=endpoint.token_url
    )
    form, _ = await asked(endpoint, google)
    assert (form["client_id"], form["refresh_token"]) == ("c", "rt-1")


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_googles_service_account_acts_as_the_mailbox_of_its_name(
    endpoint: TokenEndpoint, service_account: Path
) -> None:
    google = Google(service_account=service_account, token_url=endpoint.token_url)
    await asked(endpoint, google)
    assert endpoint.claims[0]["sub"] == "me@example.com"
    assert endpoint.claims[0]["scope"] == SCOPE
    del google
    await asked(
        endpoint,
        Google(service_account=str(service_account), token_url=endpoint.token_url, scopes="a b"),
    )
    assert endpoint.claims[1]["scope"] == "a b"


@pytest.fixture
def service_account(endpoint: TokenEndpoint, tmp_path: Path) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    email = "robot@project.iam.gserviceaccount.com"
    endpoint.service_accounts[email] = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file = tmp_path / "robot.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": email,
                "private_key": private.decode(),
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    return file


async def test_microsoft_for_an_application_and_for_a_person(authority: trustme.CA) -> None:
    async with TokenEndpoint(authority) as endpoint:
        endpoint.grants("rt-1")
        common: dict[str, Any] = {"authority": endpoint.url, "ca_file": endpoint.ca_file}
        app = Microsoft(client_id="c", client_secret="s", tenant="contoso.example", **common)
        form, _ = await asked(endpoint, app)
        assert form["grant_type"] == "client_credentials"
        assert form["scope"] == "https://outlook.office365.com/.default"
        graph = "https://graph.microsoft.com/.default"
        other = Microsoft(
            client_id="c", client_secret="s", tenant="contoso.example", scopes=graph, **common
        )
        assert (await asked(endpoint, other))[0]["scope"] == graph
        assert "/contoso.example/" in endpoint.token_requests[0].path
        person = Microsoft(client_id="c", refresh_token="rt-1", **common)
        form, _ = await asked(endpoint, person)
        assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", "rt-1")
        assert "/common/" in endpoint.token_requests[-1].path


async def test_a_provider_of_ones_own_is_an_object_with_refresh() -> None:
    class Own:
        async def refresh(self, grant: Grant) -> TokenResponse:
            return TokenResponse(access_token="for a test", lifetime_seconds=60, scope="all")

    async with TokenManager() as tokens:
        tokens.add_provider("billing", Own())
        token = await tokens.get_token("billing")
        assert (token.access_token, token.scope) == ("for a test", "all")
        assert (await tokens.token_info("billing")).provider == "Own"


async def test_a_provider_added_again_replaces_the_former_one(endpoint: TokenEndpoint) -> None:
    async with TokenManager() as tokens:
        tokens.add_provider("billing", application(endpoint))
        await tokens.get_token("billing")
        tokens.add_provider("Billing", application(endpoint, scopes="more"))
        assert (await tokens.get_token("billing")).scope == "more"
        assert tokens.list_providers() == ["Billing"]


def test_how_long_before_its_end_a_token_is_renewed_can_be_set_for_each_provider() -> None:
    """How the proxy heeds that is shown in `test_tokens_background`."""
    given: dict[str, Any] = {"client_id": "c", "refresh_window_seconds": 60.0}
    server: dict[str, Any] = {"token_url": "https://login.example/token"}
    for provider in (
        ClientCredentials(client_secret="s", **server, **given),
        SignedIn(refresh_token="rt", **server, **given),
        Microsoft(refresh_token="rt", **given),
        Google(client_secret="s", refresh_token="rt", **given),
    ):
        account, _ = account_of("billing", provider)
        assert account.oauth.refresh_window_seconds == 60.0


# What is refused.


class NotAwaited:
    """A provider that would hold the event loop."""

    def refresh(self, grant: Grant) -> TokenResponse:
        return TokenResponse(access_token=grant.mailbox)


@pytest.mark.parametrize(
    ("provider", "problems"),
    [
        (
            ClientCredentials(client_id="", client_secret=""),
            {"client_id": "required", "client_secret": "required", "token_url": "or issuer"},
        ),
        (
            ClientCredentials(client_id="c", client_secret="s", token_url="http://a.example/t"),
            {"token_url": "https://"},
        ),
        (
            SignedIn(client_id="c", refresh_token="", issuer="x"),
            {"refresh_token": "", "issuer": ""},
        ),
        (Microsoft(client_id="c", tenant="a.example"), {"client_secret": "or certificate"}),
        (Microsoft(client_id="c", client_secret="s"), {"tenant": "organization's id"}),
        (
            Microsoft(client_id="c", client_secret="s", certificate="c.pem", tenant="t"),
            {"certificate": "contradicts"},
        ),
        (Google(client_id="c"), {"client_secret": "required", "refresh_token": "required"}),
        (
            Google(service_account="key.json", refresh_token="rt"),
            {"refresh_token": "contradicts service_account"},
        ),
        (object(), {"provider": "async def refresh"}),
        (NotAwaited(), {"provider": "async def refresh"}),
    ],
)
def test_what_is_missing_or_wrong_is_told_at_once(provider: Any, problems: dict[str, str]) -> None:
    tokens = TokenManager()
    with pytest.raises(ConfigError) as raised:
        tokens.add_provider("billing", provider)
    found = dict(raised.value.problems)
    assert found.keys() == problems.keys()
    assert all(words in found[key] for key, words in problems.items())
    assert tokens.list_providers() == []


def test_a_name_must_not_be_empty(endpoint: TokenEndpoint) -> None:
    with pytest.raises(ConfigError, match="name: must not be empty"):
        TokenManager().add_provider(" ", application(endpoint))


def test_a_key_that_encrypts_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key: a key needs 16 characters"):
        TokenManager(tmp_path, key="short")


# Where tokens are kept.


async def test_a_rotated_refresh_token_outlives_the_manager_in_a_directory(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    endpoint.grants("rt-1")
    endpoint.rotates = endpoint.detects_reuse = True
    person = SignedIn(client_id="c", refresh_token="rt-1", token_url=endpoint.token_url)
    for _ in range(3):
        async with TokenManager(tmp_path / "kept", key="k" * 16) as tokens:
            tokens.add_provider("me", person)
            await tokens.get_token("me", force_refresh=True)
    sent = [one.form["refresh_token"] for one in endpoint.token_requests]
    assert len(set(sent)) == 3
    (file,) = (tmp_path / "kept").glob("me-*.json")
    assert sent[-1] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


async def test_two_managers_on_one_directory_share_a_token_of_equal_scopes_only(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    got = []
    for scopes in ("read write", ["write", "read"], "read"):
        async with TokenManager(tmp_path / "kept") as tokens:
            tokens.add_provider("billing", application(endpoint, scopes=scopes))
            got.append(await tokens.get_token("billing"))
    assert [one.scope for one in got] == ["read write", "read write", "read"]
    assert len(endpoint.token_requests) == 2


async def test_managers_that_ask_at_one_time_ask_once(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    managers = [TokenManager(tmp_path / "kept") for _ in range(4)]
    for tokens in managers:
        tokens.add_provider("billing", application(endpoint))
    got = await asyncio.gather(*(one.get_token("billing") for one in managers for _ in range(5)))
    await asyncio.gather(*(one.close() for one in managers))
    assert len({one.access_token for one in got}) == 1
    assert len(endpoint.token_requests) == 1


# A proxy's configuration.


def write(directory: Path, **more: object) -> Path:
    """Write a configuration of two mailboxes, one of them disabled."""
    file = directory / "accounts.json"
    account = {"email": "Me@gmail.com", "provider": "gmail", "password": "p"}
    off = account | {"email": "off@gmail.com", "enabled": False}
    file.write_text(json.dumps({"accounts": [account, off]} | more))
    return file


async def test_a_mailbox_of_a_configuration_cannot_be_replaced_by_a_program(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    async with TokenManager.open(write(tmp_path), tmp_path) as tokens:
        assert tokens.list_providers() == ["Me@gmail.com"]
        for name in ("me@gmail.com", "OFF@gmail.com"):
            with pytest.raises(ConfigError, match="is a mailbox of the configuration"):
                tokens.add_provider(name, application(endpoint))
        tokens.add_provider("billing", application(endpoint))
        await tokens.get_token("billing")
        assert await tokens.refresh_all() != {}


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"store": {"kind": "memory"}}, "store.kind: is memory"),
        ({"stores": {}}, "stores: is unknown"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(
    tmp_path: Path, more: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem.split(":")[0]):
        TokenManager.open(write(tmp_path, **more), tmp_path)


async def test_the_default_manager_is_that_of_the_environments_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XOAUTH2_PROXY_CONFIG", str(write(tmp_path)))
    monkeypatch.setenv("XOAUTH2_PROXY_STATE_DIR", str(tmp_path / "state"))
    async with default_manager() as tokens:
        assert tokens.list_providers() == ["Me@gmail.com"]


# Secrets.


def quotes(request: Request) -> Answer:
    """Refuse, and repeat all that was asked."""
    return error("invalid_client", " ".join(request.form.values()), 401)


async def test_no_object_error_or_log_line_shows_a_secret(
    endpoint: TokenEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    planted = Planted()
    secret = planted.new("the client's secret")
    refresh = planted.new("the refresh token")
    parameter = planted.new("a parameter")
    caplog.set_level("DEBUG")
    async with TokenManager() as tokens:
        provider = application(endpoint, client_secret=secret, parameters={"key": parameter})
        tokens.add_provider("billing", provider)
        person = SignedIn(client_id="c", refresh_token=refresh, token_url=endpoint.token_url)
        tokens.add_provider("me", person)
        token = await tokens.get_token("billing")
        planted.add("the access token", token.access_token)
        endpoint.route("/token", quotes)
        errors = list((await tokens.refresh_all()).values())
        assert all(isinstance(one, TokenError) for one in errors)
        said = [repr(tokens), str(token), f"{token!r}", repr(provider), repr(person), objects()]
        said += [told_by(one) for one in errors if isinstance(one, TokenError)]
        said += [repr(one) for found in errors for one in chain(found)]  # type: ignore[arg-type]
        said.append(repr(await tokens.token_info("billing")))
    assert "no access token" in caplog.text
    assert planted.leaks("\n".join([*said, caplog.text])) == set()
