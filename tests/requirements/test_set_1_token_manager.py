"""Requirement set 1, the token manager: one test or more for each of its fourteen rows."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.command_line import CommandLine
from tests.support.managers import CLIENT_SECRET, Gate, application, in_threads, joined
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.smtp_client import message
from tests.support.token_endpoint import TokenEndpoint, answer, error
from tests.support.token_mail import mailbox_of, provider_at, school, token_mail
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.errors import (
    ConfigError,
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher
from xoauth2_proxy.token_manager import (
    Microsoft,
    SignedIn,
    Token,
    TokenManager,
    default_manager,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.scenarios.conftest import StartProcess
    from tests.support.token_endpoint import Answer, Request
    from xoauth2_proxy.oauth.grant import Grant

pytestmark = pytest.mark.one_loop

ADMIN = {"token": "a token of the admin", "serves_tokens": True}
BEARER = {"Authorization": "Bearer a token of the admin"}


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as running:
        yield running


@pytest.fixture
async def tokens(endpoint: TokenEndpoint) -> AsyncIterator[TokenManager]:
    async with TokenManager() as manager:
        manager.add_provider("billing", application(endpoint))
        yield manager


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path / "proxy.json", tmp_path)


def document_of(endpoint: TokenEndpoint, **changes: object) -> dict[str, Any]:
    """Return a proxy's configuration with one mailbox of an application at this endpoint."""
    own = {"grant": "client_credentials", "client_secret": CLIENT_SECRET, "scopes": "mail"}
    provider = provider_at(endpoint.token_url, 2600, **(own | changes))
    return school(provider, mailbox_of()) | {"admin": ADMIN}


def person_at(endpoint: TokenEndpoint, **changes: Any) -> SignedIn:
    """Return a provider that asks this endpoint for a person who signed in."""
    asked = {"client_id": "c", "refresh_token": "rt-1", "token_url": endpoint.token_url}
    return SignedIn(**asked | changes)


async def test_row_01_a_manager_adds_gets_describes_clears_refreshes_lists_and_closes(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    tokens.add_provider("reports", application(endpoint))
    assert tokens.list_providers() == ["billing", "reports"]
    first = await tokens.get_token("billing")
    forced = await tokens.get_token("billing", force_refresh=True)
    assert [first.access_token, forced.access_token] == endpoint.issued
    await tokens.get_token("reports")
    await tokens.clear_token("billing")
    known = [(await tokens.token_info(name)).has_token for name in tokens.list_providers()]
    assert known == [False, True]
    await tokens.clear_token()
    assert not (await tokens.token_info("reports")).has_token
    refreshed = await tokens.refresh_all()
    assert list(refreshed) == ["billing", "reports"]
    got = {one.access_token for one in refreshed.values() if isinstance(one, Token)}
    assert got == {*endpoint.issued[3:]}
    assert len(got) == 2
    await tokens.close()
    with pytest.raises(TokenError, match="closed"):
        await tokens.get_token("billing")


async def test_row_01_manager_command_and_admin_server_give_out_one_token(
    start_process: StartProcess,
    endpoint: TokenEndpoint,
    command_line: CommandLine,
    tmp_path: Path,
) -> None:
    proxy = await start_process(document_of(endpoint))
    _, body = await proxy.get(f"/accounts/{MAILBOX}/token", **BEARER)
    served = json.loads(body)
    assert (served["success"], served["token_type"], served["scope"]) == (True, "Bearer", "mail")
    assert (await command_line.ask("token", MAILBOX)).stdout == f"{served['access_token']}\n"
    async with TokenManager.open(tmp_path / "proxy.json", tmp_path) as manager:
        assert (await manager.get_token(MAILBOX)).access_token == served["access_token"]
    assert endpoint.issued == [served["access_token"]]
    headers = BEARER | {"X-Requested-By": "a test"}
    async with (
        aiohttp.ClientSession(proxy.admin_url, headers=headers) as http,
        http.post(f"/accounts/{MAILBOX}/refresh") as refreshed,
    ):
        assert refreshed.status == 200
    assert (await command_line.ask("token", MAILBOX)).stdout == f"{endpoint.issued[1]}\n"
    cleared = await command_line.ask("token", MAILBOX, "--clear")
    assert "Its sign-in stays" in cleared.stdout
    assert (await command_line.ask("token", MAILBOX)).stdout == f"{endpoint.issued[2]}\n"
    assert not any(token in proxy.stderr for token in endpoint.issued)


def test_row_02_the_default_manager_is_one_for_every_event_loop_and_another_after_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XOAUTH2_PROXY_CONFIG", raising=False)
    asked: list[str] = []

    class Own:
        async def refresh(self, grant: Grant) -> TokenResponse:
            asked.append(grant.mailbox)
            return TokenResponse(access_token=f"token {len(asked)}", lifetime_seconds=3600.0)

    async def forced() -> str:
        """Ask anew on an event loop that then ends."""
        return (await default_manager().get_token("billing", force_refresh=True)).access_token

    first = default_manager()
    first.add_provider("billing", Own())
    assert [asyncio.run(forced()) for _ in range(3)] == ["token 1", "token 2", "token 3"]
    assert default_manager() is first
    asyncio.run(first.close())
    another = default_manager()
    assert another is not first
    assert another.list_providers() == []
    asyncio.run(another.close())


async def test_row_03_a_token_tells_type_scope_expiry_in_utc_and_its_remaining_lifetime(
    endpoint: TokenEndpoint,
) -> None:
    async with TokenManager() as tokens:
        tokens.add_provider("billing", application(endpoint, scopes="read write"))
        token = await tokens.get_token("billing")
    assert token.access_token == endpoint.issued[0]
    assert (token.token_type, token.scope) == ("Bearer", "read write")
    assert token.expires_at.tzinfo is UTC
    assert 3000 < token.remaining_seconds <= 3600
    # The requirement's buffer is 300 s; one that is longer than the token's life makes it expired.
    assert [token.is_expired(buffer) for buffer in (0.0, 300.0, 3601.0)] == [False, False, True]


async def test_row_03_a_wall_clock_that_is_set_ahead_ends_no_token(
    tokens: TokenManager, endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await tokens.get_token("billing")
    true_time = time.time
    monkeypatch.setattr(time, "time", lambda: true_time() + 7200.0)
    assert await tokens.get_token("billing") is first
    assert len(endpoint.token_requests) == 1


async def test_row_04_each_provider_has_its_own_time_before_expiry_and_nobody_has_to_ask(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes before the end of an hour: a window of ten minutes has begun, one has not."""
    ahead_seconds = [0.0]
    true_time = time.monotonic
    async with TokenManager() as tokens:
        for name, window_seconds in (("early", 600.0), ("late", 60.0)):
            own = {"scopes": name, "refresh_window_seconds": window_seconds}
            tokens.add_provider(name, application(endpoint, **own))
        before = [await tokens.get_token(name) for name in tokens.list_providers()]
        monkeypatch.setattr(time, "monotonic", lambda: true_time() + ahead_seconds[0])
        ahead_seconds[0] = 3300.0
        await tokens.token_info("early")  # asks nobody; the manager's loop looks at its clock
        await until(lambda: len(endpoint.token_requests) >= 3)
        assert await tokens.get_token("late") is before[1]
        assert [one.form["scope"] for one in endpoint.token_requests] == ["early", "late", "early"]
        await until(lambda: _is_new(tokens, before[0]))
        assert len(endpoint.token_requests) == 3


async def _is_new(tokens: TokenManager, before: Token) -> bool:
    return (await tokens.get_token(before.name)).access_token != before.access_token


async def test_row_05_tasks_and_threads_that_ask_at_one_time_cause_one_request(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    gate, got = Gate(endpoint), []
    tasks = [asyncio.create_task(tokens.get_token("billing")) for _ in range(50)]
    threads = in_threads(20, lambda: got.append(tokens.blocking.get_token("billing")))
    assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
    gate.may_answer.set()
    got += await asyncio.gather(*tasks)
    await asyncio.to_thread(joined, threads)
    assert len(got) == 70
    assert {one.access_token for one in got} == {*endpoint.issued}
    assert len(endpoint.token_requests) == 1


async def test_row_06_microsoft_gives_tokens_to_an_application_and_to_a_person(
    authority: trustme.CA,
) -> None:
    async with TokenEndpoint(authority) as endpoint, TokenManager() as tokens:
        endpoint.grants("rt-1")
        endpoint.clients = {"app": "s"}
        common: dict[str, Any] = {"authority": endpoint.url, "ca_file": endpoint.ca_file}
        organization: dict[str, Any] = {
            "client_id": "app",
            "client_secret": "s",
            "tenant": "contoso.example",
        }
        tokens.add_provider("app", Microsoft(**organization, **common))
        graph = "https://graph.microsoft.com/.default"
        tokens.add_provider("graph", Microsoft(**organization, scopes=[graph], **common))
        endpoint_token = await tokens.get_token("app")
        assert endpoint_token.access_token == endpoint.issued[0]
        await tokens.get_token("graph")
        endpoint.clients = {}
        tokens.add_provider("person", Microsoft(client_id="c", refresh_token="rt-1", **common))
        await tokens.get_token("person")
        asked = endpoint.token_requests
    assert [(one.form["grant_type"], one.path.split("/")[1]) for one in asked] == [
        ("client_credentials", "contoso.example"),
        ("client_credentials", "contoso.example"),
        ("refresh_token", "common"),
    ]
    mail = "https://outlook.office365.com/.default"
    assert [one.form["scope"] for one in asked[:2]] == [mail, graph]


@pytest.mark.parametrize("scopes", ["read write", ["read", "write"]])
async def test_row_07_any_server_is_asked_with_both_grants_scopes_and_further_parameters(
    endpoint: TokenEndpoint, scopes: str | list[str]
) -> None:
    endpoint.grants("rt-1")
    more = {"parameters": {"audience": "https://api.example"}}
    async with TokenManager() as tokens:
        tokens.add_provider("app", application(endpoint, scopes=scopes, **more))
        tokens.add_provider("person", person_at(endpoint, **more))
        got = [await tokens.get_token(name) for name in ("app", "person")]
    assert [one.access_token for one in got] == endpoint.issued
    forms = [one.form for one in endpoint.token_requests]
    assert [one["grant_type"] for one in forms] == ["client_credentials", "refresh_token"]
    assert [one["audience"] for one in forms] == ["https://api.example"] * 2
    assert forms[0]["scope"] == "read write"
    assert endpoint.token_requests[0].client == ("billing-client", CLIENT_SECRET)


async def test_row_08_secrets_come_from_the_environment_or_a_file_and_must_be_there(
    endpoint: TokenEndpoint,
    command_line: CommandLine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endpoint.clients = {"tests": CLIENT_SECRET}  # any other secret is refused
    command_line.write(document_of(endpoint, client_secret="${SECRET_OF_SET_1}"))
    monkeypatch.delenv("SECRET_OF_SET_1", raising=False)
    check = await command_line.ask("check")
    assert check.code == 2
    assert "providers.school.client_secret" in check.text
    assert "SECRET_OF_SET_1" in check.text
    with pytest.raises(ConfigError, match="SECRET_OF_SET_1"):
        TokenManager.open(command_line.config, tmp_path)
    monkeypatch.setenv("SECRET_OF_SET_1", CLIENT_SECRET)
    async with TokenManager.open(command_line.config, tmp_path) as tokens:
        await tokens.get_token(MAILBOX)
    file = tmp_path / "secret"
    file.write_text(f"{CLIENT_SECRET}\n")
    file.chmod(0o600)
    command_line.write(document_of(endpoint, client_secret={"file": str(file)}))
    assert (await command_line.ask("token", MAILBOX, "--refresh")).code == 0
    assert len(endpoint.issued) == 2


@pytest.mark.parametrize(
    ("said", "kind", "is_transient", "smtp"),
    [
        (error("invalid_grant", "revoked"), GrantRevoked, False, "535 5.7.8"),
        (error("invalid_client", "no", 401), TokenEndpointRefused, False, "454 4.7.0"),
        (answer({}, 503), TokenEndpointUnavailable, True, "454 4.7.0"),
    ],
    ids=["refresh", "acquisition, for good", "acquisition, for now"],
)
async def test_row_09_errors_have_types_that_tell_who_must_act_and_become_smtp_replies(
    endpoint: TokenEndpoint,
    start_relay: StartRelay,
    said: Answer,
    kind: type[TokenError],
    is_transient: bool,
    smtp: str,
) -> None:
    endpoint.always(said)
    async with TokenManager() as tokens:
        tokens.add_provider("me", person_at(endpoint))
        with pytest.raises(kind) as raised:
            await tokens.get_token("me")
        assert isinstance(raised.value, TokenError)
        assert raised.value.is_transient is is_transient
    document = school(provider_at(endpoint.token_url, 2600), mailbox_of(refresh_token="rt-1"))
    with ThreadPoolExecutor(1) as threads:
        relay = await start_relay(document, refreshers={"oidc": OidcRefresher(threads)})
        async with await relay.connect() as client:
            await client.ehlo()
            reply = await client.auth_plain(MAILBOX, PASSWORD)
    assert f"{reply.code} {reply.enhanced}" == smtp


def test_row_09_a_provider_that_cannot_work_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError) as raised:
        TokenManager().add_provider("me", SignedIn(client_id="", refresh_token="rt"))
    assert {name for name, _ in raised.value.problems} == {"client_id", "token_url"}


async def test_row_10_mock_mailboxes_and_a_provider_of_ones_own_need_no_network(
    tmp_path: Path, command_line: CommandLine
) -> None:
    """The sandbox takes the tokens of a mock mailbox, whose key lies in the state directory."""
    mock = {"email": MAILBOX, "provider": "mock", "password": PASSWORD}
    command_line.write({"accounts": [mock]})
    async with (
        Sandbox(tmp_path, http_port=None) as sandbox,
        TokenManager.open(command_line.config, tmp_path) as tokens,
    ):
        first = await tokens.get_token(MAILBOX)
        second = await tokens.get_token(MAILBOX, force_refresh=True)
        assert first.access_token != second.access_token
        for token in (first, second):
            assert sandbox.tokens.verify(token.access_token) == MAILBOX

        class Fake:
            async def refresh(self, grant: Grant) -> TokenResponse:
                return TokenResponse(access_token=f"for {grant.mailbox}", lifetime_seconds=60.0)

        tokens.add_provider("billing", Fake())
        assert (await tokens.get_token("billing")).access_token == "for billing"


async def test_row_11_what_is_known_of_a_token_never_holds_it(
    endpoint: TokenEndpoint, command_line: CommandLine, tmp_path: Path
) -> None:
    command_line.write(document_of(endpoint))
    async with TokenManager.open(command_line.config, tmp_path) as tokens:
        token = await tokens.get_token(MAILBOX)
        info = await tokens.token_info(MAILBOX)
        assert 3000 < info.remaining_seconds <= 3600
        assert (info.token_type, info.scope, info.last_error) == ("Bearer", "mail", "")
        assert info.expires_at is not None
        assert info.refreshed_at is not None
        assert info.expires_at - info.refreshed_at == timedelta(seconds=3600)
        shown = [repr(info), repr(tokens), repr(token), str(token)]
    told = await command_line.ask("token", MAILBOX, "--info", "--json")
    assert 3000 < told.document["remaining_seconds"] <= 3600
    table = await command_line.ask("token", "--all", "--info")
    assert "Bearer" in table.stdout
    everything = "\n".join([*shown, told.text, table.text])
    assert token.access_token not in everything
    assert CLIENT_SECRET not in everything


async def test_row_12_a_cached_token_causes_no_request_and_needs_no_other_thread(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    """The manager's own thread is stopped meanwhile, and no await is interrupted.

    How long that takes is measured by `make bench-tokens`, which is for a quiet machine.
    """
    is_stopped, may_go_on = threading.Event(), threading.Event()

    class Stops:
        async def refresh(self, grant: Grant) -> TokenResponse:
            is_stopped.set()
            may_go_on.wait(PATIENCE_SECONDS)  # the whole thread, with its event loop
            return TokenResponse(access_token="late", lifetime_seconds=60.0)

    tokens.add_provider("stops", Stops())
    first = await tokens.get_token("billing")
    stopped = asyncio.create_task(tokens.get_token("stops"))
    try:
        assert await asyncio.to_thread(is_stopped.wait, PATIENCE_SECONDS)
        for _ in range(1000):
            with pytest.raises(StopIteration) as returned:
                tokens.get_token("billing").send(None)  # the first step is the last one
            assert returned.value.value is first
            assert tokens.blocking.get_token("billing") is first
    finally:
        may_go_on.set()
    assert (await stopped).access_token == "late"
    assert len(endpoint.token_requests) == 1


async def test_row_13_a_request_that_hangs_holds_up_no_other_name(
    tokens: TokenManager, endpoint: TokenEndpoint
) -> None:
    async with TokenEndpoint() as slow:
        gate = Gate(slow)
        tokens.add_provider("slow", application(slow))
        waiting = asyncio.create_task(tokens.get_token("slow"))
        assert await asyncio.to_thread(gate.is_asked.wait, PATIENCE_SECONDS)
        assert (await tokens.get_token("billing")).access_token == endpoint.issued[0]
        assert not waiting.done()
        gate.may_answer.set()
        assert (await waiting).access_token == slow.issued[0]


async def test_row_13_a_replaced_refresh_token_and_the_access_token_outlive_the_program(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    endpoint.grants("rt-1")
    endpoint.rotates = endpoint.detects_reuse = True
    got = []
    for is_forced in (False, False, True):
        async with TokenManager(tmp_path / "kept", key="k" * 16) as tokens:
            tokens.add_provider("me", person_at(endpoint))
            got.append((await tokens.get_token("me", force_refresh=is_forced)).access_token)
    assert got == [endpoint.issued[0], endpoint.issued[0], endpoint.issued[1]]
    sent = [one.form["refresh_token"] for one in endpoint.token_requests]
    assert sent[0] == "rt-1" != sent[1]
    (file,) = (tmp_path / "kept").glob("me-*.json")
    assert not any(secret in file.read_text() for secret in (*sent, *got))


async def test_row_13_refreshes_are_counted_and_a_grant_can_be_revoked(
    endpoint: TokenEndpoint, command_line: CommandLine, start_relay: StartRelay, tmp_path: Path
) -> None:
    endpoint.grants("rt-1")
    revoked: list[str] = []

    def revoke(request: Request) -> Answer:
        revoked.append(request.form["token"])
        return answer({})

    endpoint.route("/revoke", revoke)
    endpoint.metadata = {"revocation_endpoint": f"{endpoint.url}/revoke"}
    async with token_mail(lambda token: token in endpoint.issued) as mail:
        provider = provider_at("", mail.port, issuer=endpoint.issuer)
        del provider["oauth_token_url"]
        document = school(provider, mailbox_of(refresh_token="rt-1"))
        with ThreadPoolExecutor(1) as threads:
            relay = await start_relay(document, refreshers={"oidc": OidcRefresher(threads)})
            async with await relay.log_in() as client:
                assert (await client.send(message(), "you@example.com")).code == 250
            name = "xoauth2_proxy_token_refreshes_total"
            assert await relay.metric(name, provider="school", result="ok") == 1
    command_line.write(document)
    said = await command_line.ask("revoke", MAILBOX)
    assert said.code == 0, said.text
    assert revoked == ["rt-1"]
    assert "rt-1" not in said.text


async def test_row_14_a_token_is_an_http_bearer_and_xoauth2_for_mail(
    endpoint: TokenEndpoint, tokens: TokenManager, start_relay: StartRelay
) -> None:
    """An HTTP service and a mail server take it, each as its protocol has it."""

    def service(request: Request) -> Answer:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        return answer({}, 200 if scheme == "Bearer" and value == endpoint.issued[0] else 401)

    endpoint.route("/invoices", service)
    token = await tokens.get_token("billing")
    async with aiohttp.ClientSession(endpoint.url) as http:
        for headers, status in (({"Authorization": token.authorization}, 200), ({}, 401)):
            async with http.get("/invoices", headers=headers) as response:
                assert response.status == status
    endpoint.grants("rt-1")
    async with token_mail(lambda value: value in endpoint.issued) as mail:
        document = school(
            provider_at(endpoint.token_url, mail.port), mailbox_of(refresh_token="rt-1")
        )
        with ThreadPoolExecutor(1) as threads:
            relay = await start_relay(document, refreshers={"oidc": OidcRefresher(threads)})
            async with await relay.log_in() as client:
                assert (await client.send(message(), "you@example.com")).code == 250
        assert mail.logins == [(MAILBOX, endpoint.issued[1])]
