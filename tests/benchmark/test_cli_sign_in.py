"""Users sign in before the run: in a private proxy, at a running one, and at another provider."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp import web

from tests.benchmark.runs import command, invoked, outcome, strict_json, validate
from tests.benchmark.test_cli_private_proxy import (
    assert_clean,
    is_default_target_taken,
    place,
    processes_naming,
)
from tests.support.beside import beside
from tests.support.chromium import system_browser
from tests.support.held_provider import HeldProvider, held_provider
from tests.support.proxy_process import ProxyProcess
from tests.support.sign_in_runs import assert_nothing_is_left, at
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["place"]

pytestmark = pytest.mark.one_loop

needs_the_default_port = pytest.mark.skipif(
    is_default_target_taken(), reason="something listens at 127.0.0.1:2525 already"
)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A running proxy whose sandbox issues tokens for two seconds; tests leave it as it was."""
    directory = tmp_path_factory.mktemp("proxy")
    settings = directory / "sandbox.json"
    settings.write_text(json.dumps({"token_endpoint": {"ttl_seconds": 2}}))
    options = ("--sandbox", "--sandbox-settings", str(settings))
    with beside(ProxyProcess(directory, None, *options)) as process:
        yield process


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[HeldProvider]:
    async with held_provider(tmp_path / "provider") as served:
        yield served


@pytest.fixture
def short_place(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Like `place`, at a path that is short enough for a browser's socket."""
    with tempfile.TemporaryDirectory(prefix="sb-", dir="/tmp") as temporary:
        yield {"TMPDIR": temporary, "XDG_STATE_HOME": str(tmp_path / "state")}
        assert not list(Path(temporary).iterdir())
        assert not processes_naming(temporary)


async def run(folder: Path, *arguments: str) -> tuple[dict[str, Any], str, str]:
    """Run to a successful end; return the document and what was printed."""
    code, out, errors = await outcome(folder, "--output", "run.json", *arguments)
    assert code == 0, out + errors
    document = strict_json((folder / "run.json").read_text())
    validate(document)
    return document, out, errors


async def test_mail_leaves_on_the_grants_that_users_gave_and_tokens_are_refreshed(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    options = ("--accounts", "6", "--sign-in", "code", "--concurrent", "6", "--duration", "3")
    document, out, errors = await run(
        tmp_path, *at(proxy, *options, "--connection", "per-message", "--arrival-rate", "20")
    )
    assert_clean(document, document["results"]["successful"])
    users = document["sign_in"]
    assert (users["method"], users["wanted"], users["signed_in"]) == ("code", 6, 6)
    assert users["duration"]["count"] == 6
    assert users["duration"]["p95_seconds"] >= users["duration"]["p50_seconds"] > 0
    assert users["failures"] == []
    assert document["provider"]["token_requests"] > 0  # they expired while the load ran
    assert "6 of 6 users signed in." in errors
    assert "Sign-in:         6 of 6 users (code) in " in out
    assert "P50" in out
    await assert_nothing_is_left(proxy)


async def test_refresh_tokens_that_the_sandbox_mints_are_revoked_too(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    options = ("--accounts", "30", "--sign-in", "mint", "--num-emails", "60", "--concurrent", "30")
    document, out, _ = await run(tmp_path, *at(proxy, *options))
    assert_clean(document, 60)
    assert document["sign_in"]["signed_in"] == 30
    assert document["sign_in"]["duration"]["count"] == 0
    assert "Sign-in:         30 of 30 users (mint) in " in out
    await assert_nothing_is_left(proxy)


async def test_the_registered_client_is_kept_for_the_next_run(
    tmp_path: Path, proxy: ProxyProcess
) -> None:
    options = at(proxy, "--accounts", "2", "--sign-in", "code", "--num-emails", "2")
    await run(tmp_path, *options)
    (mode,) = (one.stat().st_mode for one in (proxy.directory / "bench-clients").iterdir())
    assert stat.S_IMODE(mode) == 0o600
    _, _, errors = await run(tmp_path, *options)
    assert "Registered a client" not in errors


@needs_the_default_port
async def test_a_private_proxy_signs_its_users_in_and_leaves_nothing(
    tmp_path: Path, place: dict[str, str]
) -> None:
    options = ("--accounts", "3", "--sign-in", "code", "--num-emails", "9", "--concurrent", "3")
    async with command(tmp_path, *options, "--json", environment=place) as running:
        code, out, errors = await running.end()
    assert code == 0, errors
    document = strict_json(out)
    assert document["sign_in"]["signed_in"] == 3
    assert_clean(document, 9)


@needs_the_default_port
@pytest.mark.outside
async def test_users_sign_in_in_a_real_browser(tmp_path: Path, short_place: dict[str, str]) -> None:
    system_browser()
    options = ("--accounts", "3", "--sign-in", "browser", "--num-emails", "9", "--concurrent", "3")
    async with command(tmp_path, *options, "--json", environment=short_place) as running:
        code, out, errors = await running.end()
    assert code == 0, errors
    document = strict_json(out)
    validate(document)
    users = document["sign_in"]
    assert (users["method"], users["signed_in"], users["duration"]["count"]) == ("browser", 3, 3)
    assert_clean(document, 9)


@pytest.mark.outside
@pytest.mark.parametrize("times", [1, 2])
async def test_ctrl_c_in_the_browser_ends_it_and_leaves_nothing(
    tmp_path: Path,
    short_place: dict[str, str],
    proxy: ProxyProcess,
    provider: HeldProvider,
    times: int,
) -> None:
    system_browser()
    provider.hold("POST /oauth/authorize")
    options = at(proxy, *provider.options, "--accounts", "3", "--sign-in", "browser")
    async with command(tmp_path, *options, environment=short_place) as running:
        await provider.is_held()
        assert processes_naming(short_place["TMPDIR"])  # the browser's profile is there
        for _ in range(times):  # to all processes, as a terminal sends it
            os.killpg(running.process.pid, signal.SIGINT)
            await running.error_text("Stopping")
        code, out, errors = await running.end()
    assert (code, out) == (130, ""), errors
    assert not re.findall("Traceback|never retrieved|Error", errors)
    assert provider.grants == (0, 0)
    # After a second signal Playwright's own process ends the browser and tidies up.
    await until(lambda: not processes_naming(short_place["TMPDIR"]))
    await until(lambda: not os.listdir(short_place["TMPDIR"]))
    await assert_nothing_is_left(proxy)


# A browser that is never ready. As soon as it runs, it is as if Ctrl+C was pressed.
_IMPATIENT = """#!/bin/sh
env kill -INT -- -$(ps -o pgid= -p $PPID | tr -d ' ')
exec cat <&3 >/dev/null
"""


@pytest.mark.outside
async def test_ctrl_c_while_the_browser_starts(
    tmp_path: Path, short_place: dict[str, str], proxy: ProxyProcess
) -> None:
    browser = tmp_path / "chromium"
    browser.write_text(_IMPATIENT)
    browser.chmod(0o755)
    place = short_place | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    options = at(proxy, "--accounts", "2", "--sign-in", "browser")
    async with command(tmp_path, *options, environment=place) as running:
        code, out, errors = await running.end()
    assert (code, out) == (130, ""), errors
    assert not re.findall("Traceback|never retrieved|Error", errors)
    await until(lambda: not os.listdir(short_place["TMPDIR"]))
    await assert_nothing_is_left(proxy)


async def test_without_playwright_the_extra_is_named(tmp_path: Path, proxy: ProxyProcess) -> None:
    (tmp_path / "playwright").mkdir()
    (tmp_path / "playwright" / "__init__.py").write_text("raise ImportError")
    path = ":".join([str(tmp_path), *filter(None, sys.path)])
    options = at(proxy, "--accounts", "2", "--sign-in", "browser")
    async with command(tmp_path, *options, environment={"PYTHONPATH": path}) as running:
        code, out, errors = await running.end()
    assert (code, out) == (1, "")
    assert "pip install 'xoauth2-proxy[bench]'" in errors
    await assert_nothing_is_left(proxy)


def every_third(number: int) -> web.Response | None:
    return None if number % 3 else web.Response(status=503)


async def test_users_who_fail_are_named_and_the_others_send(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.answers["GET /oauth/authorize"] = every_third
    users = ("--accounts", "9", "--min-accounts", "5", "--sign-in", "code")
    load = ("--num-emails", "12", "--concurrent", "6")
    document, out, errors = await run(tmp_path, *at(proxy, *provider.options, *users, *load))
    assert document["results"]["successful"] == 12
    assert document["config"]["mailboxes"] == 6
    (failure,) = document["sign_in"]["failures"]
    assert failure["count"] == 3
    assert failure["reason"].endswith("/oauth/authorize answers 503")
    assert errors.count("is not signed in: ") == 3
    assert "6 of 9 mailboxes could be added" in errors
    assert f"  {failure['reason']}: 3" in out
    assert provider.grants == (6, 6)
    await assert_nothing_is_left(proxy)


async def test_too_few_users_call_the_run_off_and_leave_nothing(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.answers["GET /oauth/authorize"] = every_third
    users = ("--accounts", "9", "--min-accounts", "7", "--sign-in", "code")
    code, out, errors = await outcome(tmp_path, *at(proxy, *provider.options, *users))
    assert (code, out) == (1, "")
    assert "6 of 9 mailboxes could be added" in errors
    assert provider.grants == (6, 6)
    await assert_nothing_is_left(proxy)


async def test_a_refused_code_is_told_without_the_code(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.answers["POST /oauth/token"] = lambda _: web.json_response(
        {"error": "invalid_grant", "error_description": "no code today"}, status=400
    )
    users = ("--accounts", "2", "--sign-in", "code")
    code, _, errors = await outcome(tmp_path, *at(proxy, *provider.options, *users))
    assert code == 1
    assert (
        "bench_user002@mock.test is not signed in: no tokens for the code: invalid_grant" in errors
    )
    await assert_nothing_is_left(proxy)


async def test_users_whose_grants_are_not_known_of_are_listed(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.answers["POST /oauth/token"] = lambda _: web.Response(status=502)
    users = ("--accounts", "2", "--sign-in", "code")
    code, _, errors = await outcome(tmp_path, *at(proxy, *provider.options, *users))
    assert code == 1
    assert "is not signed in: the token endpoint answers 502 without tokens" in errors
    names = "  bench_user001@mock.test\n  bench_user002@mock.test\n"
    told = f"It is not known whether these users have a grant at {provider.issuer}, 2 of them:\n"
    assert told + names in errors


async def test_no_cleanup_lists_the_accounts_and_the_grants_that_stay(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    users = ("--accounts", "2", "--sign-in", "code", "--user-prefix", "kept", "--num-emails", "2")
    _, _, errors = await run(tmp_path, *at(proxy, *provider.options, *users, "--no-cleanup"))
    names = "\n  kept_user001@mock.test\n  kept_user002@mock.test\n"
    assert f"These mailboxes stay at {proxy.admin_url}, 2 of them:{names}" in errors
    assert f"The grants of these users stay at {provider.issuer}, 2 of them:{names}" in errors
    assert provider.grants == (2, 0)
    headers = {"X-Requested-By": "test"}
    async with aiohttp.ClientSession(proxy.admin_url, headers=headers) as http:
        for number in (1, 2):
            async with http.delete(f"/accounts/kept_user00{number}@mock.test") as response:
                assert response.status == 200


async def test_a_revocation_that_fails_is_told(
    tmp_path: Path, proxy: ProxyProcess, provider: HeldProvider
) -> None:
    provider.answers["POST /oauth/revoke"] = lambda _: web.Response(status=503)
    users = ("--accounts", "1", "--sign-in", "code", "--num-emails", "2")
    _, _, errors = await run(tmp_path, *at(proxy, *provider.options, *users))
    assert f"could not be revoked at {provider.issuer}, 1 of them:\n  bench_user001" in errors


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--sign-in", "code"), "requires --accounts"),
        (("--stagger", "1"), "requires --sign-in"),
        (("--accounts", "2", "--sign-in", "code", "--headed"), "requires --sign-in browser"),
        (("--accounts", "2", "--sign-in", "mint", "--issuer", "http://127.0.0.1:1"), "mint"),
        (("--accounts", "2", "--sign-in", "code", "--use-mock-tokens"), "own grants"),
        (("--accounts", "2", "--sign-in", "code", "--upstream", "a:1"), "requires --issuer"),
        (("--accounts", "2", "--sign-in", "code", "--issuer", "http://127.0.0.1:1"), "--upstream"),
        (
            ("--accounts", "2", "--sign-in", "code", "--issuer", "http://x", "--upstream", "x"),
            "HOST:PORT",
        ),
        (("--scenario", "storm", "--sign-in", "code"), "starts its own proxy"),
        (("--accounts", "2", "--sign-in", "telepathy"), "telepathy"),
    ],
)
def test_wrong_usage(tmp_path: Path, more: tuple[str, ...], complaint: str) -> None:
    code, _, errors = invoked(tmp_path, *more)
    assert code == 2
    assert complaint in errors


async def test_a_proxy_without_the_sandbox_needs_an_issuer(tmp_path: Path) -> None:
    directory = tmp_path / "bare"
    directory.mkdir()
    account = {"email": "a@b.test", "provider": "gmail", "password": "x"}
    async with ProxyProcess(directory, {"accounts": [account]}) as bare:
        options = at(bare, "--accounts", "2", "--sign-in", "code")
        code, _, errors = await outcome(tmp_path, *options)
    assert code == 1
    assert "--sign-in needs the sandbox, or another --issuer" in errors
