"""The sandbox's authorization endpoint and its pages: who is sent where, with what."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.support.raw_smtp import MAILBOX
from tests.support.sandbox import Sandbox
from tests.support.sandbox_client import REDIRECT_URI, SandboxClient
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[SandboxClient]:
    async with Sandbox(tmp_path) as sandbox, SandboxClient(sandbox) as client:
        yield client


async def visit(client: SandboxClient, url: str) -> tuple[int, str, str]:
    """Return status, text and redirect target of a page."""
    async with client.http.get(url, allow_redirects=False) as response:
        return response.status, await response.text(), response.headers.get("Location", "")


async def submit(
    client: SandboxClient, headers: dict[str, str] | None = None, /, **fields: str
) -> tuple[int, str, str]:
    """Return status, text and redirect target of a form's answer."""
    async with client.http.post(
        "/oauth/authorize", data=fields, headers=headers, allow_redirects=False
    ) as response:
        return response.status, await response.text(), response.headers.get("Location", "")


def key_in(page: str) -> str:
    found = re.search(r'name="attempt" value="([^"]+)"', page)
    assert found, page
    return found[1]


async def test_state_issuer_and_tokens_come_back(client: SandboxClient) -> None:
    answer = await client.answer()
    assert answer["state"] == "a state"
    assert answer["iss"] == client.sandbox.http_url
    status, tokens = await client.exchange(answer["code"])
    assert status == 200
    assert tokens["scope"] == "openid email offline_access"
    assert await client.opens(tokens["access_token"])
    assert not await client.opens(tokens["access_token"], "else@example.com")
    status, renewed = await client.refresh(tokens["refresh_token"])
    assert status == 200
    assert await client.opens(renewed["access_token"])


async def test_a_refusal_is_access_denied(client: SandboxClient) -> None:
    refused = await client.answer(consents=False)
    assert (refused["error"], refused["state"]) == ("access_denied", "a state")
    address = await client.person.refuse_to_sign_in(client.url())
    assert dict(parse_qsl(urlsplit(address).query))["error"] == "access_denied"


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/",
        "http://evil.example/",
        "http://127.0.0.1.evil.example/",
        "http://127.0.0.1@evil.example/",
        "http://localhost:9@evil.example/",
        "http://127.0.0.1:9/#fragment",
        "//evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "http://127.0.0.1:9/\r\nSet-Cookie: a=b",
        "http://127.0.0.1;script-src *:9/",
        "",
    ],
)
async def test_nobody_is_sent_to_a_foreign_address(client: SandboxClient, uri: str) -> None:
    for changes in ({}, {"response_type": "token"}, {"prompt": "none"}):
        status, page, location = await visit(client, client.url(redirect_uri=uri, **changes))
        assert (status, location) == (400, "")
        assert "Sign-in not possible" in page


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"request": "eyJ"}, "request_not_supported"),
    ],
)
async def test_a_wrong_request_is_told_to_the_client(
    client: SandboxClient, changes: dict[str, str | None], error: str
) -> None:
    status, _, location = await visit(client, client.url(**changes))
    assert status == 303
    assert location.startswith(f"{REDIRECT_URI}?")
    query = dict(parse_qsl(urlsplit(location).query))
    assert (query["error"], query["state"]) == (error, "a state")


async def test_a_wrong_request_leads_a_person_nowhere_else(client: SandboxClient) -> None:
    elsewhere = "https://app.example/back"
    _, registered = await client.register(redirect_uris=[elsewhere])
    url = client.url(
        client_id=registered["client_id"], redirect_uri=elsewhere, response_type="token"
    )
    status, _, location = await visit(client, url)
    assert (status, location) == (400, "")


async def test_a_parameter_that_comes_twice_is_refused(client: SandboxClient) -> None:
    status, _, location = await visit(client, f"{client.url()}&state=other")
    assert (status, location) == (400, "")


async def test_pkce_can_be_required(tmp_path: Path) -> None:
    settings = read_settings({"token_endpoint": {"requires_pkce": True}})
    async with Sandbox(tmp_path, settings) as sandbox, SandboxClient(sandbox) as client:
        bare = client.url(code_challenge=None, code_challenge_method=None)
        _, _, location = await visit(client, bare)
        assert "code_challenge+is+required" in location
        await client.sign_in()


async def test_it_is_not_required_unless_asked_for(client: SandboxClient) -> None:
    answer = await client.answer(code_challenge=None, code_challenge_method=None)
    assert (await client.exchange(answer["code"]))[1]["error"] == "invalid_grant", "a verifier"
    answer = await client.answer(code_challenge=None, code_challenge_method=None)
    assert (await client.exchange(answer["code"], code_verifier=""))[0] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"code_verifier": "x" * 64},
        {"code_verifier": ""},
        {"redirect_uri": "http://127.0.0.1:9/"},
        {"redirect_uri": ""},
        {"client_id": "another"},
        {"code": "invented"},
    ],
)
async def test_a_code_is_bound_to_its_sign_in(client: SandboxClient, wrong: dict[str, str]) -> None:
    code = (await client.answer())["code"]
    status, body = await client.exchange(**({"code": code} | wrong))
    assert (status, body["error"]) == (400, "invalid_grant")


async def test_a_code_that_comes_twice_ends_the_grant(client: SandboxClient) -> None:
    code = (await client.answer())["code"]
    _, tokens = await client.exchange(code)
    assert await client.opens(tokens["access_token"])
    status, body = await client.exchange(code)
    assert (status, body["error"]) == (400, "invalid_grant")
    assert not await client.opens(tokens["access_token"])
    assert (await client.refresh(tokens["refresh_token"]))[1]["error"] == "invalid_grant"


async def test_what_is_shown_is_escaped(client: SandboxClient) -> None:
    nasty = '"><script>alert(1)</script>'
    _, registered = await client.register(redirect_uris=[REDIRECT_URI], client_name=f"Me {nasty}")
    url = client.url(client_id=registered["client_id"], login_hint=nasty, scope=f"a {nasty}")
    _, page, _ = await visit(client, url)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    _, consent, _ = await submit(client, attempt=key_in(page), login=MAILBOX, password="p")
    assert "Allow access?" in consent
    assert "<script>" not in consent
    _, device, _ = await visit(client, f"/oauth/device?{urlencode({'user_code': nasty})}")
    assert "<script>" not in device


async def test_a_form_is_answered_once_and_from_its_own_page(client: SandboxClient) -> None:
    _, page, _ = await visit(client, client.url())
    fields = {"attempt": key_in(page), "login": MAILBOX, "password": "p", "answer": "login"}
    for origin in ("http://evil.example", "null", f"https://{client.sandbox.http_url[7:]}"):
        assert (await submit(client, {"Origin": origin}, **fields))[0] == 403
    own = {"Origin": client.sandbox.http_url}
    status, consent, _ = await submit(client, own, **fields)
    assert (status, "Allow access?" in consent) == (200, True)
    status, _, location = await submit(client, own, **fields)
    assert (status, location) == (400, "")
    status, _, location = await submit(client, own, attempt=key_in(consent), answer="")
    assert "error=access_denied" in location, "only Allow allows"


@pytest.mark.parametrize(
    ("login", "password"),
    [("", "p"), ("nobody", "p"), ("a@b@c", "p"), ("a b@c", "p"), (MAILBOX, "")],
)
async def test_an_address_and_a_password_are_needed(
    client: SandboxClient, login: str, password: str
) -> None:
    _, page, _ = await visit(client, client.url())
    status, again, _ = await submit(client, attempt=key_in(page), login=login, password=password)
    assert status == 400
    assert 'role="alert"' in again
    assert (await submit(client, attempt=key_in(again), login=MAILBOX, password="p"))[0] == 200


async def test_pages_may_do_nothing_but_answer(client: SandboxClient) -> None:
    async with client.http.get(client.url()) as response:
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "form-action 'self' http://127.0.0.1:9;" in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in response.headers
    async with client.http.get("/oauth/static/sign_in.css") as response:
        assert (response.status, response.content_type) == (200, "text/css")


async def test_a_page_of_another_host_name_is_not_shown(client: SandboxClient) -> None:
    async with client.http.get(client.url(), headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_refused_sign_ins_are_explained(client: SandboxClient) -> None:
    await visit(client, client.url(redirect_uri="https://evil.example/"))
    await client.answer(consents=False)
    reasons = [one.reason for one in client.sandbox.refusals.before(100, 100)]
    assert any("redirect_uri" in reason for reason in reasons)
    assert any("The person has refused" in reason for reason in reasons)
