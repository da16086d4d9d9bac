"""`xoauth2-proxy login` when somebody else signs in, says no, or asks for what cannot be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.identity_server import APPLICATION
from tests.support.logins import DESKTOP, Login, provider_entry
from tests.support.person import Person, user_code_in
from tests.support.sign_ins import ALICE, BOB
from tests.support.waiting import until
from xoauth2_proxy.commands.sign_in_methods import SignInMethod
from xoauth2_proxy.errors import ConfigError

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

    def start(more: dict[str, object] | None = None, **of_provider: object) -> Login:
        document: dict[str, object] = {
            "providers": {"school": provider_entry(identity_provider, **of_provider)},
            "accounts": [{"email": ALICE, "provider": "school", "password": "opens sesame"}],
        }
        logins.append(Login(tmp_path, document | (more or {})))
        return logins[-1]

    yield start
    for one in logins:
        one.close()


async def test_somebody_else_is_refused_with_both_names(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE, method=SignInMethod.PASTE))
        login.type(await person.sign_in(await login.url_shown(), BOB))
    assert running.result() == 1
    assert BOB in login.complained
    assert ALICE in login.complained
    assert await login.grant(ALICE) is None


async def test_the_browser_is_told_why_a_sign_in_failed(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login()
    login.environ = dict(DESKTOP)
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE))
        redirect = await person.sign_in(await login.url_shown(), BOB)
        stranger, _ = await person.visit(redirect.replace("state=", "state=x"))
        assert stranger == 400
        assert not running.done()
        status, page = await person.visit(redirect)
    assert running.result() == 1
    assert status == 400
    assert BOB in page
    assert await login.grant(ALICE) is None


@pytest.mark.parametrize("method", [SignInMethod.WEB, SignInMethod.DEVICE, SignInMethod.PASTE])
async def test_a_person_who_says_no_is_heard(
    start_login: StartLogin, identity_provider: IdentityProvider, method: SignInMethod
) -> None:
    login = start_login()
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE, method=method))
        if method is SignInMethod.DEVICE:
            await until(lambda: "Waiting" in login.said)
            page = f"{identity_provider.issuer}/device"
            await person.approve_device(page, user_code_in(login.said), ALICE, consents=False)
        else:
            end = await person.sign_in(await login.url_shown(), ALICE, consents=False)
            if method is SignInMethod.PASTE:
                login.type(end)
            else:
                await person.visit(end)
    assert running.result() == 1
    assert "declined" in login.complained
    assert await login.grant(ALICE) is None


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        ("http://127.0.0.1:4/?code=c&state=of-another", "its state is not ours"),
        ("https://mail.example/inbox?folder=1", "it holds no code"),
        ("", "nothing was pasted"),
        ("made-up-code", "does not accept the code"),
    ],
)
async def test_a_wrong_address_is_not_taken(
    start_login: StartLogin, pasted: str, words: str
) -> None:
    login = start_login()
    login.type(pasted)
    assert await login.run(ALICE, method=SignInMethod.PASTE) == 1
    assert words in login.complained
    assert await login.grant(ALICE) is None


async def test_googles_device_flow_is_not_offered(start_login: StartLogin) -> None:
    login = start_login(refresher="gmail", scopes="https://mail.google.com/")
    assert await login.run(ALICE, method=SignInMethod.DEVICE) == 2
    assert "grants no scope for mail" in login.complained
    assert "--paste" in login.complained


async def test_google_without_a_display_is_signed_in_by_copying(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login(refresher="gmail", scopes="https://mail.google.com/")
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE))
        login.type(await person.sign_in(await login.url_shown(), ALICE))
    assert running.result() == 0, login.complained
    assert "Google's device flow grants no scope for mail" in login.said


async def test_a_mailbox_that_is_not_configured_needs_a_provider(start_login: StartLogin) -> None:
    login = start_login()
    assert await login.run(BOB) == 2
    assert "--provider" in login.complained


async def test_a_new_mailbox_of_an_unknown_provider_is_a_problem_of_the_configuration(
    start_login: StartLogin,
) -> None:
    with pytest.raises(ConfigError, match="provider"):
        await start_login().run(BOB, provider="scholl")


async def test_another_provider_than_the_configured_one_is_refused(
    start_login: StartLogin,
) -> None:
    login = start_login()
    assert await login.run(ALICE, provider="gmail") == 2
    assert "school" in login.complained


async def test_of_a_new_mailbox_that_was_not_signed_in_nothing_stays(
    start_login: StartLogin,
) -> None:
    login = start_login()
    login.type("")
    assert await login.run(BOB, provider="school", method=SignInMethod.PASTE) == 1
    assert [one.email for one in login.config().accounts] == [ALICE]
    assert not (login.directory / "accounts").exists()


async def test_a_store_that_nobody_shares_is_of_no_use(start_login: StartLogin) -> None:
    login = start_login({"store": {"kind": "memory"}})
    assert await login.run(ALICE) == 2
    assert "memory" in login.complained


async def test_an_application_of_its_own_right_needs_no_person(
    start_login: StartLogin, identity_provider: IdentityProvider
) -> None:
    login = start_login(
        grant="client_credentials",
        client_id=APPLICATION,
        client_secret=identity_provider.secret(APPLICATION),
    )
    assert await login.run(ALICE) == 2
    assert "client_credentials" in login.complained


async def test_a_person_without_a_name_is_tried_at_the_mail_server(
    start_login: StartLogin, identity_provider: IdentityProvider, unused_tcp_port: int
) -> None:
    identity_provider.set(identity_in="none")
    upstream = {"host": "localhost", "port": unused_tcp_port, "tls": "none"}
    login = start_login(upstream=upstream)
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        running = tasks.create_task(login.run(ALICE, method=SignInMethod.PASTE))
        login.type(await person.sign_in(await login.url_shown(), ALICE))
    assert running.result() == 1
    assert str(unused_tcp_port) in login.complained
    assert await login.grant(ALICE) is None
