"""The sandbox's token endpoint, and whether its SMTP server takes what it hands out."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.sandbox.faults import TokenAction, TokenFault
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES, PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

REFRESH_TOKEN = PLAIN_REFRESH_TOKEN + MAILBOX


def bench(
    folder: Path, faults: list[dict[str, object]] | None = None, **endpoint: object
) -> Sandbox:
    document = {"token_endpoint": endpoint, "faults": faults or []}
    return Sandbox(folder, read_settings(document))


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with bench(tmp_path) as sandbox:
        yield sandbox


async def ask(
    sandbox: Sandbox, headers: dict[str, str] | None = None, /, **form: str
) -> tuple[int, dict[str, Any], aiohttp.ClientResponse]:
    """Return status, document and response of a token request."""
    async with (
        aiohttp.ClientSession(sandbox.http_url, headers=headers) as session,
        session.post("/oauth/token", data=form) as response,
    ):
        return response.status, await response.json(), response


async def renew(sandbox: Sandbox, refresh_token: str = REFRESH_TOKEN) -> tuple[int, dict[str, Any]]:
    status, body, _ = await ask(sandbox, grant_type="refresh_token", refresh_token=refresh_token)
    return status, body


async def opens(sandbox: Sandbox, token: str, mailbox: str = MAILBOX) -> bool:
    async with RawSmtp(sandbox) as client:
        await client.begin()
        return (await client.authenticate(mailbox, token)).startswith("235 ")


async def test_a_refresh_token_buys_an_access_token(sandbox: Sandbox) -> None:
    status, body, response = await ask(
        sandbox, grant_type="refresh_token", refresh_token=REFRESH_TOKEN, scope="a b"
    )
    token = body.pop("access_token")
    assert (status, body) == (200, {"token_type": "Bearer", "expires_in": 3600, "scope": "a b"})
    assert response.headers["Cache-Control"] == "no-store"
    assert await opens(sandbox, token)
    assert not await opens(sandbox, token, MOCK_MAILBOXES[1])
    assert sandbox.counters.token_requests == 1


@pytest.mark.parametrize(
    "form", [{"mailbox": MAILBOX.upper(), "client_id": "me"}, {"client_id": MAILBOX}]
)
async def test_a_client_gets_a_token_by_itself(sandbox: Sandbox, form: dict[str, str]) -> None:
    status, body, _ = await ask(sandbox, None, grant_type="client_credentials", **form)
    assert status == 200
    assert "refresh_token" not in body
    assert await opens(sandbox, body["access_token"])


async def test_a_client_must_say_for_which_mailbox(sandbox: Sandbox) -> None:
    status, body, _ = await ask(sandbox, grant_type="client_credentials", client_id="me")
    assert (status, body["error"]) == (400, "invalid_request")
    assert "mailbox" in body["error_description"]


async def test_tokens_are_good_as_long_as_it_is_set(tmp_path: Path) -> None:
    async with bench(tmp_path, ttl_seconds=0.3) as sandbox:
        _, body = await renew(sandbox)
        assert body["expires_in"] == 0.3
        assert sandbox.tokens.read(body["access_token"]).expires_at <= time.time() + 0.3


@pytest.mark.parametrize(
    "refresh_token", ["", "invented", PLAIN_REFRESH_TOKEN, "eyJhbGciOiJub25lIn0.e30."]
)
async def test_what_is_no_refresh_token_is_no_grant(sandbox: Sandbox, refresh_token: str) -> None:
    status, body = await renew(sandbox, refresh_token)
    assert (status, body["error"]) == (400, "invalid_grant")


async def test_access_and_refresh_tokens_are_not_the_same(sandbox: Sandbox) -> None:
    _, body = await renew(sandbox)
    assert (await renew(sandbox, body["access_token"]))[1]["error"] == "invalid_grant"


@pytest.mark.parametrize("grant_type", ["", "password"])
async def test_other_grants_are_unknown(sandbox: Sandbox, grant_type: str) -> None:
    status, body, _ = await ask(sandbox, grant_type=grant_type)
    assert (status, body["error"]) == (400, "unsupported_grant_type")


async def test_a_request_that_is_no_form_is_no_grant(sandbox: Sandbox) -> None:
    async with (
        aiohttp.ClientSession(sandbox.http_url) as session,
        session.post("/oauth/token", json={"grant_type": "refresh_token"}) as response,
    ):
        assert response.status == 400


# Clients.


@pytest.mark.parametrize(
    ("client", "secret", "status"),
    [("me", "s&=ü", 200), ("me", "wrong", 401), ("you", "s&=ü", 401), ("public", "", 200)],
)
@pytest.mark.parametrize("is_basic", [True, False])
async def test_known_clients_must_prove_themselves(
    tmp_path: Path, client: str, secret: str, status: int, is_basic: bool
) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}
    headers = None
    if is_basic:
        pair = base64.b64encode(
            f"{client}:{'s%26%3D%C3%BC' if secret == 's&=ü' else secret}".encode()
        )
        headers = {"Authorization": f"Basic {pair.decode()}"}
    else:
        form |= {"client_id": client, "client_secret": secret}
    async with bench(tmp_path, clients={"me": "s&=ü", "public": ""}) as sandbox:
        answered, body, response = await ask(sandbox, headers, **form)
    assert answered == status
    if status == 401:
        assert body["error"] == "invalid_client"
        assert response.headers["WWW-Authenticate"].startswith("Basic ")


async def test_a_broken_authorization_field_names_no_client(tmp_path: Path) -> None:
    async with bench(tmp_path, clients={"me": "s"}) as sandbox:
        status, _, _ = await ask(sandbox, {"Authorization": "Basic ?"}, grant_type="refresh_token")
    assert status == 401


# Rotation.


@pytest.mark.parametrize("rotation", ["lenient", "once", "strict"])
async def test_a_used_refresh_token_is_replaced(tmp_path: Path, rotation: str) -> None:
    async with bench(tmp_path, rotation=rotation) as sandbox:
        _, first = await renew(sandbox)
        status, second = await renew(sandbox, first["refresh_token"])
        assert status == 200
        assert second["refresh_token"] != first["refresh_token"]
        again, _ = await renew(sandbox, first["refresh_token"])
        assert again == (200 if rotation == "lenient" else 400)
        newest, _ = await renew(sandbox, second["refresh_token"])
        assert newest == (400 if rotation == "strict" else 200)


async def test_a_new_sign_in_outlives_a_dead_grant(tmp_path: Path) -> None:
    async with bench(tmp_path, rotation="strict") as sandbox, aiohttp.ClientSession() as session:
        assert [(await renew(sandbox))[0] for _ in range(2)] == [200, 400]
        wanted = {"mailbox": MAILBOX, "kind": "refresh"}
        async with session.post(f"{sandbox.http_url}/test/tokens", json=wanted) as response:
            refresh_token = (await response.json())["token"]
        assert (await renew(sandbox, refresh_token))[0] == 200


async def test_another_sandbox_of_the_same_state_takes_up_the_grant(tmp_path: Path) -> None:
    async with bench(tmp_path, rotation="strict") as sandbox:
        _, first = await renew(sandbox)
    async with bench(tmp_path, rotation="strict") as sandbox:
        assert (await renew(sandbox, first["refresh_token"]))[0] == 200
        assert (await renew(sandbox, first["refresh_token"]))[0] == 400


# Where it is found.


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_its_metadata_name_the_endpoint(sandbox: Sandbox, name: str) -> None:
    issuer = f"http://{name}:{sandbox.http_port}"
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{issuer}/.well-known/openid-configuration") as response,
    ):
        metadata = await response.json()
    assert metadata["issuer"] == issuer
    assert metadata["token_endpoint"] == f"{issuer}/oauth/token"


# Faults.


@pytest.mark.parametrize(
    ("action", "status", "error"),
    [
        ("429", 429, "temporarily_unavailable"),
        ("500", 500, "server_error"),
        ("503", 503, "temporarily_unavailable"),
        ("invalid_grant", 400, "invalid_grant"),
        ("invalid_client", 401, "invalid_client"),
        ("interaction_required", 400, "interaction_required"),
        ("temporarily_unavailable", 400, "temporarily_unavailable"),
    ],
)
async def test_it_refuses_on_request(
    sandbox: Sandbox, action: str, status: int, error: str
) -> None:
    sandbox.add_fault(TokenFault(TokenAction(action), retry_after_seconds=7))
    answered, body, response = await ask(
        sandbox, grant_type="refresh_token", refresh_token=REFRESH_TOKEN
    )
    assert (answered, body["error"]) == (status, error)
    assert response.headers.get("Retry-After") == ("7" if status in (429, 503) else None)
    assert (await renew(sandbox))[0] == 200
    assert sandbox.counters.faults_met == {f"token:{action}": 1}
    assert sandbox.counters.token_requests == 2


@pytest.mark.parametrize("action", ["expired", "revoked", "tampered", "wrong-mailbox"])
async def test_it_hands_out_bad_tokens_on_request(sandbox: Sandbox, action: str) -> None:
    sandbox.add_fault(TokenFault(TokenAction(action)))
    status, body = await renew(sandbox)
    assert (status, body["expires_in"]) == (200, 3600)
    assert not await opens(sandbox, body["access_token"])
    assert await opens(sandbox, (await renew(sandbox))[1]["access_token"])


async def test_garbage_is_no_json(sandbox: Sandbox) -> None:
    sandbox.add_fault(TokenFault(TokenAction.GARBAGE))
    with pytest.raises(aiohttp.ContentTypeError):
        await renew(sandbox)


@pytest.mark.parametrize(
    ("action", "error"),
    [("drop", aiohttp.ServerDisconnectedError), ("truncated", aiohttp.ClientPayloadError)],
)
async def test_it_breaks_off_on_request(
    sandbox: Sandbox, action: str, error: type[Exception]
) -> None:
    sandbox.add_fault(TokenFault(TokenAction(action)))
    with pytest.raises(error):
        await renew(sandbox)
    assert (await renew(sandbox))[0] == 200


async def test_it_answers_late_on_request(sandbox: Sandbox) -> None:
    sandbox.add_fault(TokenFault(TokenAction.DELAY, seconds=0.3))
    began = time.monotonic()
    assert (await renew(sandbox))[0] == 200
    assert time.monotonic() - began >= 0.29


async def test_a_request_that_hangs_keeps_nothing_from_ending(tmp_path: Path) -> None:
    sandbox = bench(tmp_path, [{"step": "token", "action": "hang"}])
    await sandbox.start()
    waiting = asyncio.create_task(renew(sandbox))
    await until(lambda: bool(sandbox.counters.faults_met))
    async with asyncio.timeout(PATIENCE_SECONDS):  # the request would hang for ten minutes
        await sandbox.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_one_mailboxs_or_grants_requests_can_be_chosen(tmp_path: Path) -> None:
    faults: list[dict[str, object]] = [
        {"step": "token", "action": "500", "nth": None, "mailbox": MAILBOX.upper()},
        {"step": "token", "action": "503", "nth": None, "matching": "client_credentials"},
    ]
    async with bench(tmp_path, faults) as sandbox:
        assert (await renew(sandbox))[0] == 500
        assert (await renew(sandbox, PLAIN_REFRESH_TOKEN + "b@c"))[0] == 200
        form = {"grant_type": "client_credentials", "mailbox": "b@c"}
        assert (await ask(sandbox, None, **form))[0] == 503


async def test_a_rate_of_faults_is_the_same_with_the_same_seed(tmp_path: Path) -> None:
    runs = []
    for _ in range(2):
        async with bench(tmp_path, [{"step": "token", "action": "500", "rate": 0.5}]) as sandbox:
            runs.append([(await renew(sandbox))[0] for _ in range(20)])
    assert runs[0] == runs[1]
    assert set(runs[0]) == {200, 500}


# Who may ask.


async def test_a_web_page_gets_no_token(sandbox: Sandbox) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": REFRESH_TOKEN}
    status, body, _ = await ask(sandbox, {"Origin": "http://example.com"}, **form)
    assert (status, body) == (403, {"error": "not from a web page"})
    status, _, _ = await ask(sandbox, {"Host": "example.com"}, **form)
    assert status == 403
