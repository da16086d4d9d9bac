"""Users go through the pages of the sandbox and of a provider that misbehaves, by plain HTTP."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from bench.sign_in.authorization_server import (
    ProviderError,
    Redemption,
    RegisteredClient,
    SignInFailed,
    challenge_of,
    discover,
)
from bench.sign_in.callback_server import CallbackServer
from bench.sign_in.http_visitor import HttpVisitor
from bench.sign_in.visitor import Visit
from tests.support.beside import beside
from tests.support.held_provider import HeldProvider, held_provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MAILBOX = "bench_user001@mock.test"
VERIFIER = "v" * 43
LOGIN = '<form method="post"><input name="user"><input type="password" name="p"></form>'


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[HeldProvider]:
    """In a thread: the requests of a client block."""
    with beside(held_provider(tmp_path)) as served:
        yield served


@asynccontextmanager
async def pages(*answers: web.Response) -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """Serve these responses in turn, the last again and again; yield the URL and what was sent."""
    sent: list[dict[str, str]] = []

    async def serve(request: web.Request) -> web.Response:
        sent.append({key: str(value) for key, value in (await request.post()).items()})
        answer = answers[min(len(sent), len(answers)) - 1]
        return web.Response(status=answer.status, text=answer.text, headers=answer.headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/page?state=hidden", sent
    finally:
        await runner.cleanup()


def page(text: str, status: int = 200, location: str = "") -> web.Response:
    headers = {"Location": location} if location else {}
    return web.Response(status=status, text=text, headers=headers)


async def visited(url: str, callback: CallbackServer, mailbox: str = MAILBOX) -> None:
    visit = Visit(
        url=url,
        callback_url=callback.url,
        expected=callback.expect(),
        mailbox=mailbox,
        password="pw",
    )
    async with HttpVisitor(allow_remote=False) as visitor:
        await visitor.go(visit)


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        ([page("<h1>Enable JavaScript</h1>")], r"http://127.0.0.1:\d+/page has no form"),
        ([page("broken", 500)], r"/page answers 500$"),
        ([page(LOGIN)], "does not accept the login"),
        ([page("<form><input name='user'></form>")], "no end after 20 pages"),
        ([page("", 302, "https://idp.example/login?state=hidden")], "is not on loopback"),
        ([page("", 302, "http://idp.example/login")], "must begin with https"),
        ([page("", 302, "javascript:alert(1)")], "must be a URL"),
        ([page("x" * (3 << 20))], "too long a page"),
    ],
)
async def test_a_page_that_does_not_lead_back_fails_the_user_with_the_reason(
    answers: list[web.Response], complaint: str
) -> None:
    async with CallbackServer() as callback, pages(*answers) as (url, _):
        with pytest.raises(SignInFailed, match=complaint) as failure:
            await visited(url, callback)
    assert "hidden" not in str(failure.value)


async def test_a_provider_that_cannot_be_reached_fails_the_user() -> None:
    async with CallbackServer() as callback:
        with pytest.raises(SignInFailed, match="does not answer"):
            await visited("http://127.0.0.1:1/", callback)


async def test_users_do_not_share_cookies() -> None:
    seen = []

    async def serve(request: web.Request) -> web.Response:
        seen.append(request.cookies.get("who"))
        answer = page(LOGIN if len(request.cookies) == 0 else "the end")
        answer.set_cookie("who", "somebody")
        return answer

    app = web.Application()
    app.router.add_route("*", "/", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    async with CallbackServer() as callback:
        for _ in range(2):
            with pytest.raises(SignInFailed, match="no form"):
                await visited(url, callback)
    await runner.cleanup()
    assert seen == [None, "somebody", None, "somebody"]


async def test_a_client_registers_signs_a_user_in_and_revokes(provider: HeldProvider) -> None:
    server = discover(provider.issuer, needs_registration=True, allow_remote=False)
    async with CallbackServer() as callback:
        client = server.register(callback.url, ("smtp", "offline_access"))
        assert client.secret
        assert client.secret not in repr(client)
        expected = callback.expect()
        url = server.authorization_url(
            client,
            redirect_uri=callback.url,
            scope="smtp offline_access",
            state=expected.state,
            code_challenge=challenge_of(VERIFIER),
            code_challenge_method="S256",
        )
        visit = Visit(
            url=url,
            callback_url=callback.url,
            expected=expected,
            mailbox=MAILBOX,
            password="any",
        )
        async with HttpVisitor(allow_remote=False) as visitor:
            await visitor.go(visit)
        code = await expected.code(provider.issuer)
    wrong = Redemption(code=code, verifier="w" * 43, redirect_uri=callback.url)
    assert code not in repr(wrong)
    with pytest.raises(SignInFailed, match="invalid_grant") as failure:
        server.redeem(client, wrong)
    assert code not in str(failure.value)
    token = server.redeem(
        client, Redemption(code=code, verifier=VERIFIER, redirect_uri=callback.url)
    )
    assert provider.grants == (1, 0)
    server.revoke(client, token)
    assert provider.grants == (1, 1)


def test_a_client_that_the_server_does_not_know_is_told_from_one_that_it_does(
    provider: HeldProvider,
) -> None:
    server = discover(provider.issuer, needs_registration=True, allow_remote=False)
    client = server.register("http://127.0.0.1/callback", ("smtp",))
    assert server.knows(client)
    assert not server.knows(RegisteredClient(client.client_id, "another secret"))


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("authorization_endpoint", "name no authorization_endpoint"),
        ("token_endpoint", "name no token_endpoint"),
        ("registration_endpoint", "name no registration_endpoint. Give a --client-id"),
    ],
)
def test_an_endpoint_that_the_metadata_lack_is_named(
    provider: HeldProvider, missing: str, complaint: str
) -> None:
    names = {"authorization_endpoint", "token_endpoint", "registration_endpoint"} - {missing}
    document = dict.fromkeys(names, f"{provider.issuer}/x") | {"issuer": provider.issuer}
    what = "GET /.well-known/openid-configuration"
    provider.answers[what] = lambda _: web.json_response(document)
    with pytest.raises(ProviderError, match=complaint):
        discover(provider.issuer, needs_registration=True, allow_remote=False)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"issuer": "http://127.0.0.1:1"}, "names another issuer"),
        ({"token_endpoint": "https://idp.example/token"}, "is not on loopback"),
        ({"authorization_endpoint": "http://idp.example/"}, "must begin with https"),
    ],
)
def test_metadata_that_lead_elsewhere_are_refused(
    provider: HeldProvider, changes: dict[str, str], complaint: str
) -> None:
    names = ("authorization_endpoint", "token_endpoint", "registration_endpoint")
    document = dict.fromkeys(names, f"{provider.issuer}/x") | {"issuer": provider.issuer}
    what = "GET /.well-known/openid-configuration"
    provider.answers[what] = lambda _: web.json_response(document | changes)
    with pytest.raises(ProviderError, match=complaint):
        discover(provider.issuer, needs_registration=True, allow_remote=False)


def test_an_issuer_elsewhere_needs_the_permission() -> None:
    with pytest.raises(ProviderError, match="give --allow-remote"):
        discover("https://idp.example", needs_registration=False, allow_remote=False)
    with pytest.raises(ProviderError, match="must begin with https"):
        discover("http://idp.example", needs_registration=False, allow_remote=True)
