"""The whole way with real programs: an identity provider, the proxy, Dovecot and Postfix.

The proxy fetches tokens of npm's certified `oidc-provider`, Dovecot verifies them by itself, and
Postfix puts the mail into a Maildir.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.identity_server import APPLICATION
from tests.support.waiting import until
from xoauth2_proxy.smtp.sasl import xoauth2_response

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess
    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer
    from tests.support.proxy_process import ProxyProcess
    from tests.support.smtp_client import Client

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

MAILBOX = "scanner@example.test"
STRANGER = "director@example.test"
PASSWORD = "what the scanner knows"
CONTENT = (  # with all the fields that Postfix would otherwise add
    b"Date: Fri, 20 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@example.test>\r\n"
    b"From: scanner@example.test\r\nTo: office@example.test\r\nSubject: page 1\r\n\r\nA page.\r\n"
)


def document(provider: IdentityProvider, server: MailServer) -> dict[str, object]:
    """Return the configuration of a mailbox and of one that the tokens do not open."""
    upstream = {
        "host": server.host,
        "port": server.port,
        "tls": "starttls",
        "ca_file": str(server.ca_file),
    }
    keycloak = {
        "refresher": "oidc",
        "upstream": upstream,
        "issuer": provider.issuer,
        "ca_file": str(provider.ca_file),
        "grant": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": provider.secret(APPLICATION),
        "parameters": {"resource": provider.audience},
    }
    accounts = [
        {"email": mailbox, "provider": "company", "password": PASSWORD}
        for mailbox in (MAILBOX, STRANGER)
    ]
    return {"providers": {"company": keycloak}, "accounts": accounts}


async def log_in(proxy: ProxyProcess, mailbox: str) -> Client:
    client = await proxy.connect()
    await client.ehlo()
    answer = await client.auth_plain(mailbox, PASSWORD)
    assert answer.code == 235, str(answer)
    return client


async def test_a_message_arrives_in_the_maildir(
    start_process: StartProcess, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(application_mailbox=MAILBOX)
    proxy = await start_process(document(identity_provider, mail_server))
    async with await log_in(proxy, MAILBOX) as client:
        for _ in range(3):
            await client.envelope("office@example.test", sender=MAILBOX)
            answer = await client.data(CONTENT)
            assert answer.code == 250, f"{answer}\n{proxy.stderr}\n{mail_server.log}"
            assert "queued as" in answer.text[0]  # Postfix's own words
    await until(lambda: len(mail_server.received) == 3)
    for message in mail_server.received:
        assert message.replace(b"\n", b"\r\n").endswith(CONTENT)
    assert identity_provider.counters().token_requests("client_credentials") == 1


async def test_another_mailboxs_token_is_refused_by_the_server_and_told_as_such(
    start_process: StartProcess, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(application_mailbox=MAILBOX)
    proxy = await start_process(document(identity_provider, mail_server))
    async with await log_in(proxy, STRANGER) as client:
        await client.envelope("office@example.test", sender=STRANGER)
        answer = await client.data(CONTENT)
    assert (answer.code, answer.enhanced) == (550, "5.7.8"), str(answer)
    assert mail_server.received == []


async def token_of_its_own(provider: IdentityProvider) -> str:
    """Return a token that a client got without the proxy."""
    form = {
        "grant_type": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": provider.secret(APPLICATION),
        "resource": provider.audience,
    }
    async with (
        aiohttp.ClientSession() as http,
        http.post(provider.token_endpoint, data=form, ssl=provider.trust()) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return str((await answer.json())["access_token"])


async def test_a_client_may_bring_a_token_and_dovecot_has_the_say(
    start_process: StartProcess, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(application_mailbox=MAILBOX)
    token = await token_of_its_own(identity_provider)
    proxy = await start_process(document(identity_provider, mail_server))
    async with await proxy.connect() as client:
        await client.ehlo()
        forged = token[:-8] + "AAAAAAAA"
        for given, expected in ((forged, 535), (token, 235)):
            await client.command("AUTH XOAUTH2")
            answer = await client.command(xoauth2_response(MAILBOX, given))
            if answer.code == 334:
                answer = await client.command("")
            assert answer.code == expected, str(answer)
        await client.envelope("office@example.test", sender=MAILBOX)
        assert (await client.data(CONTENT)).code == 250
    await until(lambda: len(mail_server.received) == 1)
