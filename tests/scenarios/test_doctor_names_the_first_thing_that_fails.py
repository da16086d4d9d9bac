"""`doctor`: the first step that fails is named with its remedy, and the rest is not taken."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from tests.support.examinations import (
    MAILBOX,
    Ward,
    microsoft,
    patient,
    signed,
    token_host,
)
from tests.support.peers import serving
from tests.support.provider import Provider
from tests.support.sandbox import Sandbox
from xoauth2_proxy.accounts.accounts import TlsMode, Upstream
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.commands.doctor import network
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenStoreUnavailable,
)
from xoauth2_proxy.oauth.grant import TokenResponse
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import trustme

    from tests.support.examinations import Examination
    from tests.support.peers import Peer
    from xoauth2_proxy.errors import TokenError
    from xoauth2_proxy.oauth.grant import Grant
    from xoauth2_proxy.oauth.stores import StoredGrant

ALL = [
    "configuration",
    "stored sign-in",
    "name of the token host",
    "name of the mail host",
    "connection to the token host",
    "connection to the mail host",
    "TLS of the token host",
    "TLS of the mail host",
    "answer of the token host",
    "access token",
    "what the token says",
    "greeting and extensions",
    "login",
    "test message",
]


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path, http_port=None) as made:
        yield made


@pytest.fixture
def upstream(sandbox: Sandbox) -> Upstream:
    return Upstream(*sandbox.smtp_address, TlsMode.STARTTLS, sandbox.ca_file)


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


# All is well.


async def test_a_mailbox_that_works_is_well(sandbox: Sandbox, upstream: Upstream) -> None:
    async with token_host() as url:
        ward = Ward(patient(upstream, token_endpoint=url), sandbox.tokens.mint(MAILBOX))
        found = await ward.examine(send_to="friend@example.org")
    assert found.code == 0
    assert found.document["is_well"] is True
    assert list(found.steps) == ALL
    results = {step: one["result"] for step, one in found.steps.items()}
    skipped = {step for step, result in results.items() if result == "skipped"}
    # Plain HTTP to loopback has no TLS, and the sandbox's token is opaque.
    assert skipped == {"TLS of the token host", "what the token says"}
    assert "TLSv1.3" in found.steps["TLS of the mail host"]["finding"]
    assert "XOAUTH2" in found.steps["greeting and extensions"]["finding"]
    assert "friend@example.org: 250" in found.steps["test message"]["finding"]
    (message,) = sandbox.received
    assert b"Subject: Test message of xoauth2-proxy doctor" in (message.content or b"")


async def test_a_sandbox_mailbox_is_well(sandbox: Sandbox, upstream: Upstream) -> None:
    account = replace(patient(upstream), refresher="mock", oauth=OAuthClient())
    ward = Ward(account, refresher=MockRefresher(sandbox.tokens))
    found = await ward.examine()
    assert found.code == 0
    assert found.steps["login"]["result"] == "ok"
    assert found.steps["stored sign-in"]["result"] == "skipped"


async def test_a_mailbox_of_clients_with_tokens_is_examined_as_far_as_that_goes(
    upstream: Upstream,
) -> None:
    found = await Ward(replace(patient(upstream), oauth=OAuthClient())).examine()
    assert found.code == 0
    assert found.steps["access token"]["finding"] == "clients bring their own tokens"
    assert found.steps["greeting and extensions"]["result"] == "ok"
    assert found.steps["login"]["result"] == "skipped"


async def test_it_is_shown_to_a_person_line_by_line(sandbox: Sandbox, upstream: Upstream) -> None:
    ward = Ward(patient(upstream), sandbox.tokens.mint(MAILBOX))
    found = await ward.examine(is_json=False)
    lines = found.text.splitlines()
    assert [line[2:].split("  ")[0] for line in lines[: len(ALL)]] == ALL
    assert lines[len(ALL)] == "✓ works   ✗ fails   – not tested"
    assert lines[0].startswith("✓ configuration")
    assert lines[-1] == f"{MAILBOX} is well."
    broken = Ward(patient(upstream), GrantRevoked("no", oauth_error="invalid_grant"))
    lines = (await broken.examine(is_json=False)).text.splitlines()
    assert lines[9].startswith("✗ access token")
    assert [line[0] for line in lines[10:14]] == ["–", "✓", "–", "–"]
    assert lines[-2] == f"What to do:  sign in again: xoauth2-proxy login {MAILBOX}"


async def test_an_unknown_mailbox_is_wrong_usage(upstream: Upstream) -> None:
    found = await Ward(patient(upstream)).examine("nobody@example.com")
    assert found.code == 2
    assert "nobody@example.com" in found.complaints


# The sign-in.


async def test_nobody_signed_in(upstream: Upstream) -> None:
    account = patient(upstream, refresh_token="")
    failed = (await Ward(account).examine()).failed
    assert failed["step"] == "stored sign-in"
    assert failed["remedy"] == f"sign in: xoauth2-proxy login {MAILBOX}"


async def test_what_does_not_need_a_sign_in_is_tested_without_one(upstream: Upstream) -> None:
    account = patient(upstream, refresh_token="", token_endpoint="")
    found = await Ward(account).examine()
    results = {name: step["result"] for name, step in found.steps.items()}
    for name in ("name", "connection"):
        assert results[f"{name} of the mail host".replace("connection of", "connection to")] == "ok"
    assert results["TLS of the mail host"] == "ok"
    assert results["greeting and extensions"] == "ok"
    assert {results["access token"], results["login"], results["test message"]} == {"skipped"}
    assert found.steps["login"]["finding"] == "needs: stored sign-in"


async def test_everything_that_fails_is_told_with_its_remedy(upstream: Upstream) -> None:
    account = patient(replace(upstream, port=closed_port()), refresh_token="")
    found = await Ward(account).examine(is_json=False)
    lines = found.text.splitlines()
    assert "Fails first: stored sign-in: no one has signed in yet" in lines
    assert any(line.startswith("Also fails:  connection to the mail host: ") for line in lines)
    assert found.text.count("What to do:") == 2


async def test_all_mailboxes_are_examined_one_after_the_other(
    sandbox: Sandbox, upstream: Upstream
) -> None:
    ward = Ward(patient(upstream), sandbox.tokens.mint(MAILBOX))
    found = await ward.examine(is_all=True)
    assert found.code == 0
    assert found.document["is_well"] is True
    (one,) = found.document["mailboxes"]
    assert (one["mailbox"], one["is_well"]) == (MAILBOX, True)
    lines = (await ward.examine(is_all=True, is_json=False)).text.splitlines()
    assert lines[0] == "✓ works   ✗ fails   – not tested"
    assert lines[2] == MAILBOX
    assert lines[-1] == "1 of 1 mailboxes are well."


async def test_where_symbols_cannot_be_shown_each_result_is_a_word(upstream: Upstream) -> None:
    account = patient(replace(upstream, port=closed_port()))
    found = await Ward(account).examine(is_json=False, encoding="ascii")
    words = {line.split()[0] for line in found.text.splitlines()[: len(ALL)]}
    assert words == {"ok", "FAIL", "skip"}


class BrokenStore(MemoryStore):
    async def load(self, mailbox: str) -> StoredGrant | None:
        raise TokenStoreUnavailable("grants: permission denied")


async def test_a_store_that_cannot_be_read(upstream: Upstream) -> None:
    failed = (await Ward(patient(upstream), store=BrokenStore()).examine()).failed
    assert failed["step"] == "stored sign-in"
    assert "permission denied" in failed["finding"]


async def test_a_sign_in_in_another_process_s_memory_is_not_put_at_risk(
    upstream: Upstream,
) -> None:
    failed = (await Ward(patient(upstream), is_store_shared=False).examine()).failed
    assert failed["step"] == "stored sign-in"
    assert '"kind": "file"' in failed["remedy"]


class RotatingRefresher:
    async def refresh(self, grant: Grant) -> TokenResponse:
        assert grant.refresh_token == "rt"
        return TokenResponse(access_token="at", refresh_token="rt-2")


async def test_a_replaced_refresh_token_is_kept(upstream: Upstream) -> None:
    store = MemoryStore()
    ward = Ward(patient(upstream), refresher=RotatingRefresher(), store=store)
    await ward.examine()
    kept = await store.load(MAILBOX)
    assert kept is not None
    assert kept.refresh_token == "rt-2"


# Names, connections, TLS.


async def test_a_host_that_does_not_resolve(upstream: Upstream) -> None:
    wrong = replace(upstream, host="smtp.nowhere.invalid")
    failed = (await Ward(patient(wrong)).examine()).failed
    assert failed["step"] == "name of the mail host"
    assert "smtp.nowhere.invalid does not resolve" in failed["finding"]
    assert "upstream.host" in failed["remedy"]


async def test_a_token_host_that_does_not_resolve(upstream: Upstream) -> None:
    account = patient(upstream, token_endpoint="https://login.nowhere.invalid/token")
    failed = (await Ward(account).examine()).failed
    assert failed["step"] == "name of the token host"
    assert "oauth_token_url" in failed["remedy"]


async def test_a_port_where_nothing_listens(upstream: Upstream) -> None:
    failed = (await Ward(patient(replace(upstream, port=closed_port()))).examine()).failed
    assert failed["step"] == "connection to the mail host"
    assert "refuses" in failed["finding"]


async def test_a_token_host_where_nothing_listens(upstream: Upstream) -> None:
    account = patient(upstream, token_endpoint=f"http://127.0.0.1:{closed_port()}/token")
    failed = (await Ward(account).examine()).failed
    assert failed["step"] == "connection to the token host"


async def test_a_certificate_of_another_authority(
    upstream: Upstream, authority: trustme.CA, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    authority.cert_pem.write_to_path(str(other))
    failed = (await Ward(patient(replace(upstream, ca_file=other))).examine()).failed
    assert failed["step"] == "TLS of the mail host"
    assert "is not trusted" in failed["finding"]
    assert '"upstream.ca_file"' in failed["remedy"]


async def test_a_token_host_of_another_authority(upstream: Upstream, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with token_host(context) as url:
        failed = (await Ward(patient(upstream, token_endpoint=url)).examine()).failed
    assert failed["step"] == "TLS of the token host"


async def test_a_token_host_of_a_trusted_authority(
    sandbox: Sandbox, upstream: Upstream, authority: trustme.CA, tmp_path: Path
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ours.pem"))
    async with token_host(context) as url:
        account = patient(upstream, token_endpoint=url, ca_file=tmp_path / "ours.pem")
        found = await Ward(account, sandbox.tokens.mint(MAILBOX)).examine()
    assert found.code == 0
    assert "TLSv1.3" in found.steps["TLS of the token host"]["finding"]


async def test_a_server_without_starttls() -> None:
    async with serving(Provider()) as port:
        ward = Ward(patient(Upstream("localhost", port, TlsMode.STARTTLS)))
        failed = (await ward.examine()).failed
    assert failed["finding"] == "the server offers no STARTTLS"
    assert "587 is starttls" in failed["remedy"]


async def test_a_port_that_begins_with_tls_where_starttls_is_configured(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_GREETING_SECONDS", 0.05)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    async with serving(Provider(), context) as port:
        ward = Ward(patient(Upstream("localhost", port, TlsMode.STARTTLS)))
        failed = (await ward.examine()).failed
    assert failed["step"] == "TLS of the mail host"
    assert failed["finding"] == f"port {port} begins with TLS, and upstream.tls is starttls"
    assert failed["remedy"] == 'set "upstream.tls" of the account to "implicit"'


async def test_a_slow_greeting_is_waited_for_although_the_port_was_tried_with_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(network, "_GREETING_SECONDS", 0.0)
    was_tried, provider = asyncio.Event(), Provider()

    async def slow(peer: Peer) -> None:
        heard = asyncio.ensure_future(peer.reader.read(1))
        tried = asyncio.ensure_future(was_tried.wait())
        await asyncio.wait([heard, tried], return_when=asyncio.FIRST_COMPLETED)
        tried.cancel()
        if not heard.done():
            heard.cancel()
            await asyncio.wait([heard])
            await provider(peer)
        elif heard.result():  # a ClientHello
            was_tried.set()

    async with serving(slow) as port:
        ward = Ward(patient(Upstream("localhost", port, TlsMode.STARTTLS)))
        failed = (await ward.examine()).failed
    assert failed["finding"] == "the server offers no STARTTLS"


async def test_a_port_that_greets_in_clear_where_implicit_tls_is_configured() -> None:
    async def greets(peer: Peer) -> None:
        peer.says("220 provider.example ESMTP")
        await peer.rest()

    async with serving(greets) as port:
        ward = Ward(patient(Upstream("localhost", port, TlsMode.IMPLICIT)))
        failed = (await ward.examine()).failed
    assert failed["finding"] == "localhost answers in clear where TLS is expected"
    assert "587 is starttls" in failed["remedy"]


async def test_a_server_that_is_none_for_mail() -> None:
    async def web_server(peer: Peer) -> None:
        peer.says("HTTP/1.1 400 Bad Request", "")
        await peer.rest()

    async with serving(web_server) as port:
        failed = (
            await Ward(patient(Upstream("localhost", port, TlsMode.STARTTLS))).examine()
        ).failed
    assert failed["finding"] == "what answers there is no mail server"


@pytest.mark.parametrize("ahead_seconds", [3600.0, -3600.0])
async def test_a_clock_that_is_wrong(upstream: Upstream, ahead_seconds: float) -> None:
    async with token_host(ahead_seconds=ahead_seconds) as url:
        failed = (await Ward(patient(upstream, token_endpoint=url)).examine()).failed
    assert failed["step"] == "answer of the token host"
    assert ("behind" if ahead_seconds > 0 else "ahead") in failed["finding"]
    assert "set the clock" in failed["remedy"]


async def test_an_issuer_without_metadata(upstream: Upstream) -> None:
    async with token_host() as url:
        account = patient(upstream, issuer=url.removesuffix("/token"))
        failed = (await Ward(account).examine()).failed
    assert failed["step"] == "answer of the token host"
    assert '"issuer"' in failed["remedy"]


# The token.


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (GrantRevoked("nothing known"), f"xoauth2-proxy login {MAILBOX}"),
        (
            GrantRevoked("AADSTS50076: you must use MFA", oauth_error="invalid_grant"),
            f"xoauth2-proxy login {MAILBOX}",
        ),
        (TokenEndpointRefused("no", oauth_error="invalid_client"), '"client_secret"'),
        (TokenEndpointUnavailable("timed out"), "wait and try again"),
        (TokenStoreUnavailable("disk full"), '"store"'),
    ],
)
async def test_no_token_can_be_had(upstream: Upstream, error: TokenError, remedy: str) -> None:
    failed = (await Ward(patient(upstream, "outlook-like"), error).examine()).failed
    assert failed["step"] == "access token"
    assert remedy in failed["remedy"]


@dataclass
class Exchange(Provider):
    """Exchange Online, with scripted answers to AUTH."""

    port: int = 0


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    provider = Exchange()
    async with serving(provider) as provider.port:
        yield provider


async def looked_into(exchange: Exchange, token: str, **client: object) -> Examination:
    upstream = Upstream("localhost", exchange.port, TlsMode.NONE)
    async with token_host() as url:
        account = patient(upstream, "outlook", token_endpoint=url, **client)
        return await Ward(account, token).examine()


async def test_what_the_token_says_is_shown_and_never_the_token(exchange: Exchange) -> None:
    token = microsoft()
    found = await looked_into(exchange, token)
    assert found.code == 0
    finding = found.steps["what the token says"]["finding"]
    assert "aud https://outlook.office.com" in finding
    assert "scp SMTP.Send" in finding
    assert token not in found.text
    assert token.split(".")[1] not in found.text


@pytest.mark.parametrize(
    ("claims", "finding", "remedy"),
    [
        (
            {"aud": "https://graph.microsoft.com"},
            "for Microsoft Graph",
            'set "scopes" of the account to "https://outlook.office.com/SMTP.Send offline_access"',
        ),
        ({"aud": "00000003-0000-0000-c000-000000000000"}, "for Microsoft Graph", '"scopes"'),
        ({"scp": "IMAP.AccessAsUser.All"}, "no permission SMTP.Send", "add SMTP.Send"),
        ({"scp": None, "roles": ["Mail.Send"]}, "SMTP.SendAsApp", "Grant admin consent"),
        ({"exp": 1_700_000_000}, "the new token ended", "set the clock"),
        ({"iat": time.time() + 7200}, "the new token begins in", "set the clock"),
    ],
)
async def test_a_token_that_exchange_will_not_take_is_known_before_it_is_shown(
    exchange: Exchange, claims: dict[str, object], finding: str, remedy: str
) -> None:
    failed = (await looked_into(exchange, microsoft(**claims))).failed
    assert failed["step"] == "what the token says"
    assert finding in failed["finding"]
    assert remedy in failed["remedy"]
    assert not any(line.startswith(b"AUTH") for line in exchange.heard)


async def test_an_application_s_token_for_graph_needs_no_sign_in(exchange: Exchange) -> None:
    token = microsoft(aud="https://graph.microsoft.com/", scp=None, roles=["Mail.Send"])
    found = await looked_into(
        exchange, token, grant_type=GrantType.CLIENT_CREDENTIALS, refresh_token=""
    )
    remedy = found.failed["remedy"]
    assert "https://outlook.office365.com/.default" in remedy
    assert "login" not in remedy


@pytest.mark.parametrize(
    "token", ["opaque", "a.b.c", signed(), "..", "EwBAAl3BAAUFFpUAo7J3Ve0bjLBWZWCclRC3EoAA"]
)
async def test_a_token_of_any_form_is_tried(exchange: Exchange, token: str) -> None:
    account = patient(Upstream("localhost", exchange.port, TlsMode.NONE))
    assert (await Ward(account, token).examine()).code == 0


# The mail server.


async def test_a_server_without_xoauth2(exchange: Exchange) -> None:
    exchange.extensions = ["AUTH PLAIN LOGIN"]
    failed = (await looked_into(exchange, microsoft())).failed
    assert failed["step"] == "greeting and extensions"
    assert "PLAIN LOGIN" in failed["finding"]


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the "
            "Tenant. Visit https://aka.ms/smtp_auth_disabled for more information. [X]",
            f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false",
        ),
        (
            "535 5.7.139 Authentication unsuccessful, user is locked by your organization's "
            "security defaults policy. Contact your administrator.",
            "Manage security defaults",
        ),
        ("535 5.7.3 Authentication unsuccessful [X]", "licence"),
        ("535 5.7.999 Something new", "licence"),
        ("554 5.9.9 Something else", "ask the provider"),
        ("454 4.7.0 Temporary authentication failure", "wait"),
    ],
)
async def test_microsoft_s_refusals_are_explained(
    exchange: Exchange, words: str, remedy: str
) -> None:
    exchange.answers = [words]
    failed = (await looked_into(exchange, microsoft())).failed
    assert failed["step"] == "login"
    assert words in failed["finding"]
    assert remedy in failed["remedy"]
    assert "xoauth2-proxy doctor" not in failed["remedy"]


async def test_another_person_s_token_is_the_cause_where_no_other_is_named(
    exchange: Exchange,
) -> None:
    exchange.answers = ["535 5.7.3 Authentication unsuccessful [X]"]
    token = microsoft(upn="Boss@Example.com")
    failed = (await looked_into(exchange, token)).failed
    assert "boss@example.com's, not someone@example.com's" in failed["finding"]
    # But a cause that is named counts, and a shared mailbox that works is no trouble at all.
    exchange.answers = ["535 5.7.139 SmtpClientAuthentication is disabled for the Tenant."]
    failed = (await looked_into(exchange, token)).failed
    assert "Set-CASMailbox" in failed["remedy"]
    exchange.answers = ["235 2.7.0 ok"]
    assert (await looked_into(exchange, token)).code == 0


async def test_a_person_who_is_said_to_sign_in_is_no_stranger(exchange: Exchange) -> None:
    exchange.answers = ["535 5.7.3 Authentication unsuccessful [X]"]
    token = microsoft(upn="boss@example.com")
    found = await looked_into(exchange, token, sign_in_as="Boss@example.com")
    assert "boss@example.com's, not" not in found.failed["finding"]


async def test_a_refused_test_message_is_explained(sandbox: Sandbox, upstream: Upstream) -> None:
    sandbox.add_fault(Fault(Step.MAIL, Action.REPLY, text="550 5.7.60 SMTP; not allowed"))
    ward = Ward(patient(upstream), sandbox.tokens.mint(MAILBOX))
    failed = (await ward.examine(send_to="friend@example.org")).failed
    assert failed["step"] == "test message"
    assert f"-Trustee {MAILBOX} -AccessRights SendAs" in failed["remedy"]
