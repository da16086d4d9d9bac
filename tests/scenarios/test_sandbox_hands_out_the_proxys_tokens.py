"""A relay whose mailbox is renewed at the sandbox's token endpoint sends through the sandbox.

The refresher is the one for any OpenID provider; a proxy that is started again is a process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.documents import upstream_at
from tests.support.proxy_process import ProxyProcess
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.sandbox import Sandbox
from xoauth2_proxy.sandbox.faults import TokenAction, TokenFault
from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.one_loop

CONTENT = b"Subject: a\r\n\r\nb\r\n"
SETTINGS = {
    "profile": "gmail",
    "token_endpoint": {"rotation": "strict", "clients": {"me": "s3cret"}},
}


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    settings = read_settings(SETTINGS)
    async with Sandbox(tmp_path / "sandbox", settings) as sandbox:
        yield sandbox


def document(sandbox: Sandbox, **oauth: object) -> dict[str, object]:
    keys = {
        "oauth_token_url": f"{sandbox.http_url}/oauth/token",
        "client_id": "me",
        "client_secret": "s3cret",
        "refresh_token": PLAIN_REFRESH_TOKEN + MAILBOX,
    } | oauth
    account: dict[str, object] = {
        "email": MAILBOX,
        "provider": "oidc",
        "password": PASSWORD,
        "upstream": upstream_at(sandbox),
    }
    account |= {key: value for key, value in keys.items() if value is not None}
    return {"accounts": [account]}


async def send(proxy: ProxyProcess | Relay) -> Reply:
    """Return the reply to the login where it fails, else the one to a message."""
    client = await proxy.connect()
    async with client:
        await client.ehlo()
        answer = await client.auth_plain(MAILBOX, PASSWORD)
        if answer.code != 235:
            return answer
        return await client.send(CONTENT, "someone@example.com")


@pytest.mark.parametrize(
    "oauth",
    [
        {},
        {"oauth_token_url": None, "issuer": "the sandbox's"},
        {
            "grant": "client_credentials",
            "refresh_token": None,
            "parameters": {"mailbox": MAILBOX},
        },
    ],
    ids=["refresh token", "found by discovery", "client credentials"],
)
async def test_a_message_is_sent_with_a_token_from_there(
    start_relay: StartRelay, sandbox: Sandbox, oauth: dict[str, object]
) -> None:
    if "issuer" in oauth:
        oauth = oauth | {"issuer": sandbox.http_url}
    relay = await start_relay(document(sandbox, **oauth))
    for _ in range(3):
        answer = await send(relay)
        assert answer.code == 250, str(answer)
    assert [message.content for message in sandbox.received] == [CONTENT] * 3
    assert sandbox.counters.token_requests == 1


async def test_the_rotated_grant_survives_a_restart_of_the_proxy(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    for _ in range(3):
        async with ProxyProcess(tmp_path, document(sandbox)) as proxy:
            assert (await send(proxy)).code == 250
            await proxy.stop()
        sandbox.revoke_all()  # so that each start needs another token
    assert sandbox.counters.token_requests >= 3
    assert sandbox.counters.faults_met == {}


async def test_a_token_refused_by_the_server_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.add_fault(TokenFault(TokenAction.EXPIRED))
    async with ProxyProcess(tmp_path, document(sandbox)) as proxy:
        assert (await send(proxy)).code == 250
    assert sandbox.counters.token_requests == 2
    assert sandbox.counters.faults_met == {"token:expired": 1}


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (TokenAction.RATE_LIMITED, 454),
        (TokenAction.UNAVAILABLE, 454),
        (TokenAction.GARBAGE, 454),
        (TokenAction.TRUNCATED, 454),
        (TokenAction.INVALID_CLIENT, 454),
        (TokenAction.INVALID_GRANT, 535),
        (TokenAction.INTERACTION_REQUIRED, 535),
    ],
)
async def test_trouble_there_is_told_to_the_client(
    start_relay: StartRelay, sandbox: Sandbox, action: TokenAction, code: int
) -> None:
    sandbox.add_fault(TokenFault(action, nth=None))
    answer = await send(await start_relay(document(sandbox)))
    assert answer.code == code, str(answer)
    assert sandbox.received.total == 0
