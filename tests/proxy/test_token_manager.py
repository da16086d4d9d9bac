"""The token manager: one request for all who wait, whatever their thread, task or event loop.

Requirement set 001. What can be added is in `test_token_manager_providers`, what other processes
see in `scenarios/test_manager_and_proxy_share_a_grant`.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.support.managers import Gate, application, in_threads, joined
from tests.support.token_endpoint import FAILURES, TokenEndpoint, answer, error
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.errors import TokenEndpointUnavailable, TokenError
from xoauth2_proxy.mailboxes.interface import UnknownMailbox
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.token_manager import (
    BlockingTokenManager,
    ManagerClosed,
    SignedIn,
    Token,
    TokenManager,
    default_manager,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.token_endpoint import Answer
    from xoauth2_proxy.oauth.grant import Grant


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as running:
        yield running


@pytest.fixture
async def tokens(endpoint: TokenEndpoint) -> AsyncIterator[TokenManager]:
    async with TokenManager() as manager:
        manager.add_provider("billing", application(endpoint))
        yield manager


# One request.


async def test_tasks_and_threads_and_event_loops_share_one_request(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    gate = Gate(endpoint)
    got: list[Token] = []

    async def elsewhere() -> None:
        got.extend(await asyncio.gather(*(tokens.get_token("billing") for _ in range(10))))

    tasks = [asyncio.create_task(tokens.get_token("billing")) for _ in range(100)]
    threads = in_threads(30, lambda: got.append(tokens.blocking.get_token("billing")))
    threads += in_threads(5, lambda: asyncio.run(elsewhere()))
    assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
    gate.may_answer.set()
    got += await asyncio.gather(*tasks)
    await asyncio.to_thread(joined, threads)
    assert len(endpoint.token_requests) == 1
    assert len(got) == 180
    assert {one.access_token for one in got} == set(endpoint.issued)


async def test_a_token_that_is_there_is_given_without_a_request(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    first = await tokens.get_token("billing")
    assert await tokens.get_token("BILLING") == first
    assert await asyncio.to_thread(tokens.blocking.get_token, "billing") == first
    assert len(endpoint.token_requests) == 1


async def test_force_refresh_asks_the_provider_and_the_new_token_is_everyones(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    first = await tokens.get_token("billing")
    fresh = await tokens.get_token("billing", force_refresh=True)
    assert fresh.access_token != first.access_token
    assert (await tokens.get_token("billing")).access_token == fresh.access_token
    assert len(endpoint.token_requests) == 2


async def test_those_who_force_at_one_time_share_the_request(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    await tokens.get_token("billing")
    gate = Gate(endpoint)
    forced = [asyncio.create_task(tokens.get_token("billing", force_refresh=True))]
    assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
    forced += [asyncio.create_task(tokens.get_token("billing", True)) for _ in range(20)]
    forced.append(
        asyncio.create_task(asyncio.to_thread(tokens.blocking.get_token, "billing", True))
    )
    # The manager's loop takes calls in their order: they have joined when this one is answered.
    await asyncio.sleep(0)
    await tokens.token_info("billing")
    gate.may_answer.set()
    got = {one.access_token for one in await asyncio.gather(*forced[:-1])}
    await forced[-1]
    assert got == {endpoint.issued[1]}


async def test_a_token_that_ends_soon_is_replaced(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    endpoint.lifetime_seconds = 0.2
    first = await tokens.get_token("billing")
    await until(lambda: first.is_expired())
    endpoint.lifetime_seconds = 3600.0
    assert not (await tokens.get_token("billing")).is_expired(300.0)


async def test_a_token_tells_type_scope_and_expiry(tokens: TokenManager) -> None:
    token = await tokens.get_token("billing")
    assert (token.name, token.token_type, token.scope) == ("billing", "Bearer", "")
    assert token.authorization == f"Bearer {token.access_token}"
    ends_in = token.expires_at - datetime.now(UTC)
    assert timedelta(seconds=3000) < ends_in <= timedelta(seconds=3600)
    assert 3000 < token.remaining_seconds <= 3600
    assert (token.is_expired(300.0), token.is_expired(4000.0)) == (False, True)


async def test_a_caller_that_gives_up_takes_nothing_from_the_others(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    gate = Gate(endpoint)
    first, second = (asyncio.create_task(tokens.get_token("billing")) for _ in range(2))
    assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    gate.may_answer.set()
    assert (await second).access_token == endpoint.issued[0]
    assert len(endpoint.token_requests) == 1


# Errors.


@pytest.mark.parametrize(
    ("said", "kind", "words"), FAILURES[:16], ids=[words for *_, words in FAILURES[:16]]
)
async def test_errors_have_the_types_of_the_proxy(
    tokens: TokenManager, endpoint: TokenEndpoint, said: Answer, kind: type[TokenError], words: str
) -> None:
    person = SignedIn(client_id="a", refresh_token="rt", token_url=endpoint.token_url)
    tokens.add_provider("me", person)
    endpoint.always(said)
    with pytest.raises(kind, match=words):
        await tokens.get_token("me")
    with pytest.raises(kind, match=words):
        await asyncio.to_thread(tokens.blocking.get_token, "me")
    assert len(endpoint.token_requests) == 1, "the second attempt came too early"


async def test_the_time_after_which_a_retry_is_welcome_is_told(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    endpoint.will(answer({}, 429, {"Retry-After": "7"}))
    with pytest.raises(TokenEndpointUnavailable) as raised:
        await tokens.get_token("billing")
    assert raised.value.retry_after_seconds == 7
    assert raised.value.is_transient


async def test_callers_of_many_threads_get_errors_of_their_own(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    endpoint.always(error("invalid_client", status=401))
    errors = await asyncio.gather(
        *(tokens.get_token("billing") for _ in range(20)), return_exceptions=True
    )
    assert len({id(one) for one in errors}) == 20
    assert len(endpoint.token_requests) == 1


async def test_a_name_nobody_added_is_told_with_the_one_that_is_meant(
    tokens: TokenManager,
) -> None:
    for call in (tokens.get_token, tokens.token_info, tokens.clear_token):
        with pytest.raises(UnknownMailbox, match="did you mean billing"):
            await call("biling")


# Looking, clearing, all at once.


async def test_token_info_tells_all_but_the_token(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    before = await tokens.token_info("billing")
    assert (before.has_token, before.expires_at, before.last_error) == (False, None, "")
    token = await tokens.get_token("billing")
    info = await tokens.token_info("billing")
    assert (info.name, info.token_type, info.has_token) == ("billing", "Bearer", True)
    assert info.expires_at is not None
    assert info.refreshed_at is not None
    assert info.expires_at - info.refreshed_at == timedelta(seconds=3600)
    assert 3000 < info.remaining_seconds <= 3600
    assert token.access_token not in repr(info)
    endpoint.will(error("invalid_client", "gone", 401))
    with pytest.raises(TokenError):
        await tokens.get_token("billing", force_refresh=True)
    assert "gone" in (await tokens.token_info("billing")).last_error


async def test_a_cleared_token_is_asked_for_anew(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    first = await tokens.get_token("billing")
    await tokens.clear_token("billing")
    assert not (await tokens.token_info("billing")).has_token
    assert (await tokens.get_token("billing")).access_token != first.access_token
    await tokens.clear_token()
    assert not (await tokens.token_info("billing")).has_token


async def test_refresh_all_returns_tokens_and_errors_by_name(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    endpoint.clients = {"billing-client": "s3cret-of-the-client"}
    tokens.add_provider("Reports", application(endpoint, client_secret="wrong"))
    found = await tokens.refresh_all()
    assert tokens.list_providers() == list(found) == ["billing", "Reports"]
    assert isinstance(found["billing"], Token)
    assert isinstance(found["Reports"], TokenError)
    assert await asyncio.to_thread(tokens.blocking.refresh_all) != {}


# The end.


async def test_a_request_under_way_is_answered_although_the_manager_closes(
    endpoint: TokenEndpoint,
) -> None:
    gate = Gate(endpoint)
    tokens = TokenManager()
    tokens.add_provider("billing", application(endpoint))
    got: list[Token] = []
    waiting = asyncio.create_task(tokens.get_token("billing"))

    def wait_in_a_thread() -> None:
        with suppress(ManagerClosed):  # it came too late
            got.append(tokens.blocking.get_token("billing"))

    threads = in_threads(3, wait_in_a_thread)
    assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
    closing = asyncio.create_task(tokens.close())
    await until(lambda: tokens.is_closed)
    with pytest.raises(ManagerClosed):
        await tokens.get_token("billing")
    gate.may_answer.set()
    await asyncio.gather(closing, tokens.close())
    await asyncio.to_thread(joined, threads)
    assert {(await waiting).access_token, *(one.access_token for one in got)} == {*endpoint.issued}
    assert len(endpoint.token_requests) == 1


async def test_after_close_nothing_is_served_and_nothing_runs(endpoint: TokenEndpoint) -> None:
    before = set(threading.enumerate())
    async with TokenManager() as tokens:
        tokens.add_provider("billing", application(endpoint))
        await tokens.get_token("billing")
        assert set(threading.enumerate()) > before
    for call in (tokens.get_token("billing"), tokens.token_info("billing"), tokens.refresh_all()):
        with pytest.raises(ManagerClosed):
            await call
    with pytest.raises(ManagerClosed):
        tokens.add_provider("more", application(endpoint))
    await until(lambda: set(threading.enumerate()) <= before)


async def test_a_manager_that_was_asked_for_nothing_started_nothing(
    endpoint: TokenEndpoint,
) -> None:
    before = threading.active_count()
    async with TokenManager() as tokens:
        tokens.add_provider("billing", application(endpoint))
        assert threading.active_count() == before
    assert endpoint.connections == 0


# Threads without an event loop.


def test_the_blocking_manager_needs_no_event_loop() -> None:
    class Own:
        async def refresh(self, grant: Grant) -> TokenResponse:
            return TokenResponse(access_token=f"token of {grant.mailbox}", lifetime_seconds=60)

    with BlockingTokenManager() as tokens:
        tokens.add_provider("billing", Own())
        assert tokens.get_token("billing").access_token == "token of billing"
        assert tokens.token_info("billing").has_token
        tokens.clear_token("billing")
        assert not tokens.token_info("billing").has_token
    with pytest.raises(ManagerClosed):
        tokens.get_token("billing")


def test_a_provider_that_waits_for_its_own_manager_is_told_so() -> None:
    class Circular:
        async def refresh(self, grant: Grant) -> TokenResponse:
            return TokenResponse(access_token=manager.get_token("billing").access_token)

    with BlockingTokenManager() as manager:
        manager.add_provider("billing", Circular())
        with pytest.raises(TokenError, match="RuntimeError"):
            manager.get_token("billing")


# The default manager.


async def test_there_is_one_default_manager_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XOAUTH2_PROXY_CONFIG", raising=False)
    found = [default_manager(), await asyncio.to_thread(default_manager)]
    assert found[0] is found[1]
    await found[0].close()
    another = default_manager()
    assert another is not found[0]
    await another.close()


# Processes.


def python(script: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_starts_nothing_and_brings_no_library() -> None:
    script = """
import sys, threading, xoauth2_proxy.token_manager as imported
heavy = {"aiohttp", "authlib", "google.auth", "msal", "pydantic", "requests", "rich", "typer"}
print(threading.active_count(), sorted(heavy & sys.modules.keys()), hasattr(imported, "__all__"))
"""
    assert python(script) == "1 [] True\n"


FAILS = """
import sys
from xoauth2_proxy.token_manager import BlockingTokenManager, ClientCredentials
with BlockingTokenManager() as tokens:
    tokens.add_provider("billing", ClientCredentials(
        client_id="c", client_secret="s", token_url=sys.argv[1]))
    print(type(tokens.refresh_all()["billing"]).__name__)
"""


async def test_a_program_without_logging_is_told_by_the_error_and_nothing_is_printed(
    endpoint: TokenEndpoint,
) -> None:
    endpoint.always(error("invalid_client", status=401))
    command = [sys.executable, "-W", "error", "-c", FAILS, endpoint.token_url]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=PATIENCE_SECONDS
    )
    assert (done.stdout, done.stderr) == ("TokenEndpointRefused\n", "")


FORKED = """
import os, sys
from xoauth2_proxy.token_manager import BlockingTokenManager, ClientCredentials
tokens = BlockingTokenManager()
tokens.add_provider("billing", ClientCredentials(
    client_id="c", client_secret="s", token_url=sys.argv[1]))
parents = tokens.get_token("billing").access_token
child = os.fork()
if child == 0:
    kept = tokens.get_token("billing").access_token == parents
    new = tokens.get_token("billing", force_refresh=True).access_token != parents
    tokens.close()
    os._exit(0 if kept and new else 1)
print(os.waitpid(child, 0)[1], tokens.get_token("billing").access_token == parents)
tokens.close()
"""


async def test_a_forked_process_has_tokens_of_its_own(endpoint: TokenEndpoint) -> None:
    said = await asyncio.to_thread(python, FORKED, endpoint.token_url)
    assert said == "0 True\n"
    assert len(endpoint.token_requests) == 2


ENDS = """
import sys, threading
from xoauth2_proxy.token_manager import BlockingTokenManager, SignedIn
tokens = BlockingTokenManager(sys.argv[2])
tokens.add_provider("me", SignedIn(client_id="c", refresh_token="rt-0", token_url=sys.argv[1]))
threading.Thread(target=tokens.get_token, args=["me"], daemon=True).start()
sys.stdin.readline()
# What is registered last is called first: the interpreter has begun to end.
threading._register_atexit(print, "ending", flush=True)
"""


async def test_a_program_that_ends_meanwhile_loses_no_refresh_token(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """Each refresh token works once, and the answer to the request under way has the next one."""
    asked, may_answer = threading.Event(), threading.Event()

    def rotated(_request: object) -> Answer:
        asked.set()
        assert may_answer.wait(PATIENCE_SECONDS)
        return answer(endpoint.issue(refresh_token="rt-1"))

    endpoint.route("/token", rotated)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ENDS, endpoint.token_url, str(tmp_path / "tokens")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await asyncio.to_thread(asked.wait, PATIENCE_SECONDS)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"end\n")
        assert await process.stdout.readline() == b"ending\n"
        may_answer.set()
        assert await asyncio.wait_for(process.wait(), PATIENCE_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    (kept,) = (tmp_path / "tokens").glob("me-*.json")
    assert '"rt-1"' in kept.read_text()
