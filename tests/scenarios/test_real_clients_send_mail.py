"""Mail clients that people use log in and send; the provider gets what they sent, octet for octet.

Clients that speak line ends of their own get the message with LF; on the wire it is CRLF.
"""

from __future__ import annotations

import asyncio
import smtplib
from typing import TYPE_CHECKING

import aiosmtplib
import pytest

from tests.support.programs import program, run
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.relay import Relay

pytestmark = pytest.mark.outside

SENDER = "sender@example.com"
RECIPIENT = "recipient@example.net"
HEAD = (
    f"From: {SENDER}\r\n"
    f"To: {RECIPIENT}\r\n"
    "Subject: From a real client\r\n"
    "Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    "Message-ID: <from-a-real-client@example.com>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n"
)
BODY = ".\r\n..\r\n.leading dot\r\nFrom the start of a line\r\n\r\n" + "x" * 990 + "\r\nend\r\n"
ASCII = (HEAD + BODY).encode()
EIGHT_BIT = (HEAD + BODY + "Grüße, 你好\r\n").encode()
CONTENTS = pytest.mark.parametrize("content", [ASCII, EIGHT_BIT], ids=["ASCII", "8-bit"])


@pytest.fixture
def token(relay: Relay) -> str:
    """An access token that the client brings itself."""
    return relay.sandbox.tokens.mint(MAILBOX)


def assert_sent(relay: Relay, content: bytes) -> None:
    (kept,) = relay.sandbox.received
    assert kept.content == content
    assert kept.mailbox == MAILBOX
    assert (kept.reverse_path, kept.forward_paths) == (SENDER, (RECIPIENT,))


async def mechanism_used(relay: Relay, mechanism: str) -> bool:
    wanted = {"mechanism": mechanism, "result": "ok"}
    return await relay.metric("xoauth2_proxy_auth_attempts_total", **wanted) == 1


@CONTENTS
@pytest.mark.parametrize("ir", [(), ("--sasl-ir",)], ids=["two steps", "initial response"])
# With a token, curl takes OAUTHBEARER wherever it is offered, whatever --login-options says.
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "OAUTHBEARER"])
async def test_curl(
    relay: Relay, tmp_path: Path, token: str, mechanism: str, ir: tuple[str, ...], content: bytes
) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(content)
    credentials = ["--user", f"{MAILBOX}:{PASSWORD}"]
    if mechanism == "OAUTHBEARER":
        credentials = ["--user", f"{MAILBOX}:", "--oauth2-bearer", token]
    await run(
        *(program("curl"), "--silent", "--show-error", "--disable", *ir),
        *("--url", f"smtp://{relay.host}:{relay.port}/client.example"),
        *("--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", str(file)),
        *(*credentials, "--login-options", f"AUTH={mechanism}"),
    )
    assert_sent(relay, content)
    assert await mechanism_used(relay, mechanism)


@CONTENTS
@pytest.mark.parametrize("mechanism", ["plain", "login", "oauthbearer", "xoauth2"])
async def test_msmtp(relay: Relay, token: str, mechanism: str, content: bytes) -> None:
    secret = PASSWORD if mechanism in {"plain", "login"} else token
    await run(
        *(program("msmtp"), "--file=/dev/null", "--tls=off", f"--auth={mechanism}"),
        *(f"--host={relay.host}", f"--port={relay.port}", f"--user={MAILBOX}"),
        *(f"--passwordeval=echo {secret}", f"--from={SENDER}", "--", RECIPIENT),
        octets=content.replace(b"\r\n", b"\n"),
    )
    assert_sent(relay, content)
    assert await mechanism_used(relay, mechanism.upper())


@CONTENTS
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_swaks(relay: Relay, tmp_path: Path, mechanism: str, content: bytes) -> None:
    file = tmp_path / "message.eml"
    # It ends the last line itself, whether it was ended or not.
    file.write_bytes(content.removesuffix(b"\r\n").replace(b"\r\n", b"\n"))
    await run(
        *(program("swaks"), "--server", relay.host, "--port", str(relay.port)),
        *("--auth", mechanism, "--auth-user", MAILBOX, "--auth-password", PASSWORD),
        *("--ehlo", "client.example", "--from", SENDER, "--to", RECIPIENT),
        *("--data", f"@{file}", "--suppress-data"),
    )
    assert_sent(relay, content)
    assert await mechanism_used(relay, mechanism)


@CONTENTS
@pytest.mark.parametrize("at_once", [True, False], ids=["initial response", "two steps"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
async def test_smtplib(
    relay: Relay, token: str, mechanism: str, at_once: bool, content: bytes
) -> None:
    def send() -> None:
        with smtplib.SMTP(
            relay.host, relay.port, "client.example", timeout=PATIENCE_SECONDS
        ) as client:
            client.user, client.password = MAILBOX, PASSWORD
            client.ehlo()
            exchange = {
                "PLAIN": client.auth_plain,
                "LOGIN": client.auth_login,
                "XOAUTH2": lambda _=None: f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01",
            }[mechanism]
            code, _ = client.auth(mechanism, exchange, initial_response_ok=at_once)
            assert code == 235
            client.sendmail(SENDER, [RECIPIENT], content, ["BODY=8BITMIME"])

    await asyncio.to_thread(send)
    assert_sent(relay, content)
    assert await mechanism_used(relay, mechanism)


@CONTENTS
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2"])
async def test_aiosmtplib(relay: Relay, token: str, mechanism: str, content: bytes) -> None:
    async with aiosmtplib.SMTP(
        hostname=relay.host,
        port=relay.port,
        local_hostname="client.example",
        timeout=PATIENCE_SECONDS,
    ) as client:
        await client.ehlo()
        if mechanism == "XOAUTH2":
            await client.auth_xoauth2(MAILBOX, token)
        elif mechanism == "PLAIN":
            await client.auth_plain(MAILBOX, PASSWORD)
        else:
            await client.auth_login(MAILBOX, PASSWORD)
        await client.sendmail(SENDER, [RECIPIENT], content)
    assert_sent(relay, content)
    assert await mechanism_used(relay, mechanism)


async def test_a_client_that_is_refused_says_so(relay: Relay, tmp_path: Path) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(ASCII)
    with pytest.raises(AssertionError, match="curl ended with 67"):  # CURLE_LOGIN_DENIED
        await run(
            *(program("curl"), "--silent", "--show-error", "--disable"),
            *("--url", f"smtp://{relay.host}:{relay.port}", "--user", f"{MAILBOX}:guess"),
            *("--mail-from", SENDER, "--mail-rcpt", RECIPIENT, "--upload-file", str(file)),
        )
    assert relay.sandbox.received.total == 0
