"""Credentials made and revoked while the relay runs: by its API, its pages and its files."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import TYPE_CHECKING, Any

import aiohttp
import argon2
import pytest

from tests.support.admin_visits import Answer, Browser
from tests.support.operated import FROM_FILE, Operated, administered, gmail
from xoauth2_proxy.accounts.local_password import is_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = "a-token-of-the-admin-server"
OTHER = "other@example.com"
URL = f"/accounts/{FROM_FILE}/credentials"
COPIER = {"name": "copier", "networks": ["10.0.0.0/8"], "messages_per_day": 5}


@dataclass
class Api:
    relay: Operated
    http: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str = URL, document: object = None
    ) -> tuple[int, dict[str, Any]]:
        async with self.http.request(method, path, json=document) as response:
            return response.status, json.loads(await response.text())


@asynccontextmanager
async def api_of(
    directory: Path, document: dict[str, Any] | None = None, token: str = TOKEN
) -> AsyncIterator[Api]:
    headers = {"Authorization": f"Bearer {token}"} if token else {"X-Requested-By": "a program"}
    async with (
        administered(directory, document, token=token) as (relay, url),
        aiohttp.ClientSession(url, headers=headers) as http,
    ):
        yield Api(relay, http)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with api_of(tmp_path) as one:
        yield one


def left_out(relay: Operated) -> list[str]:
    return [one for one in relay.config.warnings if "left out" in one]


def kept_files(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(one.read_text()) for one in (directory / "state/credentials").glob("*")]


async def test_a_credential_does_not_lead_to_a_sender_that_it_may_not_use(tmp_path: Path) -> None:
    document = {"accounts": [gmail(FROM_FILE) | {"from": {"rewrite": FROM_FILE}}]}
    async with api_of(tmp_path, document) as api:
        status, body = await api.ask("POST", URL, COPIER | {"senders": ["copier@example.com"]})
        (problem,) = body["problems"]
        assert (status, problem["path"]) == (400, "senders")
        assert problem["problem"].startswith(f"does not allow {FROM_FILE}")


async def test_a_credential_that_is_made_shows_its_password_once(api: Api, tmp_path: Path) -> None:
    status, body = await api.ask("POST", URL, COPIER)
    made = body["credential"]
    password = made.pop("password")
    assert status == 201
    assert made == {
        "name": "copier",
        "login": "copier",
        "proof": "key",
        "state": "usable",
        "source": "made",
        "networks": ["10.0.0.0/8"],
        "senders": [],
        "messages_per_minute": 0.0,
        "messages_per_day": 5,
        "max_connections": 0,
        "expires": None,
        "enabled": True,
    }
    status, body = await api.ask("GET")
    own, again = body["credentials"]
    assert (own["source"], own["login"], again) == ("account", FROM_FILE, made)
    (kept,) = kept_files(tmp_path)
    assert password not in json.dumps(kept)
    assert is_key(password, kept["password"])
    assert (tmp_path / "state/credentials").stat().st_mode & 0o077 == 0


async def test_what_is_made_is_in_force_at_once_and_after_a_restart(
    api: Api, tmp_path: Path
) -> None:
    await api.ask("POST", URL, COPIER)
    (in_force,) = api.relay.accounts[FROM_FILE].credentials
    async with api_of(tmp_path) as later:
        assert later.relay.accounts[FROM_FILE].credentials == (in_force,)
        assert left_out(later.relay) == []


async def test_a_password_that_a_person_chose_is_kept_as_a_hash(api: Api, tmp_path: Path) -> None:
    _, body = await api.ask("POST", URL, {"name": "copier", "password": "my own choice"})
    assert "password" not in body["credential"]
    assert body["credential"]["proof"] == "password"
    (kept,) = kept_files(tmp_path)
    assert argon2.PasswordHasher().verify(kept["password"], "my own choice")


async def test_a_credential_that_is_over_is_not_made(api: Api, tmp_path: Path) -> None:
    status, body = await api.ask("POST", URL, COPIER | {"expires": "2020-01-01"})
    problem = body["problems"][0]
    assert (status, problem["path"]) == (400, "expires")
    assert "is over already" in json.dumps(problem)
    assert kept_files(tmp_path) == []


async def test_a_credential_without_a_password_needs_networks(api: Api) -> None:
    status, body = await api.ask("POST", URL, {"name": "copier", "no_password": True})
    assert (status, body["problems"][0]["path"]) == (400, "password")
    status, body = await api.ask("POST", URL, COPIER | {"no_password": True})
    assert (status, body["credential"]["proof"]) == (201, "address")
    assert "password" not in body["credential"]


@pytest.mark.parametrize(
    ("document", "status", "path"),
    [
        ({}, 400, "name"),
        ({"name": "a b"}, 400, "name"),
        ({"name": 7}, 400, "name"),
        ([], 400, ""),
        (COPIER | {"password": "${HOME}"}, 400, "password"),
        (COPIER | {"password": {"file": "/etc/passwd"}}, 400, "password"),
        (COPIER | {"password": "$argon2id$nonsense"}, 400, "password"),
        (COPIER | {"networks": ["0.0.0.0/0"], "no_password": True}, 400, "networks"),
        (COPIER | {"no_password": 1}, 400, "no_password"),
        (COPIER | {"login": OTHER}, 400, "login"),
        (COPIER | {"name": "fax", "login": "taken"}, 400, "login"),
        (COPIER | {"name": "taken"}, 400, "name"),
        (COPIER | {"account": OTHER}, 400, "account"),
        (COPIER | {"name": "written"}, 409, None),
    ],
)
async def test_what_is_wrong_is_told_and_makes_nothing(
    tmp_path: Path, document: Any, status: int, path: str | None
) -> None:
    written = {"name": "written", "password": "x"}
    taken = {"name": "other", "login": "taken", "password": "x"}
    accounts = [gmail(FROM_FILE, credentials=[written]), gmail(OTHER, credentials=[taken])]
    async with api_of(tmp_path, {"accounts": accounts}) as api:
        answered, body = await api.ask("POST", URL, document)
        assert answered == status, body
        assert path is None or [one["path"] for one in body["problems"]] == [path]
        assert not (tmp_path / "state/credentials").exists()
        assert len(api.relay.accounts[FROM_FILE].credentials) == 1


async def test_a_revoked_credential_is_gone_for_good(api: Api, tmp_path: Path) -> None:
    await api.ask("POST", URL, COPIER)
    assert await api.ask("DELETE", f"{URL}/copier") == (
        200,
        {"success": True, "email": FROM_FILE, "revoked": "copier"},
    )
    assert api.relay.accounts[FROM_FILE].credentials == ()
    assert kept_files(tmp_path) == []
    assert (await api.ask("DELETE", f"{URL}/copier"))[0] == 404


async def test_credentials_of_the_file_are_removed_there(tmp_path: Path) -> None:
    account = gmail(FROM_FILE, credentials=[{"name": "written", "password": "x"}])
    async with api_of(tmp_path, {"accounts": [account]}) as api:
        for name in ("written", FROM_FILE):
            status, _ = await api.ask("DELETE", f"{URL}/{name}")
            assert status == 409
        assert len(api.relay.accounts[FROM_FILE].credentials) == 1


async def test_an_unknown_mailbox_has_no_credentials(api: Api) -> None:
    for method, path in (("GET", ""), ("POST", ""), ("DELETE", "/copier")):
        status, _ = await api.ask(method, f"/accounts/{OTHER}/credentials{path}", COPIER)
        assert status == 404


async def test_without_an_admin_token_nobody_gets_to_send_as_a_mailbox_of_the_file(
    tmp_path: Path,
) -> None:
    async with api_of(tmp_path, token="") as api:
        status, body = await api.ask("POST", URL, COPIER)
        assert status == 403
        assert "set admin.token" in body["error"]
        await api.ask("POST", "/accounts", gmail(OTHER))
        assert (await api.ask("POST", f"/accounts/{OTHER}/credentials", COPIER))[0] == 201


@pytest.mark.parametrize(
    ("networks", "token", "status"),
    [
        (["10.0.0.7"], "", 403),
        (["192.168.0.0/16", "10.0.0.0/7"], "", 403),
        (["192.168.0.0/16", "fd00::/8"], "", 201),
        (["10.0.0.7"], TOKEN, 201),
    ],
)
async def test_without_a_token_nobody_takes_the_devices_of_another_mailbox(
    tmp_path: Path, networks: list[str], token: str, status: int
) -> None:
    hall = {"name": "hall", "networks": ["10.0.0.0/8"]}
    document = {"accounts": [gmail(FROM_FILE, credentials=[hall])]}
    async with api_of(tmp_path, document, token=token) as api:
        await api.ask("POST", "/accounts", gmail(OTHER))
        taker = {"name": "taker", "no_password": True, "networks": networks}
        if "10.0.0.0/7" in networks:
            taker["allow_public_networks"] = True
        told, body = await api.ask("POST", f"/accounts/{OTHER}/credentials", taker)
        assert (told, FROM_FILE in str(body)) == (status, status == 403)


async def test_the_address_of_a_disabled_account_is_no_login_of_a_credential(
    tmp_path: Path,
) -> None:
    document = {"accounts": [gmail(FROM_FILE), gmail(OTHER, enabled=False)]}
    async with api_of(tmp_path, document) as api:
        status, body = await api.ask("POST", URL, COPIER | {"login": OTHER})
        assert (status, body["problems"][0]["path"]) == (400, "login")


async def test_a_mailbox_does_not_take_the_login_of_a_credential(api: Api) -> None:
    assert (await api.ask("POST", URL, COPIER | {"login": OTHER}))[0] == 201
    status, body = await api.ask("POST", "/accounts", gmail(OTHER.upper()))
    assert (status, body["error"]) == (
        409,
        f"{OTHER} is the login of the credential copier of {FROM_FILE}; revoke that first",
    )
    assert [one.login for one in api.relay.accounts[FROM_FILE].credentials] == [OTHER]
    await api.ask("DELETE", f"{URL}/copier")
    assert (await api.ask("POST", "/accounts", gmail(OTHER)))[0] == 201


async def test_the_credentials_of_a_removed_mailbox_do_not_come_back_with_it(
    api: Api, tmp_path: Path
) -> None:
    await api.ask("POST", URL, COPIER)
    await api.ask("POST", "/accounts", gmail(OTHER))
    await api.ask("POST", f"/accounts/{OTHER}/credentials", COPIER | {"name": "fax"})
    await api.ask("DELETE", f"/accounts/{OTHER}")
    assert [one["name"] for one in kept_files(tmp_path)] == ["copier"]
    await api.ask("POST", "/accounts", gmail(OTHER))
    assert api.relay.accounts[OTHER].credentials == ()


async def test_the_credentials_of_a_mailbox_that_was_removed_while_left_out_are_not_kept(
    api: Api, tmp_path: Path
) -> None:
    await api.ask("POST", "/accounts", gmail(OTHER))
    await api.ask("POST", f"/accounts/{OTHER}/credentials", COPIER | {"name": "fax"})
    as_login = {"name": "erp", "login": OTHER, "password": "opens sesame"}
    api.relay.write({"accounts": [gmail(FROM_FILE, credentials=[as_login])]})
    await api.relay.mailboxes.reload()
    assert OTHER not in api.relay.accounts
    assert (await api.ask("DELETE", f"/accounts/{OTHER}"))[0] == 200
    assert kept_files(tmp_path) == []


@pytest.mark.parametrize("is_enabled", [True, False])
async def test_the_credentials_of_a_mailbox_that_the_file_defines_too_stay(
    api: Api, tmp_path: Path, is_enabled: bool
) -> None:
    await api.ask("POST", "/accounts", gmail(OTHER))
    await api.ask("POST", f"/accounts/{OTHER}/credentials", COPIER | {"name": "fax"})
    api.relay.write({"accounts": [gmail(FROM_FILE), gmail(OTHER, enabled=is_enabled)]})
    await api.relay.mailboxes.reload()
    assert (await api.ask("DELETE", f"/accounts/{OTHER}"))[0] == 200
    assert [one["name"] for one in kept_files(tmp_path)] == ["fax"]


async def test_one_that_cannot_be_put_in_force_is_not_kept(api: Api, tmp_path: Path) -> None:
    async def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    api.relay.control.use_credentials = fails
    status, body = await api.ask("POST", URL, COPIER)
    assert (status, "No space left" in body["error"]) == (500, True)
    assert kept_files(tmp_path) == []


async def test_one_that_the_file_contradicts_by_now_is_left_out_with_a_warning(
    api: Api, tmp_path: Path
) -> None:
    await api.ask("POST", URL, COPIER)
    await api.ask("POST", URL, COPIER | {"name": "fax"})
    taken = {"name": "x", "login": "Copier", "password": "y"}
    api.relay.write({"accounts": [gmail(FROM_FILE), gmail(OTHER, credentials=[taken])]})
    await api.relay.reload()
    assert [one.name for one in api.relay.accounts[FROM_FILE].credentials] == ["fax"]
    (warning,) = left_out(api.relay)
    assert "copier is a login already" in warning


async def test_one_whose_mailbox_is_gone_is_told_and_one_of_a_disabled_mailbox_rests(
    api: Api,
) -> None:
    await api.ask("POST", URL, COPIER)
    api.relay.write({"accounts": [gmail(FROM_FILE, enabled=False), gmail(OTHER)]})
    await api.relay.reload()
    assert left_out(api.relay) == []
    api.relay.write({"accounts": [gmail(OTHER)]})
    await api.relay.reload()
    assert f"there is no mailbox {FROM_FILE}" in left_out(api.relay)[0]


async def test_files_that_cannot_be_read_keep_no_one_from_starting(
    api: Api, tmp_path: Path
) -> None:
    await api.ask("POST", URL, COPIER)
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"mailbox": 7}')):
        (tmp_path / f"state/credentials/{name}.json").write_text(text)
    await api.relay.reload()
    assert len(left_out(api.relay)) == 3
    assert len(api.relay.accounts[FROM_FILE].credentials) == 1


async def test_kept_credentials_are_encrypted_with_the_stores_key(tmp_path: Path) -> None:
    document = {"accounts": [gmail(FROM_FILE)], "store": {"key": "sixteen-letters."}}
    async with api_of(tmp_path, document) as api:
        await api.ask("POST", URL, COPIER)
        (file,) = (tmp_path / "state/credentials").iterdir()
        assert b"copier" not in file.read_bytes()
        await api.relay.reload()
        assert len(api.relay.accounts[FROM_FILE].credentials) == 1


async def test_a_posted_account_has_no_credentials_yet(api: Api) -> None:
    posted = gmail(OTHER, credentials=[{"name": "copier", "password": "x"}])
    status, body = await api.ask("POST", "/accounts", posted)
    assert (status, body["problems"][0]["path"]) == (400, "credentials")


async def test_another_sites_page_cannot_make_one(tmp_path: Path) -> None:
    async with administered(tmp_path, None) as (_, url), aiohttp.ClientSession(url) as http:
        async with http.post(URL, json=COPIER) as response:
            assert response.status == 403
        async with http.delete(f"{URL}/copier") as response:
            assert response.status == 403


# The pages.


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[tuple[Operated, Browser]]:
    async with administered(tmp_path, token=TOKEN) as (relay, url), Browser(url) as browser:
        await browser.enter(TOKEN)
        yield relay, browser


PAGE = "/mailboxes/credentials"


async def send(browser: Browser, path: str, **fields: str) -> Answer:
    csrf = (await browser.get("/mailboxes/new")).csrf
    return await browser.send(path, {"csrf": csrf, "mailbox": FROM_FILE, **fields})


def text_of(page: Answer) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", page.text)).split())


async def test_a_person_adds_a_copier_and_revokes_it(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    assert f"{PAGE}?mailbox={FROM_FILE.replace('@', '%40')}" in (await browser.get("/")).text
    page = await send(browser, f"{PAGE}/new", name="copier", proof="key", messages_per_day="5")
    assert page.status == 201
    found = re.search(r'<code id="password">([a-z2-9]{20})</code>', page.text)
    assert found
    (made,) = relay.accounts[FROM_FILE].credentials
    assert made.password is not None
    assert is_key(found[1], made.password.key_digest)
    listed = await browser.get(f"{PAGE}?mailbox={FROM_FILE}")
    assert "Generated password, user name copier" in text_of(listed)
    assert "5 messages a day" in text_of(listed)
    assert found[1] not in listed.text
    confirm = await browser.get(f"{PAGE}/revoke?mailbox={FROM_FILE}&name=copier")
    assert "Revoke copier?" in text_of(confirm)
    page = await send(browser, f"{PAGE}/revoke", name="copier")
    assert page.status == 303
    assert "Revoked: copier" in text_of(await browser.get(page.headers["Location"]))
    assert relay.accounts[FROM_FILE].credentials == ()


async def test_a_link_fills_the_form_for_a_copier_that_cannot_log_in(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    form = await browser.get(
        f"{PAGE}/new?mailbox={FROM_FILE}&name=copier&networks=10.0.0.7&proof=address"
    )
    assert 'value="10.0.0.7"' in form.text
    assert 'value="address" checked' in form.text
    page = await send(
        browser, f"{PAGE}/new", name="copier", networks="10.0.0.7, fd00::/8", proof="address"
    )
    assert "turn authentication off" in text_of(page)
    (made,) = relay.accounts[FROM_FILE].credentials
    assert made.password is None
    assert [str(one) for one in made.networks] == ["10.0.0.7/32", "fd00::/8"]


async def test_the_form_keeps_what_was_typed_and_says_what_is_wrong(
    visit: tuple[Operated, Browser],
) -> None:
    relay, browser = visit
    page = await send(
        browser,
        f"{PAGE}/new",
        name="my copier",
        networks="10.0.0.1 nonsense",
        messages_per_day="many",
        proof="key",
    )
    assert page.status == 400
    for name in ("name", "networks", "messages_per_day"):
        assert f'id="{name}-problem"' in page.text
    assert 'value="my copier"' in page.text
    assert relay.accounts[FROM_FILE].credentials == ()


async def test_what_a_page_shows_of_a_credential_is_escaped(
    visit: tuple[Operated, Browser],
) -> None:
    _, browser = visit
    await send(browser, f"{PAGE}/new", name="copier", login='<b>"x"&', proof="key")
    page = await browser.get(f"{PAGE}?mailbox={FROM_FILE}")
    assert "<b>" not in page.text
    assert '<b>"x"&' in text_of(page)


async def test_a_form_of_another_site_is_refused(visit: tuple[Operated, Browser]) -> None:
    relay, browser = visit
    page = await browser.send(f"{PAGE}/new", {"mailbox": FROM_FILE, "name": "copier"})
    assert page.status == 403
    assert relay.accounts[FROM_FILE].credentials == ()
