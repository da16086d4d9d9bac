"""The administrator's story: a proxy runs, nobody has signed in, and there is no screen.

All of it is real: the commands and the proxy are processes, the identity provider signs the tokens,
Dovecot judges them, and Postfix puts the mail into a Maildir.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import CommandLine
from tests.support.identity_server import CONFIDENTIAL
from tests.support.person import Person
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess
    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer
    from tests.support.proxy_process import ProxyProcess
    from xoauth2_proxy.smtp.protocol import Reply

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

MAILBOX = "scanner@example.test"
PASSWORD = "what the scanner knows"
OFFICE = "office@example.test"
CONTENT = b"From: scanner@example.test\r\nSubject: page 1\r\n\r\nA page.\r\n"
BRIEF_TOKEN_SECONDS = 2  # a wait for its end


@pytest.fixture
def document(identity_provider: IdentityProvider, mail_server: MailServer) -> dict[str, object]:
    company = {
        "refresher": "oidc",
        "issuer": identity_provider.issuer,
        "ca_file": str(identity_provider.ca_file),
        "client_id": CONFIDENTIAL,
        "client_secret": identity_provider.secret(CONFIDENTIAL),
        "scopes": "smtp",
        "upstream": {
            "host": mail_server.host,
            "port": mail_server.port,
            "tls": "starttls",
            "ca_file": str(mail_server.ca_file),
        },
    }
    scanner = {"email": MAILBOX, "provider": "company", "password": PASSWORD}
    return {"providers": {"company": company}, "accounts": [scanner]}


@pytest.fixture
async def proxy(start_process: StartProcess, document: dict[str, object]) -> ProxyProcess:
    return await start_process(document)


@pytest.fixture
def command_line(
    proxy: ProxyProcess, tmp_path: Path, identity_provider: IdentityProvider
) -> CommandLine:
    """Where the administrator types, on the machine of the running proxy."""
    made = CommandLine(tmp_path / "proxy.json", tmp_path)
    made.secrets.add(identity_provider.secret(CONFIDENTIAL))
    return made


async def log_in(proxy: ProxyProcess) -> Reply:
    """Return what a client hears at AUTH."""
    async with await proxy.connect() as client:
        await client.ehlo()
        return await client.auth_plain(MAILBOX, PASSWORD)


async def is_served(proxy: ProxyProcess) -> bool:
    return (await log_in(proxy)).code == 235


async def is_refused(proxy: ProxyProcess) -> bool:
    return (await log_in(proxy)).code == 535


async def send(proxy: ProxyProcess) -> None:
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        await client.envelope(OFFICE, sender=MAILBOX)
        answer = await client.data(CONTENT)
        assert answer.code == 250, str(answer)


async def sign_in(command_line: CommandLine, provider: IdentityProvider) -> None:
    """Sign in by --paste: the person's browser is on another machine."""
    async with command_line.start("login", MAILBOX, "--paste") as command:
        async with Person(provider) as person:
            redirect = await person.sign_in(await command.url(), MAILBOX)
        command_line.note_code(redirect)
        await command.type(redirect)
        assert await command.ends() == 0, command.text
    assert f"Signed in: {MAILBOX}, as {MAILBOX}" in command.lines
    assert f"Kept in:   {command_line.state_dir / 'tokens'}" in command.lines


async def test_from_an_unsigned_mailbox_to_mail_in_the_maildir(
    proxy: ProxyProcess,
    command_line: CommandLine,
    identity_provider: IdentityProvider,
    mail_server: MailServer,
) -> None:
    refused = await log_in(proxy)
    assert (refused.code, refused.enhanced) == (535, "5.7.8")
    assert f"xoauth2-proxy login {MAILBOX}" in proxy.stderr
    status = await command_line.ask("status")
    assert status.code == 1
    assert "✗ sign-in needed" in status.stdout
    assert f"{command_line.program} login {MAILBOX}" in status.stdout

    await sign_in(command_line, identity_provider)
    await until(lambda: is_served(proxy))
    await send(proxy)
    await until(lambda: len(mail_server.received) == 1)

    status = await command_line.ask("status")
    assert status.code == 0
    assert status.lines[1].startswith(f"{MAILBOX}  ✓ ok ")
    assert " s ago" in status.lines[1]
    assert "in 49 min" in status.lines[1]
    doctor = await command_line.run("doctor", MAILBOX, "--send-to", OFFICE)
    assert doctor.code == 0, doctor.text
    assert [line[0] for line in doctor.lines[:14]] == ["✓"] * 14
    assert "queued as" in doctor.lines[13]
    assert doctor.lines[-1] == f"{MAILBOX} is well."
    await until(lambda: len(mail_server.received) == 2)
    # The doctor's forced refresh replaced the refresh token, and the proxy lives with it.
    await send(proxy)
    assert len(command_line.secrets) >= 6  # two tokens at each time, a code and a secret
    assert command_line.leaked(proxy.stdout, proxy.stderr) == []


async def test_a_revoked_sign_in_is_told_and_mended_while_the_proxy_runs(
    proxy: ProxyProcess, command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    identity_provider.set(access_token_seconds=BRIEF_TOKEN_SECONDS)
    await sign_in(command_line, identity_provider)
    await until(lambda: is_served(proxy))

    identity_provider.revoke(MAILBOX)
    await until(lambda: is_refused(proxy))
    identity_provider.reset()  # the tokens of the next sign-in last as long as usual
    assert "oauth_error=invalid_grant" in proxy.stderr
    status = await command_line.ask("status")
    assert status.code == 1
    assert "The sign-in is no longer valid" in status.text
    doctor = await command_line.run("doctor", MAILBOX)
    assert doctor.code == 1
    failed = next(line for line in doctor.lines if line.startswith("✗"))
    assert failed.startswith("✗ access token ")
    assert "invalid_grant" in failed
    assert f"What to do:  sign in again: {command_line.program} login {MAILBOX}" in doctor.lines

    await sign_in(command_line, identity_provider)
    await until(lambda: is_served(proxy))
    assert (await command_line.ask("status")).code == 0
    assert command_line.leaked(proxy.stdout, proxy.stderr) == []
