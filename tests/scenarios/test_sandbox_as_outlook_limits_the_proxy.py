"""The sandbox with Outlook's limits: a proxy that keeps them is never refused, another is.

Three connections of a mailbox may send; the fourth's message is answered 432 behind its dot.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account, upstream_at
from tests.support.relay import MAILBOX, Relay
from tests.support.sandbox import Sandbox
from xoauth2_proxy.sandbox.settings_document import read_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import StartRelay

CONTENT = b"Subject: a\r\n\r\nb\r\n"
CLIENTS = 12


@pytest.fixture
async def outlook(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """Accepts slowly, so that as many connections as the proxy opens are busy at one time."""
    settings = read_settings(
        {"profile": "outlook", "overrides": {"accept_seconds": 0.15, "refusal_seconds": 0.0}}
    )
    async with Sandbox(tmp_path, settings, http_port=None) as sandbox:
        yield sandbox


async def codes(relay: Relay) -> Counter[int]:
    """Return how many messages got which reply."""

    clients = [await relay.log_in(MAILBOX) for _ in range(CLIENTS)]
    answers = await asyncio.gather(*(client.send(CONTENT) for client in clients))
    for client in clients:
        await client.close()
    return Counter(answer.code for answer in answers)


@pytest.mark.parametrize(("connections", "is_refused"), [(3, False), (6, True)])
async def test_only_who_opens_more_than_three_connections_is_refused(
    start_relay: StartRelay, outlook: Sandbox, connections: int, is_refused: bool
) -> None:
    limits = {"max_connections": connections}
    relay = await start_relay(one_account(upstream=upstream_at(outlook), limits=limits))
    found = await codes(relay)
    assert found[250] + found[451] == CLIENTS, found
    assert outlook.received.total == found[250]
    assert bool(found[451]) == is_refused
    refused = outlook.counters.refused_by_limit.get("max_connections_per_mailbox", 0)
    assert refused >= found[451]
    assert bool(refused) == is_refused
    assert (outlook.counters.peak_by_mailbox[MAILBOX] > 3) == is_refused
