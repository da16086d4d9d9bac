"""Any provider's token endpoint: what is asked of it, and what its answers become."""

from __future__ import annotations

import asyncio
import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.token_endpoint import (
    CLOSES,
    GARBAGE,
    HANGS,
    TRUNCATED,
    Answer,
    TokenEndpoint,
    answer,
    error,
    redirect,
)
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import trustme

    from xoauth2_proxy.oauth.grant import TokenResponse

MAILBOX = "someone@example.com"
REFRESH_TOKEN = "rt-1"
SECRET = "s3cret-of-the-client"


class Refresh(Protocol):
    async def __call__(self, refresh_token: str = ..., **settings: object) -> TokenResponse: ...


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority) as server:
        server.grants(REFRESH_TOKEN)
        yield server


@pytest.fixture
def refresher() -> Iterator[OidcRefresher]:
    with ThreadPoolExecutor(4) as threads:
        yield OidcRefresher(threads)


@pytest.fixture
def refresh(server: TokenEndpoint, refresher: OidcRefresher) -> Refresh:
    """Refresh a grant; the client is one of the server's issuer unless settings say more."""

    async def refresh(refresh_token: str = REFRESH_TOKEN, **settings: object) -> TokenResponse:
        known = {"client_id": "client-1", "client_secret": SECRET, "ca_file": server.ca_file}
        if "token_endpoint" not in settings:
            known["issuer"] = server.issuer
        client = OAuthClient(**{**known, **settings})  # type: ignore[arg-type]
        grant = Grant(mailbox=MAILBOX, client=client, refresh_token=refresh_token)
        return await refresher.refresh(grant)

    return refresh


def form(server: TokenEndpoint) -> dict[str, str]:
    return server.token_requests[-1].form


# What is asked.


async def test_a_refresh_token_gets_an_access_token(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    issued = await refresh()
    assert issued.access_token == server.issued[0]
    assert form(server) == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}


async def test_an_application_gets_an_access_token_for_its_scopes(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    issued = await refresh(
        "", grant_type=GrantType.CLIENT_CREDENTIALS, scopes=("mail.send", "offline")
    )
    assert issued.access_token == server.issued[0]
    assert form(server) == {"grant_type": "client_credentials", "scope": "mail.send offline"}


async def test_a_refresh_asks_for_the_scope_that_was_granted(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    await refresh(scopes=("mail.send",))
    assert "scope" not in form(server)  # RFC 6749 §6: the same one


async def test_the_configured_endpoint_is_asked_without_looking_for_another(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    await refresh(token_endpoint=server.token_url)
    assert [request.path for request in server.requests] == ["/token"]


async def test_the_issuers_metadata_is_read_once(server: TokenEndpoint, refresh: Refresh) -> None:
    await refresh()
    await refresh()
    paths = [request.path for request in server.requests]
    assert paths == ["/.well-known/openid-configuration", "/token", "/token"]


async def test_more_parameters_are_sent(server: TokenEndpoint, refresh: Refresh) -> None:
    await refresh(parameters=(("audience", "https://smtp/&?x=1"), ("scope", "mail ü")))
    assert form(server)["audience"] == "https://smtp/&?x=1"
    assert form(server)["scope"] == "mail ü"


@pytest.mark.parametrize("name", ["verify", "proxies", "timeout", "auth", "headers", "url", "body"])
async def test_no_parameter_is_taken_for_an_option_of_a_library(
    server: TokenEndpoint, refresh: Refresh, name: str
) -> None:
    for grant_type in (GrantType.REFRESH_TOKEN, GrantType.CLIENT_CREDENTIALS):
        await refresh(parameters=((name, "false"),), grant_type=grant_type)
        assert form(server)[name] == "false"


async def test_no_parameter_changes_the_grant(server: TokenEndpoint, refresh: Refresh) -> None:
    await refresh(parameters=(("grant_type", "password"), ("refresh_token", "another's")))
    assert form(server) == {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}


# How the client proves itself.


@pytest.mark.parametrize(
    ("supported", "is_basic"),
    [
        (None, True),  # OpenID Connect Discovery 1.0 §3: the default
        (["client_secret_post", "client_secret_basic"], True),
        (["client_secret_post", "private_key_jwt"], False),
    ],
)
async def test_the_metadata_says_how_a_client_proves_itself(
    server: TokenEndpoint, refresh: Refresh, supported: object, is_basic: bool
) -> None:
    server.clients = {"client-1": SECRET}
    server.metadata = {"token_endpoint_auth_methods_supported": supported}
    await refresh()
    request = server.token_requests[0]
    assert ("authorization" in request.headers) is is_basic
    assert ("client_secret" in request.form) is not is_basic


async def test_a_configured_endpoint_finds_the_secret_in_the_form(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    await refresh(token_endpoint=server.token_url)
    assert form(server)["client_id"] == "client-1"
    assert form(server)["client_secret"] == SECRET


@pytest.mark.parametrize("is_discovered", [True, False])
async def test_a_public_client_only_says_its_name(
    server: TokenEndpoint, refresh: Refresh, is_discovered: bool
) -> None:
    where = {} if is_discovered else {"token_endpoint": server.token_url}
    await refresh(client_secret="", **where)
    assert form(server)["client_id"] == "client-1"
    assert "client_secret" not in form(server)
    assert "authorization" not in server.token_requests[0].headers


async def test_basic_credentials_are_form_encoded(server: TokenEndpoint, refresh: Refresh) -> None:
    server.clients = {"cliënt:1": "a+b%:/ü "}
    await refresh(client_id="cliënt:1", client_secret="a+b%:/ü ")
    value = server.token_requests[0].headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(value) == b"cli%C3%ABnt%3A1:a%2Bb%25%3A%2F%C3%BC+"  # RFC 6749 §2.3.1


async def test_an_endpoint_that_takes_no_secret_is_the_operators_matter(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    server.metadata = {"token_endpoint_auth_methods_supported": ["private_key_jwt"]}
    with pytest.raises(TokenEndpointRefused, match="does not accept a client_secret"):
        await refresh()


# What comes back.


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (1800, 1800.0),
        ("1800", 1800.0),
        (1800.5, 1800.5),
        ("1800.5", 1800.5),
        (None, 3600.0),
        (0, 3600.0),
        ("soon", 3600.0),
        ([1], 3600.0),
        ({}, 3600.0),
    ],
)
async def test_a_lifetime_may_be_told_in_any_way_or_not_at_all(
    server: TokenEndpoint, refresh: Refresh, told: object, seconds: float
) -> None:
    server.always(answer({"access_token": "at-1", "expires_in": told}))
    assert (await refresh()).lifetime_seconds == seconds
    application = await refresh("", grant_type=GrantType.CLIENT_CREDENTIALS)
    assert application.lifetime_seconds == seconds


async def test_a_rotated_refresh_token_comes_back(server: TokenEndpoint, refresh: Refresh) -> None:
    server.rotates = True
    issued = await refresh()
    assert issued.refresh_token not in ("", REFRESH_TOKEN)
    await refresh(issued.refresh_token)
    with pytest.raises(GrantRevoked):
        await refresh()


async def test_a_refresh_token_that_stays_is_not_told(refresh: Refresh) -> None:
    assert (await refresh()).refresh_token == ""


@pytest.mark.parametrize("key", ["refresh_token_expires_in", "refresh_expires_in"])
async def test_the_end_of_the_refresh_token_comes_back(
    server: TokenEndpoint, refresh: Refresh, key: str
) -> None:
    server.will(answer({"access_token": "at-1", key: 86400}))
    assert (await refresh()).refresh_token_lifetime_seconds == 86400.0


async def test_scope_and_id_token_come_back(server: TokenEndpoint, refresh: Refresh) -> None:
    server.will(answer({"access_token": "at-1", "scope": "mail", "id_token": "x.y.z"}))
    issued = await refresh()
    assert (issued.scope, issued.id_token) == ("mail", "x.y.z")


# What goes wrong.


async def test_a_revoked_grant_needs_a_person(server: TokenEndpoint, refresh: Refresh) -> None:
    server.revoke(REFRESH_TOKEN)
    with pytest.raises(GrantRevoked, match="expired or revoked") as caught:
        await refresh()
    assert caught.value.oauth_error == "invalid_grant"


async def test_without_a_refresh_token_nobody_is_asked(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    with pytest.raises(GrantRevoked, match="no one has signed in yet"):
        await refresh("")
    assert server.requests == []


async def test_a_wrong_secret_is_the_operators_matter(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    server.clients = {"client-1": "another"}
    with pytest.raises(TokenEndpointRefused, match="invalid_client") as caught:
        await refresh()
    assert SECRET not in str(caught.value)


async def test_no_person_can_help_an_application(server: TokenEndpoint, refresh: Refresh) -> None:
    server.will(error("invalid_grant", "the application is blocked"))
    with pytest.raises(TokenEndpointRefused, match="blocked") as caught:
        await refresh("", grant_type=GrantType.CLIENT_CREDENTIALS)
    assert caught.value.oauth_error == "invalid_grant"


async def test_a_busy_endpoint_is_left_alone_as_long_as_it_asks(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    server.will(answer({}, 429, {"Retry-After": "7"}))
    with pytest.raises(TokenEndpointUnavailable) as caught:
        await refresh()
    assert caught.value.retry_after_seconds == 7.0


@pytest.mark.parametrize(
    "given",
    [
        GARBAGE,
        CLOSES,
        TRUNCATED,
        answer([]),
        answer({}),
        answer({"access_token": 7}),
        answer({"access_token": "at\r\n1"}),
        redirect("https://login.example.net/"),
        answer(b"[" * 100_000),
    ],
    ids=["page", "closes", "cut", "list", "empty", "number", "controls", "redirect", "depth"],
)
async def test_an_answer_without_a_token_is_transient(
    server: TokenEndpoint, refresh: Refresh, given: Answer
) -> None:
    for grant_type in (GrantType.REFRESH_TOKEN, GrantType.CLIENT_CREDENTIALS):
        server.always(given)
        with pytest.raises(TokenEndpointUnavailable):
            await refresh(grant_type=grant_type)


async def test_an_error_in_a_good_answer_is_an_error(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    server.will(error("invalid_grant", "revoked", status=200))
    with pytest.raises(GrantRevoked):
        await refresh()


async def test_an_endpoint_of_unknown_authority_is_not_asked(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="not trusted"):
        await refresh(token_endpoint=server.token_url, ca_file=None)
    assert server.requests == []


async def test_an_endpoint_that_nobody_serves_is_transient(refresh: Refresh) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="refuses connections"):
        await refresh(token_endpoint="https://localhost:1/token")


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"client_id": ""}, "client_id"),
        ({"issuer": ""}, "neither issuer nor oauth_token_url"),
        ({"grant_type": GrantType.CLIENT_CREDENTIALS, "client_secret": ""}, "client_secret"),
        ({"grant_type": GrantType.SERVICE_ACCOUNT}, "Google"),
        ({"token_endpoint": "http://login.example.net/token"}, "https"),
    ],
)
async def test_what_the_set_up_lacks_is_named(
    server: TokenEndpoint, refresh: Refresh, settings: dict[str, object], missing: str
) -> None:
    with pytest.raises(TokenEndpointRefused, match=missing):
        await refresh(REFRESH_TOKEN, **settings)
    assert server.requests == []


async def test_no_error_quotes_a_secret(server: TokenEndpoint, refresh: Refresh) -> None:
    key = "k3y-in-a-parameter"
    server.always(error("invalid_grant", f"no {REFRESH_TOKEN}, {SECRET} or {key}", quoted=SECRET))
    with pytest.raises(TokenError) as caught:
        await refresh(parameters=(("key", key), ("kind", "no")))
    assert str(caught.value) == "invalid_grant: no …, … or …"


async def test_a_cancelled_refresh_does_not_wait_for_its_answer(
    server: TokenEndpoint, refresh: Refresh
) -> None:
    server.will(HANGS)
    waiting = asyncio.ensure_future(refresh())
    await until(lambda: len(server.token_requests) == 1)
    waiting.cancel()
    await asyncio.wait([waiting], timeout=PATIENCE_SECONDS)
    assert waiting.cancelled()
    assert (await refresh()).access_token == server.issued[0]
    server.release()
