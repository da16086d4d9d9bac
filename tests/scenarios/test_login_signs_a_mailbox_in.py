"""`xoauth2-proxy login` against a real identity provider, in each of its three ways."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import chromium
from tests.support.logins import DESKTOP, Login, provider_entry
from tests.support.person import Person, user_code_in
from tests.support.sign_ins import ALICE, BOB
from tests.support.waiting import until
from xoauth2_proxy.commands.sign_in_methods import SignInMethod
from xoauth2_proxy.errors import GrantRevoked
from xoauth2_proxy.oauth import sign_in
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider

    StartLogin = Callable[..., Login]

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop


@pytest.fixture
def start_login(tmp_path: Path, identity_provider: IdentityProvider) -> Iterator[StartLogin]:
    """Prepare logins of one mailbox, configured at the identity provider."""
    logins: list[Login] = []

    def start(environ: dict[str, str] | None = None, **of_provider: object) -> Login:
        document: dict[str, object] = {
            "providers": {"school": provider_entry(identity_provider, **of_provider)},
            "accounts": [{"email": ALICE, "provider": "school", "password": "opens sesame"}],
        }
        logins.append(Login(tmp_path, document))
        if environ is not None:
            logins[-1].environ = environ
        return logins[-1]

    yield start
    for one in logins:
        one.close()


async def test_on_another_device(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE))
        await until(lambda: "Waiting" in login.said)
        assert "SSH session" in login.said
        await person.approve_device(
            f"{identity_provider.issuer}/device", user_code_in(login.said), ALICE
        )
    assert running.result() == 0, login.complained
    await _is_signed_in(login)


async def test_in_a_real_browser(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    opened = asyncio.Queue[str]()
    login = start_login(DESKTOP)
    loop = asyncio.get_running_loop()

    def open_browser(url: str) -> bool:
        loop.call_soon_threadsafe(opened.put_nowait, url)
        return True

    login.open_browser = open_browser
    async with asyncio.TaskGroup() as tasks, chromium.page() as page:
        running = tasks.create_task(login.run(ALICE))
        await page.goto(await opened.get())
        assert await page.input_value("input[name=login]") == ALICE
        await page.click("button[value=login]")
        await page.click("button[value=allow]")
        await page.wait_for_url("http://127.0.0.1:*/*")
        assert await page.inner_text("h1") == "Signed in"
    assert running.result() == 0, login.complained
    assert "code_challenge_method=S256" in login.said
    await _is_signed_in(login)


async def test_by_copying_the_address(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE, method=SignInMethod.PASTE))
        login.type(await person.sign_in(await login.url_shown(), ALICE))
    assert running.result() == 0, login.complained
    await _is_signed_in(login)


async def test_what_was_signed_in_can_be_refreshed_and_given_back(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    """The stored refresh token works, is replaced with each use, and a replay ends them all."""
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        tasks.create_task(login.run(ALICE, method=SignInMethod.PASTE))
        login.type(await person.sign_in(await login.url_shown(), ALICE))
    (account,) = login.config().accounts
    kept = await login.grant(account.key)
    assert kept is not None
    with ThreadPoolExecutor(1) as threads:
        refresher = OidcRefresher(threads)
        first = Grant(mailbox=ALICE, client=account.oauth, refresh_token=kept.refresh_token)
        second = replace(first, refresh_token=(await refresher.refresh(first)).refresh_token)
        assert second.refresh_token not in ("", first.refresh_token)
        async with login.store() as store:
            await store.save(account.key, replace(kept, refresh_token=second.refresh_token))
            assert await sign_in.revoke(store, account, threads)
            assert await store.load(account.key) is None
        with pytest.raises(GrantRevoked):
            await refresher.refresh(second)


async def test_a_replayed_refresh_token_ends_the_grant(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        tasks.create_task(login.run(ALICE, method=SignInMethod.PASTE))
        login.type(await person.sign_in(await login.url_shown(), ALICE))
    (account,) = login.config().accounts
    kept = await login.grant(account.key)
    assert kept is not None
    with ThreadPoolExecutor(1) as threads:
        refresher = OidcRefresher(threads)
        first = Grant(mailbox=ALICE, client=account.oauth, refresh_token=kept.refresh_token)
        second = replace(first, refresh_token=(await refresher.refresh(first)).refresh_token)
        for dead in (first, second):
            with pytest.raises(GrantRevoked):
                await refresher.refresh(dead)


async def test_a_new_mailbox_is_added_once_its_owner_has_signed_in(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(BOB, provider="school", method=SignInMethod.PASTE))
        url = await login.url_shown()
        assert [one.email for one in login.config().accounts] == [ALICE]
        login.type(await person.sign_in(url, BOB))
    assert running.result() == 0, login.complained
    added = next(one for one in login.config().accounts if one.email == BOB)
    assert await login.grant(added.key)
    shown = login.said.partition("Password:")[2].split()[0]
    assert added.password is not None
    assert added.password.argon2_hash
    assert shown
    assert shown not in "".join(
        file.read_text() for file in (login.directory / "accounts").iterdir()
    )


async def _is_signed_in(login: Login) -> None:
    grant = await login.grant(ALICE)
    assert grant is not None
    assert grant.refresh_token
    assert grant.access_token
    assert grant.subject
    assert f"Signed in: {ALICE}, as {ALICE}" in login.said
    assert "xoauth2-proxy status" in login.said
    for secret in (grant.refresh_token, grant.access_token):
        assert secret not in login.said + login.complained
