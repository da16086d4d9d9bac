"""Requirement set 0, a benchmark with users who sign in: one test for each of its 17 rows."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import stat
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from bench.process.interruption import Interruption
from bench.sign_in import kept_clients
from bench.sign_in.authorization_server import ProviderError, SignInFailed, discover
from bench.sign_in.callback_server import CallbackServer
from bench.sign_in.clients import client_for
from bench.sign_in.request import SignInMethod, SignInRequest
from bench.targets.mailboxes import MailboxesToAdd
from bench.targets.provisioning import provisioned
from tests.benchmark.runs import command, outcome, strict_json, validate
from tests.support.beside import beside
from tests.support.chromium import system_browser
from tests.support.held_provider import HeldProvider, held_provider
from tests.support.proxy_process import ProxyProcess
from tests.support.sign_in_runs import accounts_added, assert_nothing_is_left, at, sandbox_stats
from tests.support.smtp_client import Client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import trustme

pytestmark = pytest.mark.one_loop

METADATA = "GET /.well-known/openid-configuration"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A running proxy with its sandbox; each test leaves it as it was."""
    with beside(ProxyProcess(tmp_path_factory.mktemp("proxy"), None, "--sandbox")) as process:
        yield process


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[HeldProvider]:
    async with held_provider(tmp_path / "provider") as served:
        yield served


@pytest.fixture
def provider_beside(tmp_path: Path) -> Iterator[HeldProvider]:
    """In a thread: the requests of a client block."""
    with beside(held_provider(tmp_path / "provider")) as served:
        yield served


async def visit(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url) as answer:
        return answer.status, await answer.text()


async def good_run(folder: Path, *arguments: str) -> tuple[dict[str, Any], str, str]:
    """Run to a successful end; return the document and what was printed."""
    code, out, errors = await outcome(folder, *arguments, "--output", "run.json")
    assert code == 0, out + errors
    return strict_json((folder / "run.json").read_text()), out, errors


async def test_row_01_a_callback_server_in_the_background_starts_and_stops_in_bounded_time() -> (
    None
):
    async with CallbackServer() as callback:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/callback", callback.url)
        _, writer = await asyncio.open_connection("127.0.0.1", callback.port)  # and says nothing
        async with asyncio.timeout(60):
            port = callback.port
            await callback.__aexit__(None, None, None)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()


async def test_row_02_codes_are_matched_by_state_once() -> None:
    async with CallbackServer() as callback:
        one, other = callback.expect(), callback.expect()
        assert (await visit(f"{callback.url}?code=for-other&state={other.state}"))[0] == 200
        assert (await visit(f"{callback.url}?code=again&state={other.state}"))[0] == 400
        assert (await visit(f"{callback.url}?code=for-nobody"))[0] == 400
        assert not one.has_come
        assert await other.code("issuer") == "for-other"


async def test_row_03_a_small_page_answers_and_no_code_is_shown_or_logged(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async with CallbackServer() as callback:
        good, refused = callback.expect(), callback.expect()
        status, page = await visit(f"{callback.url}?code=sesame&state={good.state}")
        assert (status, len(page) < 500) == (200, True)
        assert (await visit(f"{callback.url}?state={refused.state}"))[0] == 400
        await visit(f"{callback.url}?error=access_denied&state={refused.state}")
        with pytest.raises(SignInFailed, match="access_denied"):
            await refused.code("issuer")
        assert (await visit(f"http://127.0.0.1:{callback.port}/"))[0] == 404
    assert "sesame" not in "".join([page, caplog.text, *capfd.readouterr(), repr(good)])


async def test_row_04_discovery_names_what_is_missing_and_verifies_tls(
    provider: HeldProvider, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def discovered(issuer: str) -> object:
        return await asyncio.to_thread(
            discover, issuer, needs_registration=True, allow_remote=False
        )

    assert await discovered(provider.issuer)
    for name in ("authorization_endpoint", "token_endpoint", "registration_endpoint"):
        document = {"issuer": provider.issuer}
        others = {"authorization_endpoint", "token_endpoint", "registration_endpoint"} - {name}
        document |= dict.fromkeys(others, f"{provider.issuer}/x")
        provider.answers[METADATA] = lambda _, found=document: web.json_response(found)  # type: ignore[misc]
        with pytest.raises(ProviderError, match=f"name no {name}"):
            await discovered(provider.issuer)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    issuer = f"https://localhost:{runner.addresses[0][1]}"
    try:
        with pytest.raises(ProviderError, match="certificate verify failed"):
            await discovered(issuer)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(ProviderError, match="answers 404"):  # it is trusted now
            await discovered(issuer)
    finally:
        await runner.cleanup()


def test_row_05_a_client_is_registered_kept_in_a_private_file_and_loaded(
    provider_beside: HeldProvider, tmp_path: Path
) -> None:
    provider, said = provider_beside, list[str]()
    server = discover(provider.issuer, needs_registration=True, allow_remote=False)
    request = SignInRequest(method=SignInMethod.CODE, state_dir=tmp_path / "state")
    uri = "http://127.0.0.1:1/callback"
    first = client_for(request, server, uri, said.append, is_kept=True)
    file = kept_clients.file_of(request.state_dir, provider.issuer)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert client_for(request, server, uri, said.append, is_kept=True) == first
    assert provider.asked.count("POST /oauth/register") == 1
    file.write_text(file.read_text().replace(first.secret, "of another life"))
    assert client_for(request, server, uri, said.append, is_kept=True) != first
    assert first.secret not in "".join(said)


async def test_row_06_each_user_gets_a_mailbox_and_a_random_password_by_the_admin_api(
    proxy: ProxyProcess,
) -> None:
    async with provisioned(
        MailboxesToAdd(count=3), proxy.admin_url, Interruption(), lambda _: None
    ) as users:
        assert len({one.password for one in users}) == 3
        assert all(len(one.password) >= 24 for one in users)
        assert await accounts_added(proxy) == [one.address for one in users]
        for user in users:
            async with await Client.connect("127.0.0.1", proxy.port) as client:
                await client.ehlo()
                assert (await client.auth_plain(user.address, user.password)).code == 235
    await assert_nothing_is_left(proxy)


async def test_row_07_users_are_numbered_behind_a_prefix(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    options = at(proxy, "--accounts", "2", "--num-emails", "2")
    document, _, _ = await good_run(tmp_path, *options)
    assert document["config"]["from_emails"] == [
        f"bench_user00{number}@mock.test" for number in (1, 2)
    ]
    document, _, _ = await good_run(tmp_path, *options, "--user-prefix", "crowd")
    assert document["config"]["from_emails"][0] == "crowd_user001@mock.test"


async def test_row_08_sign_ins_are_staggered_bounded_and_enough_or_the_run_is_called_off(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    under_way = most = 0

    def begins(number: int) -> web.Response | None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        return None

    def ends(_: int) -> None:
        nonlocal under_way
        under_way -= 1

    provider.answers = {"GET /oauth/authorize": begins, "POST /oauth/token": ends}
    users = at(
        proxy, *provider.options, "--accounts", "6", "--sign-in", "code", "--num-emails", "6"
    )
    bounds = ("--stagger", "0.2", "--sign-ins-at-once", "2")
    document, _, _ = await good_run(tmp_path, *users, *bounds)
    assert document["sign_in"]["signed_in"] == 6
    assert document["sign_in"]["wall_seconds"] >= 5 * 0.2
    assert 1 <= most <= 2

    provider.answers = {"GET /oauth/authorize": lambda _: web.Response(status=503)}
    code, out, errors = await outcome(tmp_path, *users, "--min-accounts", "1")
    assert (code, out) == (1, "")
    assert "0 of 6 mailboxes could be added" in errors
    await assert_nothing_is_left(proxy)


async def test_row_09_a_user_whose_sign_in_failed_is_named_and_removed(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    refusal = web.json_response({"error": "invalid_grant"}, status=400)
    provider.answers["POST /oauth/token"] = lambda number: refusal if number == 1 else None
    users = ("--accounts", "3", "--min-accounts", "2", "--sign-in", "code", "--stagger", "0.5")
    load = ("--duration", "60", "--sign-ins-at-once", "1", "--yes")
    async with command(tmp_path, *at(proxy, *provider.options, *users, *load)) as running:
        await running.error_text("bench_user001@mock.test is not signed in: no tokens for the code")
        await running.error_text("Sending ")
        assert await accounts_added(proxy) == [
            f"bench_user00{number}@mock.test" for number in (2, 3)
        ]
        running.process.send_signal(signal.SIGINT)
        await running.end()
    assert provider.grants == (2, 2)
    await assert_nothing_is_left(proxy)


@pytest.mark.outside
async def test_row_10_users_sign_in_in_a_browser_that_is_chosen_and_shown_or_not(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    system_browser()
    options = at(proxy, "--accounts", "2", "--sign-in", "browser", "--num-emails", "2")
    document, _, _ = await good_run(tmp_path, *options, "--browser", "chromium")
    assert (document["sign_in"]["method"], document["sign_in"]["signed_in"]) == ("browser", 2)
    # A window needs a display, which this run has not.
    environment = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}
    async with command(tmp_path, *options, "--headed", environment=environment) as running:
        code, _, errors = await running.end()
    assert code == 1
    assert "chromium does not start" in errors
    await assert_nothing_is_left(proxy)


async def test_row_11_a_run_has_a_duration_a_warm_up_a_load_and_an_output(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    load = ("-d", "1", "-w", "0.5", "--workload", "baseline", "-v", "-o", "short.json")
    code, out, errors = await outcome(tmp_path, *at(proxy, "-u", "2", "--sign-in", "code", *load))
    assert code == 0, out + errors
    document = strict_json((tmp_path / "short.json").read_text())
    config = document["config"]
    assert (config["mailboxes"], config["concurrent"]) == (2, 2)
    assert (config["duration_seconds"], config["warmup_seconds"]) == (1, 0.5)
    assert config["scenario"] == "baseline"
    assert document["warmup"]["requests"] > 0
    assert document["results"]["successful"] > 0


async def test_row_12_one_result_is_the_text_and_the_json(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    users = ("--accounts", "3", "--sign-in", "code", "--num-emails", "9")
    document, out, _ = await good_run(tmp_path, *at(proxy, *users, "--html", "run.html"))
    validate(document)
    assert f"Successful:      {document['results']['successful']}\n" in out
    users_line = f"Sign-in:         {document['sign_in']['signed_in']} of 3 users (code) in "
    assert users_line in out
    assert "Users who signed in before the run (code)" in (tmp_path / "run.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_row_13_a_signal_ends_the_run_with_partial_results(
    tmp_path: Path, proxy: ProxyProcess, number: signal.Signals
) -> None:
    users = ("--accounts", "2", "--sign-in", "code", "--duration", "60", "--yes")
    async with command(tmp_path, *at(proxy, *users, "--output", "run.json")) as running:
        await running.error_text("Sending messages")
        running.process.send_signal(number)
        code, out, errors = await running.end()
    assert code == 128 + number, errors
    document = strict_json((tmp_path / "run.json").read_text())
    assert (document["partial"], document["interrupted_by"]) == (True, number.name)
    assert "LOAD TEST RESULTS (PARTIAL)" in out
    await assert_nothing_is_left(proxy)


async def test_row_14_everything_is_removed_or_listed(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    users = at(
        proxy, *provider.options, "--accounts", "2", "--sign-in", "code", "--num-emails", "2"
    )
    await good_run(tmp_path, *users)
    assert provider.grants == (2, 2)
    await assert_nothing_is_left(proxy)
    _, _, errors = await good_run(tmp_path, *users, "--no-cleanup")
    assert "These mailboxes stay" in errors
    assert "The grants of these users stay" in errors
    assert errors.count("  bench_user002@mock.test") == 2
    assert provider.grants == (4, 2)
    headers = {"X-Requested-By": "test"}
    async with aiohttp.ClientSession(proxy.admin_url, headers=headers) as http:
        await http.delete("/accounts", params={"confirm": "true"})


async def test_row_15_everything_that_is_wrong_is_listed_at_once(tmp_path: Path) -> None:
    config = tmp_path / "accounts.json"
    account = {"email": "a@b.test", "provider": "gmail", "password": "${ABSENT_PASSWORD}"}
    client = {"client_id": "${ABSENT_ID}", "client_secret": "${ABSENT_SECRET}"}
    config.write_text(json.dumps({"accounts": [account | client]}))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xoauth2_proxy", "--config", str(config), "check"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await process.communicate())[0].decode()
    assert process.returncode
    for name in ("ABSENT_PASSWORD", "ABSENT_ID", "ABSENT_SECRET"):
        assert name in told
    assert "Traceback" not in told


async def test_row_16_exit_codes_tell_success_failure_and_a_threshold_that_was_missed(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    users = at(
        proxy, *provider.options, "--accounts", "2", "--sign-in", "code", "--num-emails", "4"
    )
    await good_run(tmp_path, *users)
    code, _, _ = await outcome(tmp_path, *users, "--assert", "success>100%")
    assert code == 2
    provider.answers[METADATA] = lambda _: web.Response(status=500)
    code, out, errors = await outcome(tmp_path, *users)
    assert (code, out) == (1, "")
    assert "answers 500 without metadata" in errors
    assert "Traceback" not in errors
    await assert_nothing_is_left(proxy)


async def test_row_17_no_load_is_simulated_and_what_is_missing_ends_the_run(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    before = await sandbox_stats(proxy)
    users = ("--accounts", "2", "--sign-in", "code", "--duration", "6", "--arrival-rate", "10")
    document, _, _ = await good_run(tmp_path, *at(proxy, *users, "--concurrent", "2"))
    after = await sandbox_stats(proxy)
    results = document["results"]
    assert results["total_time_seconds"] > 5
    assert results["successful"] == after["messages_total"] - before["messages_total"] > 0
    # Without the browser's library nobody signs in, and nothing is sent.
    (tmp_path / "playwright").mkdir()
    (tmp_path / "playwright" / "__init__.py").write_text("raise ImportError")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    options = at(proxy, "--accounts", "2", "--sign-in", "browser")
    async with command(tmp_path, *options, environment={"PYTHONPATH": path}) as running:
        code, out, errors = await running.end()
    assert (code, out) == (1, "")
    assert "xoauth2-proxy[bench]" in errors
    assert (await sandbox_stats(proxy))["messages_total"] == after["messages_total"]
    await assert_nothing_is_left(proxy)
