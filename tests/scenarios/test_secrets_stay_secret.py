"""No secret ever leaves the process: not in its log, its output, its metrics or its name.

The real process at its most talkative, led through successes and failures.
"""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import argon2
import pytest

from tests.support.command_line import said_here
from tests.support.documents import upstream_at
from tests.support.peers import serving
from tests.support.planted import TOKEN_MARKS, leaked
from tests.support.relay import MAILBOX, OTHER_MAILBOX
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import encoded
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.peers import Peer
    from tests.support.proxy_process import ProxyProcess
    from tests.support.sandbox import Sandbox
    from tests.support.smtp_client import Client

pytestmark = pytest.mark.one_loop

CLEAR = "Clear-text-pass-7Qw3"
FROM_ENVIRONMENT = "From-environment-9Zx1"
FROM_FILE = "From-a-file-5Rt8"
HASHED = "Behind-a-hash-2Lk6"
HASH = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(HASHED)
CLIENT_SECRET = "GOCSPX-client-secret-4Hj2"
REFRESH_TOKEN = "1//0refresh-token-8Vb5"
ADMIN_TOKEN = "admin-bearer-token-3Nm9"
WRONG = "Wrong-guess-6Yt4"
MISPLACED = "Password-as-login-1Gf7"
MALFORMED = "Malformed-response-0Sd3"
CANCELLED = "Cancelled-exchange-2Pe8"
STRAY = "Stray-command-line-7Xc6"
CONTENT = "Private-content-9Wk2"
PARAMETER = "Parameter-of-mail-5Ju1"
ODD = "9kq2 /+\"\\&%<é'8zr3"
PLANTED = (
    *(CLEAR, FROM_ENVIRONMENT, FROM_FILE, HASHED, HASH, CLIENT_SECRET, REFRESH_TOKEN),
    *(ADMIN_TOKEN, WRONG, MISPLACED, MALFORMED, CANCELLED, STRAY, CONTENT, PARAMETER),
)
REAL = "someone@gmail.com"
ECHOED = "echoed@example.com"


async def test_the_search_finds_what_it_looks_for() -> None:
    for before in ("", "\0", "user=x\x01auth=Bearer "):
        assert leaked(encoded(f"{before}{CLEAR} and more"), (CLEAR,)) == {CLEAR}
    assert leaked(f"x {CLEAR}", (CLEAR, WRONG)) == {CLEAR}
    for write in (
        *(quote, quote_plus, lambda text: quote(text, safe="").lower()),
        *(json.dumps, lambda text: json.dumps(text, ensure_ascii=False), repr, html.escape),
        *(
            lambda text: json.dumps({"x": json.dumps(text)}),
            lambda text: json.dumps(repr(repr(text))),
        ),
        lambda text: text.encode().hex(),
        lambda text: base64.urlsafe_b64encode(f"id:{quote_plus(text)}".encode()).decode(),
    ):
        assert leaked(f"x={write(ODD)}&y", (ODD, WRONG)) == {ODD}


async def echo(peer: Peer) -> None:
    """Be a provider that knows no AUTH and shows what it was sent."""
    peer.says("220 echo.example")
    while line := (await peer.line()).decode():
        if line.startswith("EHLO"):
            peer.says("250-echo.example", "250 AUTH XOAUTH2")
        else:
            peer.says(f"500 5.5.1 Unrecognized command: {line}")


def document(provider: Sandbox, tmp_path: Path, echo_port: int) -> dict[str, object]:
    (tmp_path / "password").write_text(FROM_FILE + "\n")
    upstream = upstream_at(provider)
    oauth = {"client_id": "id", "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN}
    passwords: list[object] = [CLEAR, "${RELAY_PASSWORD}", {"file": "password"}, HASH]
    accounts = [
        {"email": mailbox, "provider": "mock", "password": password, "upstream": upstream} | oauth
        for mailbox, password in zip(MOCK_MAILBOXES, passwords, strict=True)
    ]
    accounts.append({"email": REAL, "provider": "gmail", "password": CLEAR, "upstream": upstream})
    echoing = {"host": "localhost", "port": echo_port, "tls": "none"}
    accounts.append({"email": ECHOED, "provider": "mock", "password": CLEAR, "upstream": echoing})
    return {"accounts": accounts, "admin": {"token": "${ADMIN_TOKEN}"}}


async def log_in(proxy: ProxyProcess, mailbox: str, password: str) -> Client:
    client = await proxy.connect()
    await client.ehlo()
    assert (await client.auth_plain(mailbox, password)).code == 235
    return client


async def succeed(proxy: ProxyProcess) -> None:
    content = f"Subject: {CONTENT}\r\n\r\n{CONTENT}\r\n".encode()
    passwords = (CLEAR, FROM_ENVIRONMENT, FROM_FILE, HASHED)
    for mailbox, password in zip(MOCK_MAILBOXES, passwords, strict=True):
        async with await log_in(proxy, mailbox, password) as client:
            assert (await client.send(content)).code == 250
            assert (await client.command("QUIT")).code == 221


async def fail_to_log_in(proxy: ProxyProcess, token: str) -> None:
    xoauth2 = encoded(f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01")
    bearer = encoded(f"n,a={MAILBOX},\x01auth=Bearer {token}\x01\x01")
    exchanges = [
        [f"AUTH PLAIN {encoded(f'{chr(0)}{MAILBOX}{chr(0)}{WRONG}')}"],
        [f"AUTH PLAIN {encoded(f'{chr(0)}{MISPLACED}{chr(0)}{WRONG}')}"],
        [f"AUTH PLAIN {encoded(f'other{chr(0)}{MISPLACED}{chr(0)}{CLEAR}')}"],
        [f"AUTH PLAIN {encoded(MALFORMED)}"],
        [f"AUTH PLAIN {MALFORMED}=="],
        [f"AUTH PLAIN\t{encoded(MALFORMED)}"],
        [f"AUTH {encoded(MALFORMED)}"],
        [f"AUTH SCRAM-SHA-256 {encoded(MALFORMED)}"],
        ["AUTH LOGIN", encoded(MISPLACED), encoded(WRONG)],
        ["AUTH LOGIN", encoded(CANCELLED), "*"],
        ["AUTH LOGIN", encoded(MAILBOX), f"{MALFORMED}!"],
        [f"AUTH XOAUTH2 {xoauth2}", ""],
        [f"AUTH OAUTHBEARER {bearer}", "AQ=="],
        [f"AUTH XOAUTH2 {encoded(token)}"],
        [f"AUTH OAUTHBEARER {encoded(token)}"],
        ["AUTH PLAIN " + encoded(MALFORMED) * 2000],
        ["AUTH XOAUTH2", encoded(token) * 500],
        [encoded(STRAY)],
        [STRAY],
        [f"{STRAY}\x07"],
        [STRAY * 1000],
        [f"MAIL FROM:<a@b> AUTH={PARAMETER}"],
    ]
    for lines in exchanges:
        async with await proxy.connect() as client:
            await client.ehlo()
            answers = [await client.command(line) for line in lines]
            assert not leaked(" ".join(map(str, answers)), (*PLANTED, token)), lines[0][:60]
            assert not answers[-1].is_positive, f"{lines}: {answers[-1]}"


async def fail_to_send(proxy: ProxyProcess, provider: Sandbox) -> None:
    faults = [
        Fault(Step.CONNECT, Action.DROP),
        Fault(Step.STARTTLS, Action.GARBAGE),
        Fault(Step.AUTH, Action.DROP),
        Fault(Step.AUTH, Action.GARBAGE),
        reply_fault(Step.AUTH, "535 5.7.8 Refused", nth=None),
        reply_fault(Step.AUTH, "454 4.7.0 Later"),
        reply_fault(Step.MAIL, "503 5.5.1 What"),
        reply_fault(Step.RCPT, "550 5.1.1 No"),
        reply_fault(Step.END, "550 5.7.1 No"),
        Fault(Step.END, Action.DROP),
    ]
    async with await log_in(proxy, MAILBOX, CLEAR) as client:
        for fault in faults:
            provider.clear_faults()
            provider.close_connections()
            provider.add_fault(fault)
            await client.envelope("to@example.net")
            assert not (await client.data(f"{CONTENT}\r\n".encode())).is_positive, fault
        provider.clear_faults()
        # A parameter that is accepted and dropped.
        assert (await client.command(f"MAIL FROM:<a@b> AUTH={PARAMETER}")).code == 250
        assert (await client.command("RSET")).code == 250


async def be_echoed(proxy: ProxyProcess) -> None:
    async with await log_in(proxy, ECHOED, CLEAR) as client:
        answer = await client.send(f"{CONTENT}\r\n".encode())
        assert answer.code == 451
        assert not leaked(str(answer), TOKEN_MARKS)


async def bring_a_token(proxy: ProxyProcess, good: str, bad: str) -> None:
    for token, code in ((good, 235), (bad, 334)):
        async with await proxy.connect() as client:
            await client.ehlo()
            line = encoded(f"user={REAL}\x01auth=Bearer {token}\x01\x01")
            assert (await client.command(f"AUTH XOAUTH2 {line}")).code == code
            if code == 235:
                assert (await client.send(f"{CONTENT}\r\n".encode())).code == 250
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(REAL, CLEAR)).code == 534  # no way to fetch a token


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    async with serving(echo) as port:
        yield port


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_nothing_that_the_process_says_holds_a_secret(
    start_process: StartProcess,
    provider: Sandbox,
    tmp_path: Path,
    echo_port: int,
    log_format: str,
) -> None:
    proxy = await start_process(
        document(provider, tmp_path, echo_port),
        *("--log-level", "debug", "--log-format", log_format),
        environ={"RELAY_PASSWORD": FROM_ENVIRONMENT, "ADMIN_TOKEN": ADMIN_TOKEN},
    )
    good, bad = provider.tokens.mint(REAL), provider.tokens.mint(OTHER_MAILBOX)
    await succeed(proxy)
    await fail_to_log_in(proxy, bad)
    await fail_to_send(proxy, provider)
    await bring_a_token(proxy, good, bad)
    await be_echoed(proxy)
    said = [proxy.command_line.decode()]
    for path in ("/metrics", "/health", "/health/ready", "/health/live", "/nowhere"):
        for header in (f"Bearer {ADMIN_TOKEN}", f"Bearer {WRONG}", ""):
            status, body = await proxy.get(path, Authorization=header)
            is_open = path.startswith("/health/")  # for orchestrators
            assert (status == 401) == (ADMIN_TOKEN not in header and not is_open)
            said.append(body)
    assert await proxy.stop() == 0
    assert "client turned away" in proxy.stderr
    assert "outcome unknown" in proxy.stderr
    assert "Unrecognized command" in proxy.stderr, "the echo was not heard"
    if log_format == "json":
        assert all(json.loads(line) for line in proxy.stderr.splitlines())
    said += [proxy.stdout, proxy.stderr]
    key = (tmp_path / "sandbox" / "signing-key").read_bytes()
    assert not leaked("\n".join(said), (*PLANTED, *TOKEN_MARKS, good, bad, key.hex()))


BAD_DOCUMENTS = {
    "no JSON": f'{{"accounts": [{{"password": "{CLEAR}" "client_secret": "{CLIENT_SECRET}"',
    "wrong types": json.dumps(
        {
            "accounts": [
                {"email": "a@b", "provider": "mock", "password": [CLEAR]},
                {"email": "c@d", "provider": "mock", "password": {"text": CLEAR}},
                {"email": "e@f", "provider": "mock", "password": CLEAR, "enabled": CLEAR},
                {"email": "g@h", "provider": "mock", "password": "${" + CLEAR},
                {"email": "i@j", "provider": "mock", "password": "$argon2id$" + CLEAR},
                {"email": "i@j", "provider": "mock", "passwort": CLEAR},
            ],
            "admin": {"token": [ADMIN_TOKEN]},
        }
    ),
    "OAuth": json.dumps(
        {
            "accounts": [
                {
                    "email": "someone@example.com",
                    "provider": "own",
                    "password": CLEAR,
                    "client_id": "id",
                    "client_secret": {"text": CLIENT_SECRET},
                    "refresh_token": [REFRESH_TOKEN],
                    "client_secret_expires": CLIENT_SECRET,
                    "scopes": [REFRESH_TOKEN, 1],
                    "parameters": {"client_secret": CLIENT_SECRET},
                    "oauth_token_url": f"https://me:{CLIENT_SECRET}@example.com/",
                    "certificate": "key.pem",
                }
            ],
            "providers": {"own": {"refresher": "oidc", "client_secert": CLIENT_SECRET}},
            "admin": {"token": {"text": ADMIN_TOKEN}},
            "store": {
                "kind": "redis",
                "url": f"http://:{CLIENT_SECRET}@localhost",
                "key": WRONG[:9],
            },
            "alerts": {"webhook": f"http://hooks.example.com/{ADMIN_TOKEN}"},
        }
    ),
    "no refresher": json.dumps(
        {
            "accounts": [
                {
                    "email": "someone@gmail.com",
                    "provider": "gmail",
                    "password": CLEAR,
                    "client_secret": CLIENT_SECRET,
                    "refresh_token": REFRESH_TOKEN,
                }
            ]
        }
    ),
    "twice": json.dumps(
        {
            "accounts": [
                {"email": "a@b", "provider": "mock", "password": CLEAR},
                {"email": "A@B", "provider": "mock", "password": WRONG, "password ": HASHED},
            ]
        }
    ),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
@pytest.mark.parametrize("command", [[], ["check"]], ids=["serve", "check"])
def test_a_configuration_that_cannot_be_used_is_not_quoted(
    tmp_path: Path, name: str, command: list[str]
) -> None:
    config = tmp_path / "accounts.json"
    config.write_text(BAD_DOCUMENTS[name])
    said = said_here(*command, "--config", str(config), "--state-dir", str(tmp_path))
    assert said.code == 2, said.text
    assert not leaked(said.stdout + said.stderr, PLANTED)
