"""Tokens that end every other second while mail flows: every message arrives, and arrives once."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.documents import id_in, one_account, upstream_at
from tests.support.relay import MAILBOX
from tests.support.smtp_client import message
from tests.support.token_endpoint import Answer, Request, TokenEndpoint, answer
from tests.support.waiting import PATIENCE_SECONDS, seconds_for
from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.sandbox import Sandbox

# One loop is enough: it takes seconds, for each message costs a login upstream.
pytestmark = pytest.mark.one_loop

CONNECTIONS = 10
LIMITS = {"max_connections": CONNECTIONS, "max_messages_per_connection": 1}
MESSAGES = 300  # at least; and as many as it takes to see several tokens end
PAUSE_SECONDS = 0.15  # after each, so that the time until tokens end is not spent on sending alone
LIVES = 3


async def test_no_message_is_lost_or_doubled_when_tokens_end(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    tokens = MockTokens(load_signing_key(tmp_path))
    life = await short_life(start_relay)
    relay = await start_relay(
        one_account(limits=LIMITS),
        refreshers={"mock": MockRefresher(tokens, lifetime_seconds=life)},
    )
    await flow(relay, relay.sandbox, life)


async def test_nor_when_they_come_from_a_token_endpoint(
    start_relay: StartRelay, provider: Sandbox
) -> None:
    """The same over HTTP, with refresh tokens; the life is a whole number of seconds there."""
    life = await short_life(start_relay)

    def granted(request: Request) -> Answer:
        assert request.form["grant_type"] == "refresh_token"
        token = provider.tokens.mint(MAILBOX, ttl_seconds=life)
        return answer({"access_token": token, "expires_in": life})

    async with TokenEndpoint() as endpoint:
        endpoint.route(urlsplit(endpoint.token_url).path, granted)
        relay = await start_relay(
            one_account(
                provider="oidc",
                client_id="relay",
                refresh_token="1//a person's",
                oauth_token_url=endpoint.token_url,
                upstream=upstream_at(provider),
                limits=LIMITS,
            )
        )
        await flow(relay, provider, life)
        assert len(endpoint.requests) >= LIVES - 1


async def short_life(start_relay: StartRelay) -> int:
    """Return how long tokens live that end while messages flow, but not on their way.

    The sandbox refuses a token from then on. It is 2 s on a fast machine.
    """
    relay = await start_relay(one_account(limits=LIMITS))
    async with await relay.log_in() as client:
        took_seconds = await seconds_for(client.send(message()))
    return max(2, math.ceil(100 * took_seconds))


async def flow(relay: Relay, sandbox: Sandbox, life: int) -> None:
    """Send until several tokens have ended; each message was taken, and taken once."""
    sent: list[str] = []  # the ids that clients were told

    loop = asyncio.get_running_loop()
    started = loop.time()

    async def submit(connection: int) -> None:
        async with await relay.log_in() as client:
            while len(sent) < MESSAGES or loop.time() < started + LIVES * life:
                taken = await client.send(message(f"{connection}, after {len(sent)}"))
                sent.append(id_in(taken))
                await asyncio.sleep(PAUSE_SECONDS)

    async with asyncio.timeout(LIVES * life + PATIENCE_SECONDS):
        await asyncio.gather(*(submit(connection) for connection in range(CONNECTIONS)))
    lives = (loop.time() - started) / life
    assert Counter(one.id for one in sandbox.received) == Counter(sent)
    opened = sandbox.counters.connections_opened
    assert opened >= len(sent), "tokens were hardly ever presented"
    # On a slow machine a token may end on its way to the provider, with all messages that are on
    # theirs; it is replaced.
    assert sandbox.counters.auth_refused <= CONNECTIONS * (lives + 1)
    renewals = await relay.metric("xoauth2_proxy_token_refreshes_total", result="ok")
    assert lives - 1 <= renewals <= 3 * lives + 1
    assert await relay.metric("xoauth2_proxy_token_refreshes_total") == renewals
