"""Requirement set 2, plug-ins: one test for each of its eleven rows."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, replace
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest

from tests.support.accounts import mailbox
from tests.support.acme_package import ALICE, PASSWORD, document, sign_in
from tests.support.distributions import GOOD, install
from tests.support.smtp_client import message
from xoauth2_proxy.accounts.refresher_info import RefresherInfo
from xoauth2_proxy.errors import SignInRefused
from xoauth2_proxy.oauth.attempt import Attempt
from xoauth2_proxy.oauth.grant import EpochSeconds, TokenResponse
from xoauth2_proxy.oauth.refreshers.contract import RefresherContract
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry
from xoauth2_proxy.oauth.sign_in import PendingSignIns
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.encryption import GrantCipher
from xoauth2_proxy.oauth.stores.file import FileStore
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.acme import AcmeServer
    from tests.support.command_line import CommandLine
    from tests.support.sandbox import Sandbox
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.oauth.refreshers.contract import Subject

pytest_plugins = ["tests.support.acme_fixtures"]
pytestmark = pytest.mark.one_loop


@pytest.fixture
def other_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of the import path for distributions that a test installs."""
    place = tmp_path / "other-site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("acme_of_row", None)


async def test_row_01_one_registry_finds_the_built_in_and_the_installed(
    other_site: Path, tmp_path: Path
) -> None:
    built_in = {"gmail", "outlook", "oidc", "command", "mock"}
    install(other_site, "acme-of-row", "acme_of_row", GOOD, {"acme": "acme_of_row:Acme"})
    assert RefresherRegistry(tmp_path).keys() == built_in | {"acme"}


async def test_row_02_a_refresher_is_one_class_and_touches_no_file_of_the_proxy(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    """The package has one module; the proxy of this checkout signs in and sends with it."""
    assert (await sign_in(command_line)).code == 0
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(ALICE, PASSWORD)).code == 235
        assert (await client.send(message("by acme"), "you@example.com")).code == 250


async def test_row_03_providers_and_refreshers_are_listed_with_what_they_declare(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    told = (await command_line.run("providers", "--json")).document
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    _, body = await proxy.get("/oauth/providers")
    served = json.loads(body)
    for listed in (told, served):
        declared = {one["name"]: one for one in listed["refreshers"]}["acme"]
        assert declared == {
            "name": "acme",
            "display_name": "Acme Mail",
            "description": "Mailboxes at Acme.",
            "scopes": ["mail.send"],
            "flows": ["browser", "device"],
            "uses_pkce": True,
            "kept_in": "",
            "package": "acme-xoauth2",
            "is_available": True,
            "reason": "",
        }
        assert "acme-mail" in {one["name"] for one in listed["providers"]}
    table = await command_line.run("providers")
    assert table.code == 0
    assert "Mailboxes at Acme." in table.stdout


async def test_row_04_a_sign_in_uses_pkce_with_s256(command_line: CommandLine) -> None:
    """Acme gives the key only for the verifier of the challenge that its page was opened with."""
    # RFC 7636, appendix B.
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    attempt = Attempt(state="s", redirect_uri="r", code_verifier=verifier, nonce="n")
    assert attempt.code_challenge == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert (await sign_in(command_line)).code == 0


async def test_row_05_a_store_saves_atomically_for_its_owner_only_encrypted_on_request(
    tmp_path: Path,
) -> None:
    grant = StoredGrant(refresh_token="a-refresh-token", signed_in_at=EpochSeconds(1.0))
    for cipher in (GrantCipher(), GrantCipher("a-key-of-the-operators")):
        store = FileStore(tmp_path / "tokens", cipher)
        assert await store.load(ALICE) is None
        async with store.lock(ALICE):
            await store.save(ALICE, grant)
        (file,) = (tmp_path / "tokens").glob("*.json")
        assert file.stat().st_mode & 0o777 == 0o600
        assert (b"a-refresh-token" in file.read_bytes()) is not bool(cipher)
        assert await store.load(ALICE) == grant
        await store.delete(ALICE)
        assert await store.load(ALICE) is None


async def test_row_06_the_admin_server_signs_in_lists_refreshes_and_revokes(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox, start_process: StartProcess
) -> None:
    proxy = await start_process(document(acme, provider), environ=command_line.environ)
    named = {"X-Requested-By": "test"}
    begin = f"/oauth/acme-mail/login?mailbox={ALICE}"
    jar = aiohttp.CookieJar(unsafe=True)  # for hosts that are addresses
    async with aiohttp.ClientSession(proxy.admin_url, cookie_jar=jar) as http:
        async with http.get(begin, allow_redirects=False) as begun:
            assert begun.status == 302
            page = begun.headers["Location"]
        query = parse_qs(urlsplit(page).query)
        assert query["back"] == [f"{proxy.admin_url}/oauth/acme-mail/callback"]
        async with http.post(page, data={"login": ALICE, "says": "yes"}) as landed:
            assert landed.status == 200
        async with http.get("/oauth/providers") as listed:
            assert listed.status == 200
        async with http.post(f"/accounts/{ALICE}/refresh", headers=named) as refreshed:
            assert refreshed.status == 200
        assert acme.renewals == 1
        async with http.post(f"/accounts/{ALICE}/revoke", headers=named) as revoked:
            assert revoked.status == 200
    assert acme.keys == {}


async def test_row_07_an_attempt_lives_for_five_minutes_and_answers_once(subject: Subject) -> None:
    seconds = [0.0]
    refresher = subject.refresher
    client = subject.grant(ALICE).client
    account = replace(mailbox(ALICE), refresher="acme", oauth=client)
    account = replace(account, plug_in=RefresherInfo(name="acme", origin="x", flows=("browser",)))
    with ThreadPoolExecutor(1) as threads:
        pending = PendingSignIns(threads, lambda: seconds[0])
        late = await pending.begin(account, "http://127.0.0.1:1/", refresher)
        seconds[0] = 301.0
        with pytest.raises(SignInRefused, match="more than 300 s"):
            await pending.finish({"state": late.state, "code": "a-code"})
        refused = await pending.begin(account, "http://127.0.0.1:1/", refresher)
        answer = {"state": refused.state, "error": "access_denied"}
        for reason in ("access_denied", "for the second time"):
            with pytest.raises(SignInRefused, match=reason):
                await pending.finish(answer)


async def test_row_08_a_plug_in_is_loaded_when_it_is_named_and_disabled_alone_if_it_fails(
    other_site: Path, tmp_path: Path
) -> None:
    offers = {"acme": "acme_of_row:Acme", "broken": "acme_of_row:Missing"}
    install(other_site, "acme-of-row", "acme_of_row", GOOD, offers)
    registry = RefresherRegistry(tmp_path)
    assert "acme" in registry
    assert "acme_of_row" not in sys.modules
    assert registry["broken"].fault.startswith("AttributeError")
    assert registry["acme"].fault == ""
    assert "acme_of_row" in sys.modules


async def test_row_09_credentials_are_typed_and_an_accounts_options_are_checked(
    command_line: CommandLine, acme: AcmeServer, provider: Sandbox
) -> None:
    with pytest.raises(FrozenInstanceError):
        StoredGrant().refresh_token = "another"  # type: ignore[misc]
    with pytest.raises(ValueError, match="not a grant"):
        StoredGrant.from_json({"refresh_token": 1})
    wrong = document(acme, provider)
    wrong["providers"]["acme-mail"]["options"] = {"service": acme.url, "app_key": 1}
    command_line.write(wrong)
    check = await command_line.run("check")
    assert check.code == 2
    assert "providers.acme-mail.options.app_key: must be text" in check.text


async def test_row_10_a_contract_can_be_run_against_any_refresher(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passes the package's refresher, and catches one that gives tokens of no use."""
    contract = RefresherContract()
    await contract.test_gives_an_access_token(subject)
    await contract.test_a_revoked_grant_needs_a_person(subject)

    async def refresh(_grant: Grant) -> TokenResponse:
        return TokenResponse(access_token="not a token")

    monkeypatch.setattr(subject.refresher, "refresh", refresh)
    with pytest.raises((AssertionError, ValueError, MockTokenInvalid)):
        await contract.test_gives_an_access_token(subject)


async def test_row_11_doctor_says_what_is_wrong_with_a_mailbox_and_what_to_do(
    command_line: CommandLine, acme: AcmeServer
) -> None:
    assert (await sign_in(command_line)).code == 0
    acme.keys.clear()
    doctor = await command_line.run("doctor", ALICE, "--json")
    assert doctor.code == 1
    assert "Acme has ended the key" in doctor.stdout
    assert f"login {ALICE}" in doctor.stdout
