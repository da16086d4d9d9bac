"""A refresher in a package of its own (tests/acme_plug_in), built and installed as users do it.

The program finds it by its entry point and treats it as its own: it signs people in, refreshes,
revokes, and says what is wrong.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.acme import APP_KEY, AcmeServer
from tests.support.acme_package import ALICE, PASSWORD, document, sign_in
from tests.support.command_line import CommandLine
from tests.support.distributions import install
from tests.support.smtp_client import message
from xoauth2_proxy.oauth.refreshers.contract import RefresherContract

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.sandbox import Sandbox

pytest_plugins = ["tests.support.acme_fixtures"]
pytestmark = pytest.mark.one_loop


async def test_a_mailbox_is_signed_in_sends_mail_and_is_revoked(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    command = await sign_in(command_line)
    assert command.code == 0, command.text
    assert f"Signed in: {ALICE}, as {ALICE}" in command.lines
    assert "at Acme Mail" in command.text
    assert acme.scopes == ["mail.send"]  # the plug-in declares them
    assert list(acme.keys.values()) == [ALICE]
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(ALICE, PASSWORD)).code == 235
        assert (await client.send(message("by acme"), "you@example.com")).code == 250
    assert [one.mailbox for one in provider.received] == [ALICE]
    status = await command_line.run("status", ALICE, "--json", "--url", proxy.admin_url)
    assert status.document["mailboxes"][0]["state"] == "ok"
    revoked = await command_line.run("revoke", ALICE, "--url", proxy.admin_url)
    assert revoked.code == 0, revoked.text
    assert acme.keys == {}
    status = await command_line.run("status", ALICE, "--json", "--url", proxy.admin_url)
    assert status.document["mailboxes"][0]["state"] == "sign_in_needed"
    assert f"login {ALICE}" in status.document["mailboxes"][0]["remedy"]


async def test_the_admin_page_signs_a_mailbox_in(
    acme: AcmeServer, provider: Sandbox, start_process: StartProcess, command_line: CommandLine
) -> None:
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    begin = f"{proxy.admin_url}/oauth/acme-mail/login?mailbox={ALICE}"
    jar = aiohttp.CookieJar(unsafe=True)  # for hosts that are addresses
    async with aiohttp.ClientSession(cookie_jar=jar) as http:
        async with http.get(begin) as page:
            acmes = page.url
            assert str(acmes).startswith(acme.url), await page.text()
        async with http.post(acmes, data={"login": ALICE, "says": "yes"}) as landed:
            assert landed.status == 200
            assert "signed in" in (await landed.text()).lower()
    assert command_line.grant(ALICE) is not None


async def test_a_person_who_refuses_is_told_so(command_line: CommandLine, acme: AcmeServer) -> None:
    command = await sign_in(command_line, says="no")
    assert command.code == 1
    assert "Acme Mail says access_denied" in command.text
    assert acme.keys == {}
    assert command_line.grant(ALICE) is None


async def test_a_mailbox_is_signed_in_on_another_device(
    command_line: CommandLine, acme: AcmeServer
) -> None:
    async with command_line.start("login", ALICE, "--device") as command:
        await command.says("Waiting")
        assert f"Open {acme.url}/device" in command.stdout
        acme.type_code(next(line for line in command.lines if "ACME-" in line).strip(), ALICE)
        await command.ends()
    assert command.code == 0, command.text
    assert f"Signed in: {ALICE}, as {ALICE}" in command.lines


async def test_an_address_is_copied_from_a_browser_elsewhere(
    command_line: CommandLine, acme: AcmeServer
) -> None:
    async with (
        command_line.start("login", ALICE, "--paste") as command,
        aiohttp.ClientSession() as http,
    ):
        url, form = await command.url(), {"login": ALICE, "says": "yes"}
        async with http.post(url, data=form, allow_redirects=False) as sent_back:
            redirect = sent_back.headers["Location"]
        command_line.note_code(redirect)
        await command.type(redirect)
        await command.ends()
    assert command.code == 0, command.text


async def test_a_token_is_kept_renewed_on_request_and_rotated(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    acme.rotates = True
    assert (await sign_in(command_line)).code == 0
    (first,) = acme.keys
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    async with (
        aiohttp.ClientSession(proxy.admin_url) as http,
        http.post(f"/accounts/{ALICE}/refresh", headers={"X-Requested-By": "test"}) as answer,
    ):
        assert answer.status == 200, await answer.text()
    (second,) = acme.keys
    assert second != first
    grant = command_line.grant(ALICE)
    assert grant is not None
    assert grant["refresh_token"] == second


async def test_a_grant_that_ends_at_the_provider_is_reported(
    command_line: CommandLine, acme: AcmeServer
) -> None:
    assert (await sign_in(command_line)).code == 0
    acme.keys.clear()
    token = await command_line.run("token", ALICE, "--refresh")
    assert token.code == 1
    assert f"login {ALICE}" in token.stderr
    status = (await command_line.run("status", ALICE, "--json")).document["mailboxes"][0]
    assert status["state"] == "sign_in_needed"
    assert "Acme has ended the key" in status["reason"]
    doctor = await command_line.run("doctor", ALICE)
    assert doctor.code == 1
    assert "Acme has ended the key" in doctor.text


async def test_doctor_finds_nothing_wrong_with_a_mailbox_that_works(
    command_line: CommandLine,
) -> None:
    assert (await sign_in(command_line)).code == 0
    doctor = await command_line.run("doctor", ALICE)
    assert doctor.code == 0, doctor.text
    assert "the plug-in Acme Mail of acme-xoauth2" in doctor.text


async def test_every_wrong_option_is_told_at_its_place(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox
) -> None:
    wrong = document(acme, provider)
    wrong["providers"]["acme-mail"]["options"] = {"server": "x", "service": "http://192.0.2.1/"}
    command_line.write(wrong)
    check = await command_line.run("check")
    assert check.code == 2
    assert "providers.acme-mail.options.server: unknown key; did you mean service?" in check.text
    assert "providers.acme-mail.options.service: must" in check.text
    lacking = document(acme, provider)
    lacking["providers"]["acme-mail"]["options"] = {"service": acme.url}
    command_line.write(lacking)
    check = await command_line.run("check")
    assert check.code == 2
    assert "accounts[0].options.app_key: is required" in check.text
    lacking["accounts"][0]["options"] = {"app_key": "${ACME_KEY}"}
    command_line.write(lacking)
    check = await command_line.run("check", environ={"ACME_KEY": APP_KEY})
    assert check.code == 0, check.text


async def test_the_schema_has_the_options(command_line: CommandLine) -> None:
    schema = (await command_line.run("schema")).document
    options = schema["$defs"]["AccountSection"]["properties"]["options"]
    (declared,) = options["anyOf"]
    assert declared["description"] == "Of the refresher acme."
    assert declared["properties"].keys() == {"service", "app_key"}
    assert "required" not in declared  # a provider may have one part, and an account the other


async def test_the_plug_in_is_listed_with_what_it_declares(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    status, body = await proxy.get("/oauth/providers")
    assert status == 200
    listed = json.loads(body)
    offered = {one["name"]: one for one in listed["providers"]}["acme-mail"]
    assert offered["display_name"] == "Acme Mail"
    assert offered["flows"] == ["browser", "device"]
    assert offered["scopes"] == ["mail.send"]
    declared = {one["name"]: one for one in listed["refreshers"]}["acme"]
    assert declared["description"] == "Mailboxes at Acme."
    assert declared["package"] == "acme-xoauth2"
    assert declared["uses_pkce"] is True
    assert declared["is_available"] is True
    _, page = await proxy.get("/providers")
    assert "Acme Mail" in page
    assert "/oauth/acme-mail/callback" in page


@pytest.fixture
def broken(tmp_path: Path, site: Path) -> Path:
    """Another directory with the package, whose module cannot be imported."""
    target = tmp_path / "broken-site"
    target.mkdir()
    for one in site.iterdir():
        (target / one.name).symlink_to(one)
    (target / "acme_xoauth2.py").unlink()
    (target / "acme_xoauth2.py").write_text("import a_library_that_is_missing\n")
    return target


async def test_a_broken_plug_in_is_disabled_with_its_reason_wherever_it_appears(
    command_line: CommandLine,
    acme: AcmeServer,
    provider: Sandbox,
    start_process: StartProcess,
    broken: Path,
) -> None:
    command_line.environ["PYTHONPATH"] = str(broken)
    reason = "ModuleNotFoundError: No module named 'a_library_that_is_missing'"
    both = document(acme, provider)
    host, port = provider.smtp_address
    upstream = {"host": host, "port": port, "ca_file": str(provider.ca_file)}
    other = {"email": "bob@mock.example", "provider": "mock", "password": PASSWORD}
    both["accounts"].append(other | {"upstream": upstream})
    command_line.write(both)
    check = await command_line.run("check")
    assert check.code == 0, check.text
    assert f"the refresher acme of acme-xoauth2 is disabled: {reason}" in check.text
    login = await command_line.run("login", ALICE)
    assert login.code == 2
    assert reason in login.text
    doctor = await command_line.run("doctor", ALICE)
    assert doctor.code == 1
    assert reason in doctor.text
    proxy = await start_process(both, environ=command_line.environ)
    status = await command_line.run("status", "--json", "--url", proxy.admin_url)
    states = {one["mailbox"]: one for one in status.document["mailboxes"]}
    assert states[ALICE]["state"] == "misconfigured"
    assert reason in states[ALICE]["reason"]
    assert "restart" in states[ALICE]["remedy"]
    _, body = await proxy.get("/oauth/providers")
    listed = json.loads(body)
    declared = {one["name"]: one for one in listed["refreshers"]}["acme"]
    assert (declared["is_available"], declared["reason"]) == (False, reason)
    assert reason in {one["name"]: one for one in listed["providers"]}["acme-mail"]["reason"]
    _, page = await proxy.get("/providers")
    assert "Disabled" in page
    assert "a_library_that_is_missing" in page
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain("bob@mock.example", PASSWORD)).code == 235
        assert (await client.send(message("by bob"), "you@example.com")).code == 250


VAULT = """
import json
from pathlib import Path
from xoauth2_proxy.plug_in import (
    GrantRevoked, Options, RefresherInfo, SignInResult, TokenResponse, required
)


class VaultOptions(Options):
    file: str = required("The file that is the vault.")


class Vault:
    info = RefresherInfo(
        display_name="Vault", options=VaultOptions, kept_in="the vault on this machine"
    )

    def __init__(self, threads):
        pass

    async def refresh(self, grant):
        vault = Path(grant.client.options.file)
        if not vault.exists():
            raise GrantRevoked("the vault is empty")
        return TokenResponse(access_token=vault.read_text())

    async def authorization_url(self, grant, attempt):
        return f"{attempt.redirect_uri}?state={attempt.state}&code=opened"

    async def exchange(self, grant, attempt, answer):
        Path(grant.client.options.file).write_text(answer["code"])
        return SignInResult(
            issued=await self.refresh(grant), identity=grant.mailbox, subject="", is_vouched=True
        )

    async def revoke(self, grant):
        Path(grant.client.options.file).unlink()
        return True
"""


async def test_a_plug_in_may_keep_its_credentials_itself(tmp_path: Path) -> None:
    place, vault = tmp_path / "other-site", tmp_path / "vault"
    place.mkdir()
    install(place, "vault-xoauth2", "vault_xoauth2", VAULT, {"vault": "vault_xoauth2:Vault"})
    command_line = CommandLine(tmp_path / "proxy.json", tmp_path)
    command_line.environ["PYTHONPATH"] = str(place)
    entry = {
        "refresher": "vault",
        "upstream": {"host": "127.0.0.1", "port": 1},
        "options": {"file": str(vault)},
    }
    account = {"email": ALICE, "provider": "vaults", "password": PASSWORD}
    command_line.write({"providers": {"vaults": entry}, "accounts": [account]})
    async with (
        command_line.start("login", ALICE, "--web", environ={"BROWSER": "true"}) as command,
        aiohttp.ClientSession() as http,
        http.get(await command.url()) as landed,
    ):
        assert landed.status == 200
        assert await command.ends() == 0, command.text
    assert "Kept in:   the vault on this machine" in command.lines
    assert vault.read_text() == "opened"
    assert (await command_line.run("token", ALICE)).stdout == "opened\n"
    revoked = await command_line.run("revoke", ALICE)
    assert revoked.code == 0, revoked.text
    assert not vault.exists()
    token = await command_line.run("token", ALICE)
    assert token.code == 1
    assert f"login {ALICE}" in token.stderr


NONSENSE = """
import sys
from xoauth2_proxy.plug_in import GrantRevoked, RefresherInfo, TokenResponse

class Odd:
    info = RefresherInfo(display_name="Odd")

    def __init__(self, threads):
        pass

    async def refresh(self, grant):
        {what}
"""


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("return None", "returned NoneType instead of a TokenResponse"),
        ("return {'access_token': 'x'}", "returned dict instead of a TokenResponse"),
        ("return TokenResponse(access_token=b'x')", "that is no text"),
        ("return TokenResponse(access_token='x', refresh_token=7)", "that is no text"),
        ("return TokenResponse(access_token='x\\r\\ny')", "characters that no token has"),
        ("return TokenResponse(access_token='x y')", "characters that no token has"),
        ("return TokenResponse(access_token='')", "characters that no token has"),
        ("return TokenResponse(access_token='x', lifetime_seconds='3600')", "no number"),
        ("return TokenResponse(access_token='x', lifetime_seconds=float('inf'))", "no number"),
        ("return TokenResponse(access_token='x', lifetime_seconds=-1)", "that has ended"),
        ("return 1 / 0", "failed with ZeroDivisionError in odd_xoauth2.py, line 12"),
        ("sys.exit(4)", "failed with SystemExit in odd_xoauth2.py, line 12"),
        ("raise KeyboardInterrupt", "failed with KeyboardInterrupt"),
        ("raise GrantRevoked", "the refresher gave no reason"),
    ],
)
async def test_whatever_a_plug_in_does_a_person_is_told_in_words(
    tmp_path: Path, what: str, words: str
) -> None:
    place = tmp_path / "other-site"
    place.mkdir()
    source = NONSENSE.replace("{what}", what)
    install(place, "odd-xoauth2", "odd_xoauth2", source, {"odd": "odd_xoauth2:Odd"})
    command_line = CommandLine(tmp_path / "proxy.json", tmp_path)
    command_line.environ["PYTHONPATH"] = str(place)
    entry = {"refresher": "odd", "upstream": {"host": "127.0.0.1", "port": 1}}
    account = {"email": ALICE, "provider": "odd-mail", "password": PASSWORD}
    command_line.write({"providers": {"odd-mail": entry}, "accounts": [account]})
    token = await command_line.run("token", ALICE)
    assert token.code == 1
    assert token.stdout == ""
    assert words in token.stderr
    assert "Traceback" not in token.text
    assert "internal error" not in token.text


async def test_a_mailbox_is_added_whose_provider_has_its_secret_in_a_file(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, tmp_path: Path
) -> None:
    """Files and variables are the operator's; what an added account writes itself names none."""
    (tmp_path / "app-key").write_text(APP_KEY)
    (tmp_path / "app-key").chmod(0o600)
    with_file = document(acme, provider)
    with_file["providers"]["acme-mail"]["options"]["app_key"] = {"file": "app-key"}
    with_file["accounts"] = []
    command_line.write(with_file)
    command = await sign_in(command_line, options=("--provider", "acme-mail"))
    assert command.code == 0, command.text
    assert ALICE in (await command_line.run("list")).stdout
    assert (await command_line.run("token", ALICE, "--refresh", "--info")).code == 0


class TestAcmeRefresher(RefresherContract):
    """The package keeps the contract of all refreshers."""
