"""Mail programs send straight to the provider with tokens of the proxy's store.

The recipes are those of docs/token-manager.md. The provider is npm's `oidc-provider`; Dovecot
verifies the tokens, and Postfix puts the mail into a Maildir.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import smtplib
import ssl
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.identity_server import APPLICATION
from tests.support.programs import program, run
from tests.support.proxy_process import ROOT
from tests.support.waiting import until
from xoauth2_proxy.token_manager import BlockingTokenManager

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

MAILBOX = "scanner@example.test"
RECIPIENT = "office@example.test"
MESSAGE = (
    b"Date: Fri, 20 Nov 2026 09:00:00 +0000\nMessage-ID: <1@example.test>\n"
    b"From: scanner@example.test\nTo: office@example.test\nSubject: page 1\n\nA page.\n"
)


@pytest.fixture
def token_command(
    identity_provider: IdentityProvider, mail_server: MailServer, tmp_path: Path
) -> str:
    """The command line of a proxy with one mailbox, for a shell."""
    identity_provider.set(application_mailbox=MAILBOX)
    company = {
        "refresher": "oidc",
        "upstream": {"host": mail_server.host, "port": mail_server.port, "tls": "starttls"},
        "issuer": identity_provider.issuer,
        "ca_file": str(identity_provider.ca_file),
        "grant": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": identity_provider.secret(APPLICATION),
        "parameters": {"resource": identity_provider.audience},
    }
    account = {"email": MAILBOX, "provider": "company", "password": "unused here"}
    config = tmp_path / "accounts.json"
    config.write_text(json.dumps({"providers": {"company": company}, "accounts": [account]}))
    words = (sys.executable, "-m", "xoauth2_proxy", "--config", config, "--state-dir", tmp_path)
    # Found from wherever the mail program runs it.
    return f"cd {shlex.quote(str(ROOT))} && {shlex.join(map(str, words))} token {MAILBOX}"


async def test_msmtp_by_passwordeval(token_command: str, mail_server: MailServer) -> None:
    for _ in range(2):
        await run(
            *(program("msmtp"), "--file=/dev/null", "--auth=xoauth2", "--tls=on"),
            *("--tls-starttls=on", f"--tls-trust-file={mail_server.ca_file}"),
            *(f"--host={mail_server.host}", f"--port={mail_server.port}", f"--user={MAILBOX}"),
            *(f"--passwordeval={token_command}", f"--from={MAILBOX}", "--", RECIPIENT),
            octets=MESSAGE,
        )
    await until(lambda: len(mail_server.received) == 2)


async def test_a_shell_script_with_curl(
    token_command: str, mail_server: MailServer, tmp_path: Path
) -> None:
    file = tmp_path / "message.eml"
    file.write_bytes(MESSAGE)
    # The token goes in by standard input: others can see arguments.
    script = f"""set -e
token=$({token_command})
printf 'oauth2-bearer = "%s"\\n' "$token" | {program("curl")} --disable --silent --show-error \\
    --config - --ssl-reqd --cacert {mail_server.ca_file} --crlf \\
    --url smtp://{mail_server.host}:{mail_server.port} --user {MAILBOX}: \\
    --mail-from {MAILBOX} --mail-rcpt {RECIPIENT} --upload-file {file}
"""
    await run("/bin/sh", "-c", script)
    await until(lambda: len(mail_server.received) == 1)


async def test_python_with_smtplib(
    token_command: str, mail_server: MailServer, tmp_path: Path
) -> None:
    assert token_command

    def send() -> None:
        with (
            BlockingTokenManager.open(tmp_path / "accounts.json", tmp_path) as tokens,
            smtplib.SMTP(mail_server.host, mail_server.port) as smtp,
        ):
            token = tokens.get_token(MAILBOX)
            smtp.starttls(context=ssl.create_default_context(cafile=mail_server.ca_file))
            smtp.ehlo()
            said = f"user={MAILBOX}\1auth={token.authorization}\1\1"
            smtp.auth("XOAUTH2", lambda challenge=None: said if challenge is None else "")
            smtp.sendmail(MAILBOX, RECIPIENT, MESSAGE)

    await asyncio.to_thread(send)
    await until(lambda: len(mail_server.received) == 1)


async def test_all_of_them_use_the_one_token_of_the_store(
    token_command: str, identity_provider: IdentityProvider, tmp_path: Path
) -> None:
    printed = await asyncio.gather(*(run("/bin/sh", "-c", token_command) for _ in range(3)))
    with BlockingTokenManager.open(tmp_path / "accounts.json", tmp_path) as tokens:
        kept = (await asyncio.to_thread(tokens.get_token, MAILBOX)).access_token
    assert set(printed) == {f"{kept}\n"}
    assert identity_provider.counters().token_requests("client_credentials") == 1
