"""The sandbox's tokens: signatures, clocks, registration, devices, revocation, rates."""

from __future__ import annotations

import base64
import hmac
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey

from tests.support.person import user_code_in
from tests.support.raw_smtp import MAILBOX
from tests.support.sandbox import Sandbox
from tests.support.sandbox_client import REDIRECT_URI, SandboxClient
from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.oauth import clients
from xoauth2_proxy.sandbox.oauth.attempts import (
    Attempt,
    Attempts,
    AuthorizationRequest,
    Waiting,
    answer_device,
)
from xoauth2_proxy.sandbox.oauth.clients import DEVICE_GRANT, Client, Clients
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
from xoauth2_proxy.sandbox.settings_document import read_settings
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.sandbox.tokens.signing import unverified_claims

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop

SECRET = "a secret of thirty-two octets or more"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SandboxClient]:
    async with Sandbox(tmp_path) as sandbox, SandboxClient(sandbox) as client:
        yield client


@asynccontextmanager
async def client_with(
    folder: Path, overrides: dict[str, object] | None = None, **endpoint: object
) -> AsyncIterator[SandboxClient]:
    document: dict[str, object] = {"token_endpoint": endpoint}
    if overrides:
        document["overrides"] = overrides
    settings = read_settings(document)
    async with Sandbox(folder, settings) as sandbox, SandboxClient(sandbox) as client:
        yield client


async def keys(client: SandboxClient) -> KeySet:
    _, document = await client.get("/oauth/jwks")
    assert not any({"d", "p", "q", "k"} & set(key) for key in document["keys"])
    return KeySet.import_key_set(document)  # type: ignore[arg-type]


# Metadata.


async def test_the_metadata_name_what_is_there(client: SandboxClient) -> None:
    url = client.sandbox.http_url
    status, metadata = await client.get("/.well-known/openid-configuration")
    assert (status, metadata["issuer"]) == (200, url)
    assert (await client.get("/.well-known/oauth-authorization-server"))[1] == metadata
    assert metadata["code_challenge_methods_supported"] == ["S256"]
    for name in [key for key in metadata if key.endswith(("_endpoint", "_uri"))]:
        async with client.http.get(metadata[name].removeprefix(url)) as response:
            assert response.status != 404, name


# Signatures.


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_published_key_verifies_the_access_token(tmp_path: Path, algorithm: str) -> None:
    async with client_with(tmp_path, algorithm=algorithm) as client:
        token = (await client.sign_in())["access_token"]
        claims = jwt.decode(token, await keys(client), algorithms=[algorithm]).claims
        assert (claims["sub"], claims["iss"]) == (MAILBOX, client.sandbox.http_url)
        assert await client.opens(token)
        head, _, signature = token.rpartition(".")
        assert not await client.opens(f"{head}.{signature[:-6]}AAAAAA")


async def test_a_given_secret_verifies_the_access_token(tmp_path: Path) -> None:
    async with client_with(tmp_path, algorithm="HS256", secret=SECRET) as client:
        token = (await client.sign_in())["access_token"]
        assert jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"]).claims["sub"]
        assert await client.opens(token)
        forged = jwt.encode({"alg": "HS256"}, unverified_claims(token), OctKey.import_key("x" * 40))
        assert not await client.opens(forged)
        _, shown = await client.get("/settings")
        assert SECRET not in str(shown)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_public_key_is_no_secret(tmp_path: Path, algorithm: str) -> None:
    """A token that is signed with HS256 and the published key is forged (RFC 8725 §2.1)."""
    async with client_with(tmp_path, algorithm=algorithm) as client:
        claims = (await client.sign_in())["access_token"].split(".")[1]
        head = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
        for key in (await keys(client)).keys:
            public = key.as_pem(private=False)  # type: ignore[union-attr]
            digest = hmac.digest(public, f"{head}.{claims}".encode(), "sha256")
            signature = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            assert not await client.opens(f"{head}.{claims}.{signature}")


async def test_keys_outlive_the_sandbox(tmp_path: Path) -> None:
    async with client_with(tmp_path, algorithm="ES256") as client:
        token = (await client.sign_in())["access_token"]
        port = client.sandbox.http_port
        assert port is not None
    settings = read_settings({"token_endpoint": {"algorithm": "ES256"}})
    async with (
        Sandbox(tmp_path, settings, preferred_http_port=port) as sandbox,
        SandboxClient(sandbox) as client,
    ):
        assert jwt.decode(token, await keys(client), algorithms=["ES256"]).claims["sub"] == MAILBOX


async def test_a_file_without_a_key_is_told(tmp_path: Path) -> None:
    async with client_with(tmp_path, algorithm="ES256"):
        (tmp_path / "sandbox" / "es256-key.pem").write_text("no key")
    with pytest.raises(ValueError, match=r"es256-key\.pem holds no such key; delete it"):
        async with client_with(tmp_path, algorithm="ES256"):
            pass


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256"])
async def test_mock_mailboxes_go_on_beside_it(tmp_path: Path, algorithm: str) -> None:
    async with client_with(tmp_path, algorithm=algorithm) as client:
        key = (tmp_path / "sandbox" / "signing-key").read_bytes()
        assert await client.opens(MockTokens(key).mint(MAILBOX))


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ({"secret": SECRET}, "secret is for"),
        ({"algorithm": "ES256", "secret": SECRET}, "secret is for"),
        ({"algorithm": "HS256", "secret": "short"}, "32 octets"),
        ({"algorithm": "none"}, "algorithm"),
    ],
)
def test_wrong_settings_of_signatures_are_told(endpoint: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_settings({"token_endpoint": endpoint})


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_id_tokens_say_who_signed_in(tmp_path: Path, algorithm: str) -> None:
    async with client_with(tmp_path, id_token_algorithm=algorithm) as client:
        tokens = await client.sign_in(nonce="a nonce")
        claims = jwt.decode(tokens["id_token"], await keys(client), algorithms=[algorithm]).claims
        assert claims["iss"] == client.sandbox.http_url
        assert (claims["aud"], claims["nonce"]) == (client.client_id, "a nonce")
        assert (claims["email"], claims["preferred_username"]) == (MAILBOX, MAILBOX)
        bearer = f"Bearer {tokens['access_token']}"
        status, person = await client.get("/oauth/userinfo", Authorization=bearer)
        assert (status, person["sub"]) == (200, claims["sub"])


async def test_a_registered_client_may_want_its_secret_as_key(client: SandboxClient) -> None:
    _, registered = await client.register(
        redirect_uris=[REDIRECT_URI], id_token_signed_response_alg="HS256"
    )
    client.client_id, client.secret = registered["client_id"], registered["client_secret"]
    id_token = (await client.sign_in())["id_token"]
    key = OctKey.import_key(client.secret)
    assert jwt.decode(id_token, key, algorithms=["HS256"]).claims["aud"] == client.client_id


async def test_scopes_decide_on_id_token_and_refresh_token(client: SandboxClient) -> None:
    for scope, expected in (
        ("openid", {"id_token"}),
        ("openid offline_access", {"id_token", "refresh_token"}),
        ("smtp", {"refresh_token"}),
    ):
        tokens = await client.sign_in(scope=scope)
        assert {"id_token", "refresh_token"} & set(tokens) == expected


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer invented", "Basic YTpi"])
async def test_userinfo_is_for_good_tokens(client: SandboxClient, header: str) -> None:
    status, _ = await client.get("/oauth/userinfo", Authorization=header)
    assert status == 401


# Clocks.


async def test_a_leeway_lets_an_expired_token_in(tmp_path: Path) -> None:
    async with client_with(tmp_path, leeway_seconds=60) as client:
        assert await client.opens(client.sandbox.tokens.mint(MAILBOX, ttl_seconds=-30))
        assert not await client.opens(client.sandbox.tokens.mint(MAILBOX, ttl_seconds=-90))


async def test_a_clock_that_is_behind_issues_expired_tokens(tmp_path: Path) -> None:
    async with client_with(tmp_path, clock_skew_seconds=-7200) as client:
        tokens = await client.sign_in()
        assert tokens["expires_in"] == 3600
        assert not await client.opens(tokens["access_token"])


async def test_a_clock_that_is_ahead_is_in_every_token(tmp_path: Path) -> None:
    async with client_with(tmp_path, clock_skew_seconds=600) as client:
        tokens = await client.sign_in()
        claims = unverified_claims(tokens["id_token"])
        issued_at = client.sandbox.tokens.read(tokens["access_token"]).issued_at
        assert min(claims["iat"], issued_at) > time.time() + 500


# Registration.


async def test_a_client_registers_itself(client: SandboxClient) -> None:
    status, registered = await client.register(
        redirect_uris=["http://127.0.0.1/back"],
        client_name="A benchmark",
        grant_types=["authorization_code", "refresh_token"],
        software_id="ignored",
    )
    assert status == 201
    assert registered["client_name"] == "A benchmark"
    assert registered["token_endpoint_auth_method"] == "client_secret_basic"
    assert registered["client_secret_expires_at"] == 0
    client.client_id, client.secret = registered["client_id"], registered["client_secret"]
    tokens = await client.sign_in()  # on another port: RFC 8252 §7.3
    client.secret = "wrong"
    status, body = await client.refresh(tokens["refresh_token"])
    assert (status, body["error"]) == (401, "invalid_client")


async def test_only_registered_addresses_of_its_own_are_visited(client: SandboxClient) -> None:
    _, registered = await client.register(redirect_uris=["https://app.example/back"])
    for uri, status in (
        ("https://app.example/back", 200),
        ("https://app.example/back/", 400),
        ("https://app.example:444/back", 400),
        ("https://app.example/back?a=b", 400),
        (REDIRECT_URI, 400),
    ):
        url = client.url(client_id=registered["client_id"], redirect_uri=uri)
        async with client.http.get(url, allow_redirects=False) as response:
            assert response.status == status, uri


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        ({}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://app.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://app.example/#a"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://app.example/"}, "invalid_client_metadata"),
        ({"redirect_uris": [REDIRECT_URI] * 11}, "invalid_client_metadata"),
        ({"redirect_uris": [REDIRECT_URI], "grant_types": ["password"]}, "invalid_client_metadata"),
        ({"redirect_uris": [REDIRECT_URI], "response_types": ["token"]}, "invalid_client_metadata"),
        (
            {"redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "private_key_jwt"},
            "invalid_client_metadata",
        ),
        (
            {
                "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "none",
                "id_token_signed_response_alg": "HS256",
            },
            "invalid_client_metadata",
        ),
    ],
)
async def test_what_cannot_be_registered_is_told(
    client: SandboxClient, metadata: dict[str, object], word: str
) -> None:
    status, body = await client.register(**metadata)
    assert (status, body["error"]) == (400, word)


async def test_a_web_page_registers_nothing(client: SandboxClient) -> None:
    headers = {"Origin": "http://evil.example", "Content-Type": "text/plain"}
    async with client.http.post("/oauth/register", data="{}", headers=headers) as response:
        assert response.status == 403


def test_only_so_many_are_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "MAX_REGISTERED", 2)
    known = Clients({})
    for _ in range(2):
        known.register({"redirect_uris": [REDIRECT_URI]})
    with pytest.raises(OAuthError) as refused:
        known.register({"redirect_uris": [REDIRECT_URI]})
    assert (refused.value.word, refused.value.status) == ("temporarily_unavailable", 503)


async def test_with_clients_in_the_settings_others_are_unknown(tmp_path: Path) -> None:
    async with client_with(tmp_path, clients={"me": "s3cret"}) as client:
        async with client.http.get(client.url(), allow_redirects=False) as response:
            assert response.status == 400
        client.client_id = "xoauth2-proxy"
        await client.sign_in()


# Devices.


async def begun(client: SandboxClient) -> dict[str, Any]:
    status, device = await client.post("/oauth/device_authorization", scope="openid offline_access")
    assert status == 200
    return device


async def poll(client: SandboxClient, device: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return await client.ask(grant_type=DEVICE_GRANT, device_code=device["device_code"])


async def test_a_device_gets_tokens_once_a_person_allows_it(tmp_path: Path) -> None:
    async with client_with(tmp_path, device_interval_seconds=0.001) as client:
        device = await begun(client)
        assert user_code_in(device["user_code"])
        status, body = await poll(client, device)
        assert (status, body["error"]) == (400, "authorization_pending")
        typed = device["user_code"].lower().replace("-", " ")
        await client.person.approve_device(device["verification_uri"], typed, MAILBOX)
        status, tokens = await poll(client, device)
        assert status == 200
        assert await client.opens(tokens["access_token"])
        assert {"id_token", "refresh_token"} <= set(tokens)
        assert (await poll(client, device))[1]["error"] == "invalid_grant", "once"


async def test_a_device_is_refused(tmp_path: Path) -> None:
    async with client_with(tmp_path, device_interval_seconds=0.001) as client:
        device = await begun(client)
        said = await client.person.approve_device(
            device["verification_uri_complete"], device["user_code"], MAILBOX, consents=False
        )
        assert "Device refused" in said
        assert (await poll(client, device))[1]["error"] == "access_denied"


async def test_a_device_that_asks_too_often_is_slowed_down(client: SandboxClient) -> None:
    device = await begun(client)
    assert device["interval"] == 5
    assert (await poll(client, device))[1]["error"] == "authorization_pending"
    assert (await poll(client, device))[1]["error"] == "slow_down"


async def test_a_device_code_is_its_clients(client: SandboxClient) -> None:
    device = await begun(client)
    client.client_id = "another"
    assert (await poll(client, device))[1]["error"] == "invalid_grant"


async def test_an_unknown_code_is_told_to_the_person(client: SandboxClient) -> None:
    async with client.http.post("/oauth/device", data={"user_code": "BCDF-GHJK"}) as response:
        assert response.status == 400
        assert "No device shows this code" in await response.text()


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


REQUEST = AuthorizationRequest(client=Client("c"), issuer="http://x", redirect_uri=REDIRECT_URI)


def error_of_poll(attempts: Attempts, device_code: str) -> str:
    with pytest.raises(OAuthError) as refused:
        attempts.poll(device_code, "c")
    return refused.value.word


def test_a_device_code_ends_with_its_time() -> None:
    attempts = Attempts(TokenEndpointSettings(device_code_seconds=60.0), clock := Clock())
    device_code, user_code = attempts.begin_device(REQUEST)
    assert attempts.device_with(user_code) is not None
    assert error_of_poll(attempts, device_code) == "authorization_pending"
    clock.now = 60.0
    assert error_of_poll(attempts, device_code) == "expired_token"
    assert attempts.device_with(user_code) is None
    clock.now = 120.0
    assert error_of_poll(attempts, device_code) == "invalid_grant"


def test_each_haste_of_a_device_costs_it_five_seconds() -> None:
    attempts = Attempts(TokenEndpointSettings(), clock := Clock())
    device_code, user_code = attempts.begin_device(REQUEST)
    words = []
    for clock.now in (0.0, 5.0, 9.0, 18.0, 33.0):
        words.append(error_of_poll(attempts, device_code))
    pending = "authorization_pending"
    assert words == [pending, pending, "slow_down", "slow_down", pending]
    attempt = attempts.device_with(user_code)
    assert attempt is not None
    answer_device(Attempt(attempt.request, MAILBOX, attempt.device), is_allowed=True)
    clock.now = 60.0
    assert attempts.poll(device_code, "c").mailbox == MAILBOX


def test_an_authorization_code_ends_with_its_time() -> None:
    attempts = Attempts(TokenEndpointSettings(code_seconds=60.0), clock := Clock())
    code = attempts.code_for(Attempt(REQUEST, MAILBOX))
    clock.now = 59.0
    assert attempts.redeem(code, "c", REDIRECT_URI, "").mailbox == MAILBOX
    clock.now = 60.0
    with pytest.raises(OAuthError, match="invalid_grant"):
        attempts.redeem(code, "c", REDIRECT_URI, "")


def test_what_waits_is_bounded_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xoauth2_proxy.sandbox.oauth.attempts.MAX_WAITING", 3)
    waiting: Waiting[int] = Waiting(10.0, clock := Clock())
    first, *_ = [waiting.add(number) for number in range(4)]
    assert len(waiting) == 3
    assert waiting.get(first) is None
    clock.now = 10.0
    assert waiting.values() == []
    waiting.add(9)
    assert len(waiting) == 1


# Revocation.


async def test_revoking_ends_the_grant_for_mail_and_for_refreshing(client: SandboxClient) -> None:
    tokens, other = await client.sign_in(), await client.sign_in()
    _, renewed = await client.refresh(tokens["refresh_token"])
    assert (await client.post("/oauth/revoke", token=tokens["refresh_token"]))[0] == 200
    for access_token in (tokens["access_token"], renewed["access_token"]):
        assert not await client.opens(access_token)
    bearer = f"Bearer {tokens['access_token']}"
    assert (await client.get("/oauth/userinfo", Authorization=bearer))[0] == 401
    assert (await client.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"
    assert await client.opens(other["access_token"])
    assert (await client.refresh(other["refresh_token"]))[0] == 200


async def test_an_access_token_is_revoked_alone(client: SandboxClient) -> None:
    tokens = await client.sign_in()
    assert (await client.post("/oauth/revoke", token=tokens["access_token"]))[0] == 200
    assert not await client.opens(tokens["access_token"])
    _, renewed = await client.refresh(tokens["refresh_token"])
    assert await client.opens(renewed["access_token"])


async def test_nobody_revokes_anothers_grant(client: SandboxClient) -> None:
    tokens = await client.sign_in()
    client.client_id = "another"
    assert (await client.post("/oauth/revoke", token=tokens["refresh_token"]))[0] == 200
    assert (await client.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"
    client.client_id = "a-client"
    assert (await client.refresh(tokens["refresh_token"]))[0] == 200


async def test_an_unknown_token_is_revoked_without_a_word(client: SandboxClient) -> None:
    assert (await client.post("/oauth/revoke", token="invented"))[0] == 200
    assert (await client.post("/oauth/revoke"))[0] == 400


async def test_a_grant_that_needs_no_sign_in_can_end_too(client: SandboxClient) -> None:
    refresh_token = PLAIN_REFRESH_TOKEN + MAILBOX
    _, tokens = await client.refresh(refresh_token)
    await client.post("/oauth/revoke", token=refresh_token)
    assert not await client.opens(tokens["access_token"])
    assert (await client.refresh(refresh_token))[1]["error"] == "invalid_grant"


async def test_a_wider_scope_is_refused(client: SandboxClient) -> None:
    tokens = await client.sign_in(scope="smtp offline_access")
    wider = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    status, body = await client.ask(**wider, scope="smtp admin")
    assert (status, body["error"]) == (400, "invalid_scope")
    status, body = await client.ask(**wider, scope="smtp")
    assert (status, body["scope"]) == (200, "smtp")


async def test_strict_rotation_ends_the_access_tokens_too(tmp_path: Path) -> None:
    async with client_with(tmp_path, rotation="strict") as client:
        tokens = await client.sign_in()
        _, renewed = await client.refresh(tokens["refresh_token"])
        assert (await client.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"
        assert not await client.opens(renewed["access_token"])


# Rates.


@pytest.mark.parametrize("has_limits", [True, False])
async def test_one_setting_switches_rate_limits(tmp_path: Path, has_limits: bool) -> None:
    overrides: dict[str, object] = {"logins_per_minute": 2, "rate_limits": has_limits}
    async with client_with(tmp_path, overrides, requests_per_minute=2) as client:
        refresh_token = PLAIN_REFRESH_TOKEN + MAILBOX
        statuses = [(await client.refresh(refresh_token))[0] for _ in range(4)]
        logins = [await client.opens(client.sandbox.tokens.mint(MAILBOX)) for _ in range(4)]
        if has_limits:
            assert (statuses, logins) == ([200, 200, 429, 429], [True, True, False, False])
            async with client.http.post("/oauth/token") as response:
                assert int(response.headers["Retry-After"]) > 0
            assert client.sandbox.counters.refused_by_limit["requests_per_minute"] == 3
        else:
            assert (statuses, logins) == ([200] * 4, [True] * 4)
