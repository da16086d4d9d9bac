"""`xoauth2-proxy login` as a process: each way to sign in, and each way out of it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.support import chromium
from tests.support.command_line import CommandLine
from tests.support.identity_server import CONFIDENTIAL
from tests.support.logins import DESKTOP, HEADLESS, provider_entry
from tests.support.person import Person, user_code_in
from tests.support.sign_ins import ALICE, BOB
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.command_line import Command
    from tests.support.identity_server import IdentityProvider
    from tests.support.proxy_process import ProxyProcess

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

PASSWORD = "opens sesame"
GOOGLE_SCOPE = "https://mail.google.com/"


@pytest.fixture
def document(identity_provider: IdentityProvider) -> dict[str, object]:
    """Alice's mailbox, and two providers to choose from."""
    secret = identity_provider.secret(CONFIDENTIAL)
    school = provider_entry(identity_provider, client_id=CONFIDENTIAL, client_secret=secret)
    google = school | {"refresher": "gmail", "scopes": GOOGLE_SCOPE}
    return {
        "providers": {"school": school, "google": google},
        "accounts": [{"email": ALICE, "provider": "school", "password": PASSWORD}],
    }


@pytest.fixture
def command_line(
    document: dict[str, object], tmp_path: Path, identity_provider: IdentityProvider
) -> Iterator[CommandLine]:
    """A command line; no command that a test ran showed a secret."""
    made = CommandLine(tmp_path / "proxy.json", tmp_path)
    made.secrets.add(identity_provider.secret(CONFIDENTIAL))
    made.write(document)
    yield made
    assert made.leaked() == []


def assert_signed_in(command_line: CommandLine, command: Command, mailbox: str = ALICE) -> None:
    assert command.code == 0, command.text
    assert f"Signed in: {mailbox}, as {mailbox}" in command.lines
    assert command.lines[-1] == f"Next:      {command_line.program} status"
    grant = command_line.grant(mailbox)
    assert grant is not None
    assert grant["refresh_token"]
    assert grant["access_token"]


async def paste(
    command_line: CommandLine, command: Command, provider: IdentityProvider, mailbox: str = ALICE
) -> int:
    """Sign in on another machine and copy the address; return the exit code."""
    async with Person(provider) as person:
        redirect = await person.sign_in(await command.url(), mailbox)
    command_line.note_code(redirect)
    await command.type(redirect)
    return await command.ends()


async def test_on_another_device(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    async with command_line.start("login", ALICE, "--device") as command:
        await command.says("Waiting")
        page = f"{identity_provider.issuer}/device"
        assert page in command.stdout
        async with Person(identity_provider) as person:
            await person.approve_device(page, user_code_in(command.stdout), ALICE)
        await command.ends()
    assert_signed_in(command_line, command)


@pytest.mark.outside
async def test_in_the_browser_that_the_environment_names(
    command_line: CommandLine, tmp_path: Path
) -> None:
    browser, handed = tmp_path / "browser", tmp_path / "handed-over"
    browser.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" > {handed}.part\nmv {handed}.part {handed}')
    browser.chmod(0o700)
    environ = {"BROWSER": str(browser)}
    async with (
        command_line.start("login", ALICE, "--web", environ=environ) as command,
        chromium.page() as page,
    ):
        await until(handed.exists)
        url = handed.read_text().strip()
        assert url == await command.url()  # for whoever sees no page
        page.on("request", lambda request: note(command_line, request.url))
        await page.goto(url)
        await page.click("button[value=login]")
        await page.click("button[value=allow]")
        await page.wait_for_url("http://127.0.0.1:*/*")
        assert await page.inner_text("h1") == "Signed in"
        await command.ends()
    assert_signed_in(command_line, command)
    assert len(command_line.secrets) == 4, "the code was not noticed"


def note(command_line: CommandLine, url: str) -> None:
    if "?code=" in url:
        command_line.note_code(url)


async def test_in_an_ssh_session_it_says_which_way_it_chose_and_why(
    command_line: CommandLine,
) -> None:
    async with command_line.start("login", ALICE, environ=HEADLESS) as command:
        await command.says("Waiting")
    assert command.lines[1] == (
        "This is an SSH session, so you sign in on any device that has a browser."
    )


async def test_without_a_screen_google_is_signed_in_by_copying(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    words = ("login", BOB, "--provider", "google")
    async with command_line.start(*words) as command:
        await paste(command_line, command, identity_provider, BOB)
    assert command.lines[1] == (
        "This machine has no display, and Google's device flow grants no scope for mail, so you "
        "copy an address from a browser elsewhere."
    )
    assert command.code == 0, command.text


async def test_on_a_desktop_the_browser_opens(command_line: CommandLine, tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path)}  # no browser is there to be opened
    async with command_line.start("login", ALICE, environ=DESKTOP | nothing) as command:
        assert "redirect_uri=http" in await command.url()
    assert command.lines[1] == "Your browser opens; sign in there."
    assert "If no page appears" in command.lines[2]


async def test_somebody_else_is_refused_by_both_names_and_nothing_is_kept(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    async with command_line.start("login", ALICE, "--paste") as command:
        assert await paste(command_line, command, identity_provider, BOB) == 1
    assert BOB in command.stderr
    assert ALICE in command.stderr
    assert "Signed in" not in command.stdout
    assert command_line.grant(ALICE) is None
    assert command_line.grant(BOB) is None


@pytest.mark.parametrize("way", ["--web", "--device", "--paste"])
async def test_ctrl_c_ends_the_wait_without_a_fuss(command_line: CommandLine, way: str) -> None:
    environ = {"BROWSER": "true"}
    async with command_line.start("login", ALICE, way, environ=environ) as command:
        await command.says("Waiting" if way == "--device" else "\n\n  https://")
        command.interrupt()
        assert await command.ends() == 130
    assert command.stderr == f"xoauth2-proxy: interrupted; {ALICE} was not signed in\n"
    assert command_line.grant(ALICE) is None


async def test_the_end_of_the_input_is_an_answer(command_line: CommandLine) -> None:
    command = await command_line.ask("login", ALICE, "--paste")
    assert command.code == 1
    assert "nothing was pasted" in command.stderr


# A mailbox that is not configured.


async def test_an_unknown_mailbox_is_told_how_to_add_it(command_line: CommandLine) -> None:
    command = await command_line.ask("login", "alcie@example.com")
    assert command.code == 2
    assert f"did you mean {ALICE}?" in command.stderr.lower()
    adding = f"{command_line.program} login alcie@example.com --provider NAME"
    assert adding in command.stderr


async def test_a_provider_that_there_is_not_is_no_problem_of_the_file(
    command_line: CommandLine,
) -> None:
    command = await command_line.ask("login", BOB, "--provider", "shool")
    assert command.code == 2
    assert command.stderr.startswith("xoauth2-proxy: 1 problem:\n  --provider: there is no shool")
    assert "school" in command.stderr


async def test_a_new_mailbox_is_served_after_sighup_with_the_password_shown(
    command_line: CommandLine,
    start_process: StartProcess,
    document: dict[str, object],
    identity_provider: IdentityProvider,
) -> None:
    proxy = await start_process(document)
    async with command_line.start("login", BOB, "--provider", "school", "--paste") as command:
        await paste(command_line, command, identity_provider, BOB)
    assert command.code == 0, command.text
    password = next(line for line in command.lines if line.startswith("Password:")).split()[1]
    assert "SIGHUP" in command.stdout
    assert await auth(proxy, BOB, password) == 535  # it is not known yet

    proxy.signal(signal.SIGHUP)
    await until(lambda: "configuration read again" in proxy.stderr)
    assert await auth(proxy, BOB, "guess") == 535
    assert await auth(proxy, BOB, password) == 235
    everywhere = [proxy.stdout, proxy.stderr]
    everywhere += [path.read_text() for path in command_line.state_dir.rglob("*.json")]
    assert password not in "".join(everywhere)
    assert command_line.leaked(proxy.stdout, proxy.stderr) == []


async def auth(proxy: ProxyProcess, mailbox: str, password: str) -> int:
    async with await proxy.connect() as client:
        await client.ehlo()
        return (await client.auth_plain(mailbox, password)).code


# What is refused before a person has done anything.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((ALICE, "--web", "--paste"), "choose one of --web, --device and --paste"),
        ((BOB, "--provider", "google", "--device"), "grants no scope for mail; use --paste"),
        ((ALICE, "--provider", "google"), "is configured as one of school"),
        ((), "Missing argument 'MAILBOX'"),
    ],
)
async def test_what_cannot_be_is_wrong_usage(
    command_line: CommandLine, words: tuple[str, ...], told: str
) -> None:
    command = await command_line.ask("login", *words)
    assert command.code == 2
    assert told in command.text
    assert command.stdout == ""


async def test_gmail_as_it_is_built_in_has_no_device_flow_either(
    command_line: CommandLine, document: dict[str, object]
) -> None:
    mailbox = {"email": "someone@gmail.com", "provider": "gmail", "client_id": "id"}
    accounts = [mailbox | {"client_secret": "GOCSPX-client-secret-4Hj2", "password": PASSWORD}]
    command_line.write(document | {"accounts": accounts})
    command_line.secrets.add("GOCSPX-client-secret-4Hj2")
    # Nothing is asked of Google: its addresses are built in.
    command = await command_line.ask("login", "someone@gmail.com", "--device")
    assert command.code == 2
    assert "Google's device flow grants no scope for mail; use --paste" in command.text


async def test_the_store_of_another_user_is_not_written_into(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Root could; but then the proxy, which runs as that user, could not read what is there."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    tokens = tmp_path / "tokens"
    tokens.mkdir(mode=0o700)
    os.chown(tokens, 65_534, 65_534)
    for command in [await command_line.ask(*words) for words in (("login", ALICE), ("status",))]:
        assert command.code == 2
        assert f"{tokens} belongs to nobody" in command.stderr
        assert "sudo -u nobody xoauth2-proxy" in command.stderr
    assert list(tokens.iterdir()) == []


async def test_a_store_that_fails_is_told_before_a_person_signs_in(
    command_line: CommandLine, document: dict[str, object], unused_tcp_port: int
) -> None:
    url = f"redis://:a-redis-password-8Kd2@127.0.0.1:{unused_tcp_port}"
    command_line.write(document | {"store": {"kind": "redis", "url": url}})
    command_line.secrets.add("a-redis-password-8Kd2")
    command = await command_line.ask("login", ALICE, "--paste")
    assert command.code == 1
    assert f"{ALICE} was not signed in" in command.stderr
    assert "https://" not in command.stdout


async def test_a_terminal_without_unicode_is_no_reason_to_fail(command_line: CommandLine) -> None:
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    for words in (("login", ALICE, "--paste"), ("status",), ("doctor", ALICE)):
        command = await command_line.run(*words, environ=ascii_only)
        assert command.code == 1
        assert "Traceback" not in command.stderr
        assert ALICE in command.stdout
