"""A message beyond the buffer is sent on while it arrives: octet for octet, and told truly."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from tests.support.streams import AT_REST, ONE_IDLE, Sending, dotted, pool_is, send_large, streaming
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay

pytestmark = pytest.mark.both_loops

LOCK_STEP = frozenset({"PIPELINING"})
REFUSALS = {
    Step.MAIL: "550 5.1.8 Not from there",
    Step.RCPT: "450 4.2.1 Mailbox busy",
    Step.DATA: "451 4.7.1 Not now",
    Step.CONTENT: "552 5.3.4 Too big for us",
    Step.END: "554 5.7.1 Looks like spam",
}


@pytest.mark.parametrize("withhold", [frozenset[str](), LOCK_STEP], ids=["plain", "lock step"])
@pytest.mark.parametrize("way", Sending.WAYS)
async def test_five_megabytes_arrive_octet_for_octet(
    start_relay: StartRelay, tmp_path: Path, way: str, withhold: frozenset[str]
) -> None:
    relay = await start_relay(streaming(), sandbox=Sandbox(tmp_path, withhold=withhold))
    content = dotted(5_000_000)
    async with await relay.log_in() as client:
        answer = await send_large(client, way, content)
        assert answer.code == 250, str(answer)
        assert (await client.send(message("next"))).code == 250
    large, _ = relay.sandbox.received
    assert (large.via, large.size_bytes) == ("DATA", len(content))
    assert large.sha256 == hashlib.sha256(content).hexdigest()
    assert large.id in answer.text[0]
    assert relay.sandbox.counters.connections_opened == 1
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 2
    size = await relay.metric("xoauth2_proxy_message_bytes_total")
    assert size >= len(content)


async def test_a_missing_line_end_is_added(start_relay: StartRelay) -> None:
    relay = await start_relay(streaming())
    content = dotted(50_000) + b"no line end"
    async with await relay.log_in() as client:
        assert (await send_large(client, "BDAT", content)).code == 250
    (kept,) = relay.sandbox.received
    assert kept.content == content + b"\r\n"


async def test_many_large_messages_share_one_connection(start_relay: StartRelay) -> None:
    relay = await start_relay(streaming())
    contents = [dotted(100_000, seed) for seed in range(12)]
    async with await relay.log_in() as client:
        for number, content in enumerate(contents):
            answer = await send_large(client, Sending.WAYS[number % 3], content)
            assert answer.code == 250
    assert [kept.content for kept in relay.sandbox.received] == contents
    assert relay.sandbox.counters.connections_opened == 1


@pytest.mark.parametrize("withhold", [frozenset[str](), LOCK_STEP], ids=["plain", "lock step"])
@pytest.mark.parametrize("step", REFUSALS, ids=str)
@pytest.mark.parametrize("way", Sending.WAYS)
async def test_a_refusal_is_told_once_everything_was_sent(
    start_relay: StartRelay, tmp_path: Path, way: str, step: Step, withhold: frozenset[str]
) -> None:
    relay = await start_relay(streaming(), sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(reply_fault(step, REFUSALS[step]))
    content = dotted(2_000_000)
    async with await relay.log_in() as client:
        sending = Sending(client, way)
        await sending.begin(len(content))
        sending.write(content[:100_000])
        if step is not Step.END:
            # The connection is free for others long before the client has finished.
            await pool_is(relay, AT_REST if step is Step.CONTENT else ONE_IDLE)
        sending.write(content[100_000:])
        assert str(await sending.end()) == REFUSALS[step]
        assert relay.sandbox.received.total == 0
        assert (await send_large(client, way, content)).code == 250
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.received.total == 2
    assert relay.sandbox.counters.connections_opened == (2 if step is Step.CONTENT else 1)


async def test_one_recipient_refused_of_two_stops_the_message_for_all(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(streaming())
    relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 Unknown", matching="two@"))
    async with await relay.log_in() as client:
        await client.envelope("one@example.net", "two@example.net")
        answer = await client.data(dotted(100_000))
        assert answer.code == 550
        assert answer.text[0].endswith("<two@example.net>: 550 5.1.1 Unknown")
        assert relay.sandbox.arrivals(Step.DATA) == 0
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.received.total == 1
