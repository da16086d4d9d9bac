"""Exchanges with token endpoints, good and bad, and what their answers mean."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.support.peers import Peer, serving
from tests.support.token_endpoint import (
    CLOSES,
    DRIPS,
    DRIPS_HEAD,
    GARBAGE,
    HANGS,
    NO_HTTP,
    OVERSIZED,
    TRUNCATED,
    Answer,
    TokenEndpoint,
    answer,
    error,
    redirect,
)
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
)
from xoauth2_proxy.oauth.endpoint import MAX_BODY_BYTES, open_session, send_request
from xoauth2_proxy.oauth.responses import json_object, token_error, token_response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

SHORT_SECONDS = 0.4  # an exchange that is meant to run out of time
FORM = {"grant_type": "refresh_token", "refresh_token": "rt-1"}


@pytest.fixture
async def endpoint(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority) as endpoint:
        endpoint.grants("rt-1")
        yield endpoint


def ask(
    url: str,
    ca_file: Path | None,
    *,
    form: Mapping[str, str] = FORM,
    seconds: float = 5.0,
    times: int = 1,
) -> dict[str, object]:
    body: dict[str, object] = {}
    with open_session(ca_file, seconds) as session:
        for _ in range(times):
            body = json_object(send_request(session, "POST", url, form))
    return body


async def asked(url: str, ca_file: Path | None, **more: Any) -> dict[str, object]:
    """`ask` as refreshers do: in a thread."""
    return await asyncio.to_thread(ask, url, ca_file, **more)


async def trouble(endpoint: TokenEndpoint, seconds: float = 5.0) -> str:
    with pytest.raises(TokenEndpointUnavailable) as raised:
        await asked(endpoint.token_url, endpoint.ca_file, seconds=seconds)
    return str(raised.value)


async def test_tokens_come_over_verified_tls(endpoint: TokenEndpoint) -> None:
    body = await asked(endpoint.token_url, endpoint.ca_file)
    assert body["access_token"] == endpoint.issued[0]
    assert endpoint.requests[0].form == FORM


async def test_requests_of_one_session_share_a_connection(endpoint: TokenEndpoint) -> None:
    await asked(endpoint.token_url, endpoint.ca_file, times=3)
    assert (len(endpoint.requests), endpoint.connections) == (3, 1)


async def test_plain_http_goes_to_loopback() -> None:
    async with TokenEndpoint() as endpoint:
        endpoint.grants("rt-1")
        assert "access_token" in await asked(endpoint.token_url, None)
        near = endpoint.token_url.replace("localhost", "127.0.0.1")
        assert "access_token" in await asked(near, None)


@pytest.mark.parametrize("url", ["http://login.example/token", "HTTP://10.0.0.1/token"])
def test_plain_http_goes_nowhere_else(url: str) -> None:
    with pytest.raises(TokenEndpointRefused, match="https"):
        ask(url, None)


async def test_certificate_of_another_authority_is_not_trusted(
    endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    for ca_file in (other, None):
        with pytest.raises(TokenEndpointUnavailable, match="certificate that is not trusted"):
            await asked(endpoint.token_url, ca_file)
    assert endpoint.requests == []


async def test_certificate_of_another_name_is_told_as_such(endpoint: TokenEndpoint) -> None:
    url = endpoint.token_url.replace("localhost", "127.0.0.1")
    with pytest.raises(TokenEndpointUnavailable, match=r"127\.0\.0\.1.*another"):
        await asked(url, endpoint.ca_file)
    assert endpoint.requests == []


async def test_no_library_can_turn_verification_off(endpoint: TokenEndpoint) -> None:
    def ask_carelessly() -> None:
        with open_session() as session:
            session.verify = False
            session.post(endpoint.token_url, data=FORM, verify=False)

    with pytest.raises(requests.exceptions.SSLError):
        await asyncio.to_thread(ask_carelessly)


async def test_environment_names_no_other_authorities(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    assert "access_token" in await asked(endpoint.token_url, endpoint.ca_file)


async def test_renewed_ca_file_counts_at_once(
    endpoint: TokenEndpoint, authority: trustme.CA, tmp_path: Path
) -> None:
    ca_file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    with pytest.raises(TokenEndpointUnavailable):
        await asked(endpoint.token_url, ca_file)
    authority.cert_pem.write_to_path(str(ca_file))
    assert "access_token" in await asked(endpoint.token_url, ca_file)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_unusable_ca_file_is_the_operators(tmp_path: Path, content: str | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with pytest.raises(TokenEndpointRefused, match="ca_file"):
        open_session(ca_file)


async def test_netrc_is_not_read(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login someone password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    await asked(endpoint.token_url, endpoint.ca_file)
    assert "authorization" not in endpoint.requests[0].headers


async def test_proxies_are_not_asked_for_loopback(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert "access_token" in await asked(endpoint.token_url, endpoint.ca_file)


async def test_proxies_are_asked_for_everyone_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[bytes] = []

    async def refuse(peer: Peer) -> None:
        asked_for.append(await peer.line())
        peer.says("HTTP/1.1 403 Forbidden", "")
        await peer.rest()

    async with serving(refuse) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://someone:secret@127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        with pytest.raises(
            TokenEndpointUnavailable, match=r"way to login\.example refuses"
        ) as raised:
            await asked("https://login.example/token", None)
    assert asked_for[0].startswith(b"CONNECT login.example:443 ")
    assert "secret" not in str(raised.value)


async def test_proxy_carries_tls_to_the_endpoint(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tunnel(peer: Peer) -> None:
        while await peer.line():
            pass
        port = int(endpoint.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer.says("HTTP/1.1 200 OK", "")
        try:
            await asyncio.gather(_copy(peer.reader, writer), _copy(reader, peer.writer))
        finally:
            writer.transport.abort()

    async with serving(tunnel) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        url = "https://login.example/token"
        with pytest.raises(TokenEndpointUnavailable, match="another name"):
            await asked(url, endpoint.ca_file)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(4096):
        writer.write(octets)
    writer.close()


async def test_proxy_that_is_down_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(TokenEndpointUnavailable, match=r"proxy .*refuses connections") as raised:
        await asked("https://login.example/token", None)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_not_followed(endpoint: TokenEndpoint, status: int) -> None:
    endpoint.will(redirect(endpoint.url + "/elsewhere/token", status))
    assert "redirects" in await trouble(endpoint)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize("reply", [HANGS, DRIPS, DRIPS_HEAD], ids=["hangs", "body", "head"])
async def test_exchange_ends_in_time(endpoint: TokenEndpoint, reply: Answer) -> None:
    endpoint.will(reply)
    started = time.monotonic()
    assert "gave no answer in time" in await trouble(endpoint, SHORT_SECONDS)
    assert time.monotonic() - started >= SHORT_SECONDS


async def test_silent_handshake_ends_in_time(authority: trustme.CA, tmp_path: Path) -> None:
    ca_file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    async with serving(_listen) as port:
        with pytest.raises(TokenEndpointUnavailable, match="no answer in time"):
            await asked(f"https://localhost:{port}/token", ca_file, seconds=SHORT_SECONDS)


async def _listen(peer: Peer) -> None:
    await peer.rest()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (OVERSIZED, "too large"),
        (TRUNCATED, "closed the connection"),
        (CLOSES, "closed the connection"),
        (NO_HTTP, "does not speak HTTP"),
        (GARBAGE, "not a JSON object"),
        (answer(b"[1, 2]"), "not a JSON object"),
        (answer(b"\xff\xfe{"), "not a JSON object"),
        (answer(b"[" * 100_000), "not a JSON object"),
        (answer(b"no gzip", headers={"Content-Encoding": "gzip"}), "does not speak HTTP"),
        (answer(b"<html>not here</html>", 404), "HTTP 404"),
        (answer(b"<html>bad gateway</html>", 502), "HTTP 502"),
    ],
)
async def test_odd_answers_are_transient(
    endpoint: TokenEndpoint, reply: Answer, words: str
) -> None:
    endpoint.will(reply)
    assert words in await trouble(endpoint)


async def test_compressed_bombs_are_not_unpacked(endpoint: TokenEndpoint) -> None:
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES * 200))
    assert len(bomb) < MAX_BODY_BYTES
    endpoint.will(answer(bomb, headers={"Content-Encoding": "gzip"}))
    assert "too large" in await trouble(endpoint)


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example", "login.invalid."])
async def test_odd_names_do_not_resolve_either(host: str) -> None:
    with pytest.raises(TokenEndpointUnavailable, match=r"does not resolve|cannot be asked"):
        await asked(f"https://{host}/token", None)


@pytest.mark.parametrize("url", ["https://[::1/token", "https:///token", "gopher://localhost/", ""])
async def test_odd_urls_are_trouble_like_any_other(url: str) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="cannot be asked"):
        await asked(url, None)


async def test_name_that_does_not_resolve_is_told_as_such() -> None:
    with pytest.raises(TokenEndpointUnavailable, match=r"login\.invalid does not resolve"):
        await asked("https://login.invalid/token", None)


async def test_addresses_share_the_time(
    endpoint: TokenEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a firewall drops packets for a host's first address, the next one is still tried."""
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for waiting in (first, second):  # its queue is full now, and it drops what comes
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        real = ("127.0.0.1", int(endpoint.url.rpartition(":")[2]))
        answers = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
            for address in (deaf.getsockname(), *[real] * 9)  # the first has a tenth of the time
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: answers)
        started = time.monotonic()
        body = await asked(endpoint.token_url, endpoint.ca_file, seconds=20.0)
    assert body["access_token"] == endpoint.issued[0]
    assert time.monotonic() - started > 1.9


async def test_closed_port_is_told_as_such(endpoint: TokenEndpoint) -> None:
    with pytest.raises(TokenEndpointUnavailable) as raised:
        await asked("https://someone:secret@localhost:9/token?secret=1", endpoint.ca_file)
    assert str(raised.value) == "localhost:9 refuses connections"


@pytest.mark.parametrize(
    "word", ["invalid_grant", "interaction_required", "consent_required", "login_required"]
)
def test_dead_grant_needs_a_person(word: str) -> None:
    refused = token_error(400, {"error": word}, {})
    assert isinstance(refused, GrantRevoked)
    assert refused.oauth_error == word
    assert isinstance(
        token_error(400, {"error": word}, {}, is_signed_in=False), TokenEndpointRefused
    )


@pytest.mark.parametrize(
    "word",
    [
        "invalid_client",
        "unauthorized_client",
        "invalid_scope",
        "unsupported_grant_type",
        "invalid_request",
        "invalid_resource",
        "deleted_client",
        "disabled_client",
        "org_internal",
        "admin_policy_enforced",
        "a_word_nobody_knows",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 401, 403])
def test_wrong_setup_needs_the_operator(word: str, status: int) -> None:
    refused = token_error(status, {"error": word}, {})
    assert isinstance(refused, TokenEndpointRefused)
    assert refused.oauth_error == word


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (408, {}),
        (429, {"error": "invalid_grant"}),
        (500, {"error": "invalid_client"}),
        (502, {}),
        (503, {}),
        (400, {"error": "temporarily_unavailable"}),
        (400, {"error": "server_error"}),
        (400, {"error": "slow_down"}),
        (400, {}),
        (403, {"error": 7}),
        (400, {"error": "x" * 100}),
        (400, {"error": {"code": 400, "message": "no status"}}),
        (400, {"error": "invalid_grant", "error_description": "AADSTS50053: locked."}),
        *((400, {"error": "invalid_grant", "error_codes": [code]}) for code in (50196, 90033)),
    ],
)
def test_trouble_at_the_endpoint_is_transient(status: int, body: dict[str, object]) -> None:
    assert isinstance(token_error(status, body, {}), TokenEndpointUnavailable)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 30 ", 30.0),
        ("99999999999999", 3600.0),
        ("-5", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("1e3", 0.0),
        ("²", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_heeded_within_bounds(value: str, seconds: float) -> None:
    refused = token_error(429, {}, {"retry-after": value})
    assert isinstance(refused, TokenEndpointUnavailable)
    assert refused.retry_after_seconds == seconds


def test_retry_after_may_be_a_date() -> None:
    until = format_datetime(datetime.now(UTC) + timedelta(seconds=3000), usegmt=True)
    refused = token_error(503, {}, {"Retry-After": until})
    assert isinstance(refused, TokenEndpointUnavailable)
    assert 2000 < refused.retry_after_seconds <= 3000


def test_text_is_the_endpoints_own_words() -> None:
    body = {
        "error": "invalid_grant",
        "suberror": "bad_token",
        "error_description": "AADSTS700082: The refresh token has expired.\r\nTrace ID: "
        "6731de76-14a6-49ae-97bc-6eba6914391e",
    }
    assert str(token_error(400, body, {})) == (
        "invalid_grant (bad_token): AADSTS700082: The refresh token has expired. Trace ID: "
        "6731de76-14a6-49ae-97bc-6eba6914391e"
    )
    google = {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}
    assert str(token_error(403, google, {})) == "PERMISSION_DENIED: no"


def test_text_quotes_no_secret() -> None:
    token = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ0ZXN0In0.c2lnbmF0dXJlLW9mLXRlc3Q"
    description = f"\x1b[31mInvalid client secret pass-7: {token}\x00\n" + "word " * 200
    body = {"error": "invalid_client", "error_description": description, "suberror": "pass-7"}
    text = str(token_error(401, body, {}, ["pass-7", ""]))
    assert text.startswith("invalid_client (…): [31mInvalid client secret …: ….")
    assert text.isprintable()
    assert len(text) < 350
    assert not any(part in text for part in token.split(".")[:1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
WORDS = st.sampled_from(["error", "error_description", "error_codes", "suberror", "status"])
BODIES = st.dictionaries(WORDS, JSON | st.dictionaries(WORDS, JSON))


@given(st.integers(100, 999), BODIES, st.text())
def test_any_refusal_is_one_of_our_errors(
    status: int, body: dict[str, object], retry_after: str
) -> None:
    refused = token_error(status, body, {"Retry-After": retry_after}, ["secret"])
    assert isinstance(refused, (GrantRevoked, TokenEndpointRefused, TokenEndpointUnavailable))
    assert str(refused).isprintable()
    assert len(str(refused)) < 1000


DATE_WORDS = ["Wed,", "21", "Oct", "2015", "0001", "9999", "24:00:00", "07:28:00", "GMT", "+9999"]


@given(st.lists(st.sampled_from([*DATE_WORDS, "-2359", "+99999999999999", "99999999"])))
def test_any_date_is_within_bounds(words: list[str]) -> None:
    refused = token_error(429, {}, {"Retry-After": " ".join(words)})
    assert isinstance(refused, TokenEndpointUnavailable)
    assert 0.0 <= refused.retry_after_seconds <= 3600.0


ANSWER_WORDS = st.sampled_from(["access_token", "refresh_token", "expires_in", "scope"])


@given(st.dictionaries(ANSWER_WORDS, JSON))
def test_any_answer_is_tokens_or_trouble(body: dict[str, object]) -> None:
    try:
        got = token_response(body)
    except TokenEndpointUnavailable:
        return
    assert got.access_token == body["access_token"]
    assert 0 < got.lifetime_seconds < float("inf")


def test_error_in_a_good_answer_is_a_refusal() -> None:
    response = requests.Response()
    response.status_code = 200
    response.raw = _Raw(b'{"error": "invalid_grant"}')
    with pytest.raises(GrantRevoked):
        json_object(response)


class _Raw:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def read(self, _: int) -> bytes:
        octets, self._octets = self._octets, b""
        return octets


def test_good_answer_is_read_whole() -> None:
    got = token_response(
        {
            "access_token": "at-1",
            "expires_in": "3599",
            "refresh_token": "rt-2",
            "refresh_token_expires_in": 604799,
            "id_token": "e30.e30.x",
            "scope": "mail",
        }
    )
    assert (got.access_token, got.lifetime_seconds, got.refresh_token) == ("at-1", 3599.0, "rt-2")
    assert (got.refresh_token_lifetime_seconds, got.id_token) == (604799.0, "e30.e30.x")
    assert got.scope == "mail"
    assert token_response(
        {"access_token": "a", "refresh_expires_in": 1800}
    ).refresh_token_lifetime_seconds


@pytest.mark.parametrize("odd", [None, 0, -1, True, "soon", "nan", "inf", [], {}, 10**400])
def test_odd_lifetime_is_the_usual_one(odd: object) -> None:
    assert token_response({"access_token": "at-1", "expires_in": odd}).lifetime_seconds == 3600.0


@pytest.mark.parametrize("odd", [None, "", 7, "at\x01auth=Bearer x", "at-1\r\n", "grün"])
def test_odd_access_token_is_transient_trouble(odd: object) -> None:
    with pytest.raises(TokenEndpointUnavailable):
        token_response({"access_token": odd})


async def test_reuse_of_a_replaced_refresh_token_ends_the_grant(endpoint: TokenEndpoint) -> None:
    """The server of these tests is as strict as a real one."""
    endpoint.rotates = endpoint.detects_reuse = True
    newer = (await asked(endpoint.token_url, endpoint.ca_file))["refresh_token"]
    with pytest.raises(GrantRevoked):
        await asked(endpoint.token_url, endpoint.ca_file)
    with pytest.raises(GrantRevoked):
        await asked(
            endpoint.token_url, endpoint.ca_file, form={**FORM, "refresh_token": str(newer)}
        )


async def test_error_answers_come_through(endpoint: TokenEndpoint) -> None:
    endpoint.will(error("invalid_scope", "no such scope"))
    with pytest.raises(TokenEndpointRefused, match="invalid_scope: no such scope"):
        await asked(endpoint.token_url, endpoint.ca_file)
