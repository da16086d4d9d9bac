"""Discovery: endpoints from an issuer's name, and documents that are not believed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.token_endpoint import (
    CLOSES,
    GARBAGE,
    Answer,
    Request,
    TokenEndpoint,
    answer,
    redirect,
)
from xoauth2_proxy.errors import TokenEndpointRefused, TokenEndpointUnavailable
from xoauth2_proxy.oauth import discovery, endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import trustme

ENTRA_ID = "9188040d-6c67-4b5b-b112-36a304b66dad"


@pytest.fixture
async def server() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as server:
        yield server


@pytest.fixture
async def tls_server(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority) as server:
        yield server


async def discover(issuer: str, *needs: str, ca_file: Path | None = None) -> dict[str, Any]:
    def ask() -> dict[str, Any]:
        with endpoint.open_session(ca_file) as session:
            return discovery.discover(session, issuer, *needs, ca_file=ca_file)

    return await asyncio.to_thread(ask)


def says(document: object, status: int = 200) -> Callable[[Request], Answer]:
    return lambda _: answer(document, status)


def paths(server: TokenEndpoint) -> list[str]:
    return [request.path for request in server.requests]


# Where the document is.


async def test_an_issuer_names_its_endpoints(server: TokenEndpoint) -> None:
    metadata = await discover(server.issuer)
    assert metadata["token_endpoint"] == server.token_url
    assert metadata["issuer"] == server.issuer


async def test_an_issuer_may_have_a_path(server: TokenEndpoint) -> None:
    metadata = await discover(f"{server.url}/realms/mail")
    assert metadata["token_endpoint"] == f"{server.url}/realms/mail/token"


async def test_a_final_slash_makes_no_difference(server: TokenEndpoint) -> None:
    metadata = await discover(f"{server.issuer}/")
    assert metadata["token_endpoint"] == server.token_url
    assert paths(server) == ["/.well-known/openid-configuration"]


async def test_a_server_without_openid_connect_is_found_by_rfc_8414(server: TokenEndpoint) -> None:
    issuer = f"{server.url}/mail"
    server.always(answer({}, 404), to="discovery")
    server.route(
        "/.well-known/oauth-authorization-server/mail",
        says({"issuer": issuer, "token_endpoint": f"{server.url}/elsewhere"}),
    )
    assert (await discover(issuer))["token_endpoint"] == f"{server.url}/elsewhere"


async def test_no_document_is_the_operators_matter(server: TokenEndpoint) -> None:
    server.always(answer({}, 404), to="discovery")
    with pytest.raises(TokenEndpointRefused, match="publishes no metadata"):
        await discover(server.issuer)
    assert len(server.requests) == 2


# What it says.


async def test_a_document_of_another_issuer_is_not_believed(server: TokenEndpoint) -> None:
    server.metadata = {"issuer": "https://login.example.net"}
    with pytest.raises(
        TokenEndpointRefused, match=r"another issuer, 'https://login\.example\.net'"
    ):
        await discover(server.issuer)


@pytest.mark.parametrize("named", ["{tenantid}", ENTRA_ID])
async def test_microsofts_document_names_the_tenant_in_its_own_way(
    server: TokenEndpoint, named: str
) -> None:
    server.metadata = {"issuer": f"{server.url}/{named}/v2.0"}
    metadata = await discover(f"{server.url}/common/v2.0")
    assert metadata["token_endpoint"] == f"{server.url}/common/oauth2/v2.0/token"


@pytest.mark.parametrize(
    "named",
    [
        "https://login.example.net/{tenantid}/v2.0",  # another host
        "{url}/contoso/v2.0",  # neither the template nor an id
        "{url}/a/{tenantid}/v2.0",
        "{url}/{tenantid}/v1.0",
    ],
)
async def test_no_other_template_is_believed(server: TokenEndpoint, named: str) -> None:
    server.metadata = {"issuer": named.replace("{url}", server.url)}
    with pytest.raises(TokenEndpointRefused, match="another issuer"):
        await discover(f"{server.url}/common/v2.0")


@pytest.mark.parametrize(
    "key", ["token_endpoint", "authorization_endpoint", "jwks_uri", "userinfo_endpoint"]
)
async def test_endpoints_that_are_not_https_are_refused(server: TokenEndpoint, key: str) -> None:
    server.metadata = {key: "http://login.example.net/it"}
    with pytest.raises(TokenEndpointRefused, match=f"the {key} of .* is not https"):
        await discover(server.issuer)


async def test_https_endpoints_of_another_host_are_fine(server: TokenEndpoint) -> None:
    server.metadata = {"token_endpoint": "https://oauth2.example.net/token"}
    assert (await discover(server.issuer))["token_endpoint"] == "https://oauth2.example.net/token"


@pytest.mark.parametrize("missing", [None, "", 7])
async def test_a_missing_key_is_named(server: TokenEndpoint, missing: object) -> None:
    server.metadata = {"token_endpoint": missing}
    with pytest.raises(TokenEndpointRefused, match="has no token_endpoint"):
        await discover(server.issuer)


async def test_a_missing_issuer_is_named(server: TokenEndpoint) -> None:
    server.metadata = {"issuer": None}
    with pytest.raises(TokenEndpointRefused, match="has no issuer"):
        await discover(server.issuer)


async def test_a_key_that_a_caller_needs_is_named_when_missing(server: TokenEndpoint) -> None:
    await discover(server.issuer, "authorization_endpoint")
    with pytest.raises(TokenEndpointRefused, match="has no revocation_endpoint"):
        await discover(server.issuer, "authorization_endpoint", "revocation_endpoint")


# Trouble.


async def test_a_busy_issuer_is_transient_and_its_wish_is_kept(server: TokenEndpoint) -> None:
    server.will(answer({}, 503, {"Retry-After": "7"}), to="discovery")
    with pytest.raises(TokenEndpointUnavailable) as caught:
        await discover(server.issuer)
    assert caught.value.retry_after_seconds == 7.0


@pytest.mark.parametrize(
    "given",
    [GARBAGE, answer([]), answer(b"[" * 100_000), CLOSES, redirect("https://login.example.net/")],
    ids=["page", "list", "depth", "closes", "redirect"],
)
async def test_an_answer_that_is_no_document_is_transient(
    server: TokenEndpoint, given: Answer
) -> None:
    server.always(given, to="discovery")
    with pytest.raises(TokenEndpointUnavailable):
        await discover(server.issuer)


async def test_a_forbidden_document_is_the_operators_matter(server: TokenEndpoint) -> None:
    server.will(answer({}, 403), to="discovery")
    with pytest.raises(TokenEndpointRefused, match="HTTP 403"):
        await discover(server.issuer)


async def test_plain_http_is_for_loopback_only() -> None:
    with pytest.raises(TokenEndpointRefused, match="https"):
        await discover("http://login.example.net")


async def test_a_certificate_of_nobody_known_is_not_believed(tls_server: TokenEndpoint) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="not trusted"):
        await discover(tls_server.issuer)
    assert tls_server.requests == []


# What is kept.


async def test_a_document_is_asked_for_once(tls_server: TokenEndpoint) -> None:
    first = await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    first["token_endpoint"] = "a caller's own change"
    second = await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    assert second["token_endpoint"] == tls_server.token_url
    assert len(tls_server.requests) == 1


async def test_a_document_is_not_kept_longer_than_an_hour(
    tls_server: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    monkeypatch.setattr(discovery, "_FRESH_SECONDS", 0.0)
    await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    assert len(tls_server.requests) == 2


async def test_what_one_authority_vouched_for_is_not_told_to_others(
    tls_server: TokenEndpoint,
) -> None:
    await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    with pytest.raises(TokenEndpointUnavailable, match="not trusted"):
        await discover(tls_server.issuer)


async def test_a_bounded_number_of_documents_is_kept(
    tls_server: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_MAX_CACHED", 2)
    for name in ("one", "two", "three", "one", "three"):
        await discover(f"{tls_server.issuer}/{name}", ca_file=tls_server.ca_file)
    asked = [path.split("/")[1] for path in paths(tls_server)]
    assert asked == ["one", "two", "three", "one"]


async def test_a_failure_is_not_kept(tls_server: TokenEndpoint) -> None:
    tls_server.will(answer({}, 503), to="discovery")
    with pytest.raises(TokenEndpointUnavailable):
        await discover(tls_server.issuer, ca_file=tls_server.ca_file)
    await discover(tls_server.issuer, ca_file=tls_server.ca_file)


async def test_a_server_on_this_machine_is_asked_each_time(server: TokenEndpoint) -> None:
    await discover(server.issuer)
    await discover(server.issuer)
    assert len(server.requests) == 2
