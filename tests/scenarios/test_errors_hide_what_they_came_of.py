"""No error tells a secret of the request, the answer or the file that it came of."""

from __future__ import annotations

import json
import logging
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from joserfc.jwk import RSAKey

from tests.support.accounts import mailbox
from tests.support.betrayed import ALICE, CLIENTS, Office
from tests.support.planted import Planted, objects, told_by
from tests.support.token_endpoint import TokenEndpoint, answer
from tests.support.treachery import TREACHERIES
from xoauth2_proxy.errors import ProxyError, TokenError
from xoauth2_proxy.oauth.attempt import DeviceAttempt
from xoauth2_proxy.oauth.authorization import AuthorizationServer
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.encryption import GrantCipher
from xoauth2_proxy.oauth.stores.factory import open_store
from xoauth2_proxy.oauth.stores.file import FileStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    import trustme

    from tests.support.treachery import Treachery

pytestmark = pytest.mark.one_loop


async def test_what_hangs_on_an_error_is_searched(planted: Planted) -> None:
    hidden = planted.new("a code")

    def fail() -> None:
        local = hidden.upper()
        try:
            raise ValueError(hidden)
        except ValueError:
            raise TokenError(f"no {len(local)}") from None

    with pytest.raises(TokenError) as caught:
        fail()
    assert planted.leaks("".join(traceback.format_exception(caught.value))) == set()
    assert planted.leaks(told_by(caught.value)) == {"a code"}


@pytest.fixture(params=["plain", "odd"])
async def office(
    request: pytest.FixtureRequest, authority: trustme.CA, planted: Planted, tmp_path: Path
) -> AsyncIterator[Office]:
    """The endpoint and its clients; their secrets are words, or need escapes wherever written."""
    async with TokenEndpoint(authority) as endpoint:
        with ThreadPoolExecutor(2) as threads:
            yield Office(endpoint, threads, planted, tmp_path, request.param == "plain")


# Token endpoints, with each library that asks them.


def gives(body: object) -> Treachery:
    return lambda _: answer(body)


async def failure(attempt: Awaitable[object]) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await attempt
    return caught.value


@pytest.mark.parametrize("name", CLIENTS)
async def test_no_endpoint_makes_a_refresher_tell(
    office: Office, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor do the libraries log a secret, even where somebody has turned all their lines on."""
    asking = CLIENTS[name](office)
    leaks = {}
    with caplog.at_level(logging.DEBUG):
        for kind, treachery in TREACHERIES.items():
            office.betrays(asking.path, treachery)
            asked = len(office.endpoint.requests)
            told = told_by(await failure(asking.refresher.refresh(asking.grant)))
            assert len(office.endpoint.requests) > asked
            leaks[kind] = office.leaks(told)
        office.looks_around(asking.path)
        await failure(asking.refresher.refresh(asking.grant))
    assert {kind: found for kind, found in leaks.items() if found} == {}
    assert office.leaks("\n".join(office.said_by_objects)) == set()
    assert office.leaks(caplog.text) == set()


async def test_success_is_as_silent(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    said = set[str]()
    with caplog.at_level(logging.DEBUG):
        for make in CLIENTS.values():
            asking = make(office)
            body = office.endpoint.issue(
                refresh_token=office.planted.new("a new refresh token"),
                id_token=office.planted.new("an ID token"),
            )
            office.betrays(asking.path, gives(body))
            issued = await asking.refresher.refresh(asking.grant)
            assert issued.access_token == body["access_token"]
            said.update((repr(issued), *objects().split("\n")))
    assert office.leaks("\n".join(said)) == set()
    assert office.leaks(caplog.text) == set()


# Signing in.


def server_of(office: Office) -> AuthorizationServer:
    office.endpoint.metadata |= {
        name: f"{office.endpoint.url}/{name}"
        for name in ("revocation_endpoint", "userinfo_endpoint", "device_authorization_endpoint")
    }
    client = office.client(issuer=office.endpoint.url, scopes=("openid", "smtp"))
    account = replace(mailbox(ALICE), provider="oidc", refresher="oidc", oauth=client)
    return AuthorizationServer(account, office.threads)


def device(office: Office) -> DeviceAttempt:
    return DeviceAttempt(
        user_code=office.planted.new("a user code"),
        verification_uri="https://example.com/device",
        expires_in_seconds=0.2,
        interval_seconds=0.001,
        device_code=office.new("a device code"),
    )


async def finish(office: Office, server: AuthorizationServer) -> object:
    attempt = await server.begin("http://127.0.0.1:4/")
    office.planted.add("a nonce", attempt.nonce)
    office.planted.add("a state", attempt.state)
    code = office.new("a code")
    return await server.finish(attempt, {"state": attempt.state, "code": code})


async def finish_device(office: Office, server: AuthorizationServer) -> object:
    return await server.finish_device(device(office))


async def begin_device(office: Office, server: AuthorizationServer) -> object:
    return await server.begin_device()


async def revoke(office: Office, server: AuthorizationServer) -> object:
    return await server.revoke(office.new("a revoked token"))


STEPS = {
    "the code": ("/token", finish),
    "the device's code": ("/token", finish_device),
    "the device": ("/device_authorization_endpoint", begin_device),
    "revoking": ("/revocation_endpoint", revoke),
}


@pytest.mark.parametrize("name", STEPS)
async def test_no_endpoint_makes_a_sign_in_tell(
    office: Office, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, step = STEPS[name]
    server = server_of(office)
    leaks = {}
    with caplog.at_level(logging.DEBUG):
        for kind, treachery in TREACHERIES.items():
            office.betrays(path, treachery)
            try:
                told = repr(await step(office, server))  # a dead token need not be revoked
            except ProxyError as error:
                told = told_by(error)
            leaks[kind] = office.leaks(told)
        office.looks_around(path)
        await failure(step(office, server))
    assert {kind: found for kind, found in leaks.items() if found} == {}
    assert office.leaks("\n".join(office.said_by_objects)) == set()
    assert office.leaks(caplog.text) == set()


@pytest.mark.parametrize("is_jwt", [True, False])
async def test_an_id_token_that_proves_nothing_is_not_shown(office: Office, is_jwt: bool) -> None:
    id_token = office.planted.new("an ID token", is_plain=True)
    if is_jwt:
        id_token = office.planted.add("a JWT", f"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.{id_token}")
    body = office.endpoint.issue(
        id_token=id_token, refresh_token=office.planted.new("a refresh token")
    )
    office.betrays("/token", gives(body))
    key = RSAKey.generate_key(2048).as_dict(private=False)
    office.betrays("/keys", gives({"keys": [key]}))
    told = told_by(await failure(finish(office, server_of(office))))
    assert "ID token" in told
    assert office.leaks(told) == set()


async def test_userinfo_is_asked_in_silence(office: Office) -> None:
    body = office.endpoint.issue(refresh_token=office.planted.new("a refresh token"))
    office.betrays("/token", gives(body))
    server = server_of(office)
    for treachery in TREACHERIES.values():
        office.betrays("/userinfo_endpoint", treachery)
        assert office.leaks(repr(await finish(office, server))) == set()


# Stores.


async def test_a_store_shows_nothing_of_what_it_cannot_use(
    tmp_path: Path, planted: Planted
) -> None:
    grant = StoredGrant(
        refresh_token=planted.new("a refresh token"), access_token=planted.new("an access token")
    )
    (directory := tmp_path / "tokens").mkdir(mode=0o700)
    store, sealed = (
        FileStore(directory),
        FileStore(directory, GrantCipher("a-key-of-the-operator's")),
    )
    await store.save(ALICE, grant)
    (file,) = directory.glob("*.json")
    good = file.read_bytes()
    told = [repr(grant), objects()]
    for octets in (
        good.replace(b"}", b""),
        good.replace(b'"refresh_token": "', b'"refresh_token": ["'),
        good.replace(ALICE.encode(), b"bob@example.com"),
        b"\xff" + good,
        json.dumps(grant.refresh_token).encode(),
    ):
        file.write_bytes(octets)
        told.append(told_by(await failure(store.load(ALICE))))
    await sealed.save(ALICE, grant)
    assert planted.leaks(file.read_text()) == set()
    told += [told_by(await failure(store.load(ALICE)))]
    other = FileStore(directory, GrantCipher(planted.new("a key", is_plain=True) * 2))
    told += [told_by(await failure(other.load(ALICE)))]
    for one in (store, sealed, other):
        await one.close()
    assert planted.leaks("\n".join(told)) == set()


async def test_a_redis_store_shows_nothing_of_its_url(tmp_path: Path, planted: Planted) -> None:
    password = planted.new("a password", is_plain=True)
    store = open_store("redis", tmp_path, url=f"redis://user:{password}@127.0.0.1:1/0")
    told = [told_by(await failure(store.load(ALICE))), repr(store), objects()]
    await store.close()
    for url in (
        f"http://user:{password}@127.0.0.1/",
        f"redis://user:{password}@127.0.0.1:port/",
        f"redis://user:{password}@127.0.0.1/?{password}={password}",
        f"redis://user:{password}@127.0.0.1/#{password}",
        f"redis://user:{password}@redis.example/",
        f"redis://[{password}/",
        password,
    ):
        with pytest.raises(ValueError, match=r"store\.url|it ") as caught:
            open_store("redis", tmp_path, url=url)
        told.append(told_by(caught.value))
    for key in (password[:12], f"{password} , {password[:3]}"):
        with pytest.raises(ValueError, match="characters") as caught:
            open_store("file", tmp_path, key=key)
        told.append(told_by(caught.value))
    assert planted.leaks("\n".join(told)) == set()
