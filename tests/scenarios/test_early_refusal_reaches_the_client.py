"""A provider that has seen enough of a message says so early: the client hears its words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.peers import serving
from tests.support.relay import MAILBOX
from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from tests.support.streams import dotted, send_large
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.peers import Peer

pytestmark = pytest.mark.both_loops

MEGABYTES = 2_000_000
BUFFERS = {"streamed": 4096, "gathered whole": 16_000_000}
CHUNKING = frozenset({"CHUNKING"})


@pytest.mark.parametrize("text", ["552 5.3.4 Too big", "452 4.3.1 Disk full", "421 4.3.2 Bye"])
@pytest.mark.parametrize("way", ["DATA", "BDAT", "CHUNKS"])
@pytest.mark.parametrize("withhold", [frozenset[str](), CHUNKING], ids=["by BDAT", "by DATA"])
@pytest.mark.parametrize("buffer", BUFFERS)
async def test_an_early_refusal_is_told_in_the_providers_words(
    start_relay: StartRelay,
    tmp_path: Path,
    text: str,
    way: str,
    withhold: frozenset[str],
    buffer: str,
) -> None:
    relay = await start_relay(
        one_account() | {"relay": {"buffer_bytes": BUFFERS[buffer]}},
        sandbox=Sandbox(tmp_path, withhold=withhold),
    )
    relay.sandbox.add_fault(reply_fault(Step.CONTENT, text))
    async with await relay.log_in() as client:
        answer = await send_large(client, way, dotted(MEGABYTES))
        assert str(answer) == text.replace("421", "451")
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("next"))).code == 250
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 1


async def too_small(peer: Peer) -> None:
    """Be a provider that refuses 100,000 octets of content and hangs up behind it."""
    peer.says("220 small.example")
    while line := await peer.line():
        match line.split()[0].upper():
            case b"EHLO":
                peer.says("250-small.example", "250-PIPELINING", "250 AUTH XOAUTH2")
            case b"AUTH":
                peer.says("235 2.7.0 in")
            case b"DATA":
                peer.says("354 go")
                await peer.expects(b"x" * 100_000)
                peer.says("552-5.3.4 Your message is", "552 5.3.4 too big for us")
                # In good order: what is still coming is read, or the reply would be lost.
                peer.writer.write_eof()
                await peer.rest()
                return
            case _:
                peer.says("250 2.0.0 ok")


@pytest.mark.parametrize("buffer", BUFFERS)
async def test_an_early_refusal_is_told_although_the_provider_hangs_up_behind_it(
    start_relay: StartRelay, buffer: str
) -> None:
    content = b"x" * 8_000_000 + b"\r\n"
    async with serving(too_small) as port:
        upstream = {"host": "localhost", "port": port, "tls": "none"}
        relay = await start_relay(
            one_account(email=MAILBOX, upstream=upstream)
            | {"relay": {"buffer_bytes": BUFFERS[buffer]}}
        )
        async with await relay.log_in() as client:
            answer = await send_large(client, "DATA", content)
            assert str(answer) == "552 5.3.4 Your message is too big for us"


@pytest.mark.parametrize("text", ["250 2.0.0 Kept", "354 More"])
@pytest.mark.parametrize("buffer", BUFFERS)
async def test_an_early_yes_never_counts_as_success(
    start_relay: StartRelay, tmp_path: Path, text: str, buffer: str
) -> None:
    relay = await start_relay(
        one_account() | {"relay": {"buffer_bytes": BUFFERS[buffer]}},
        sandbox=Sandbox(tmp_path, withhold=CHUNKING),
    )
    relay.sandbox.add_fault(reply_fault(Step.CONTENT, text))
    async with await relay.log_in() as client:
        answer = await send_large(client, "DATA", dotted(12_000_000))
        assert answer.code == 451
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("next"))).code == 250
    assert await relay.metric("xoauth2_proxy_messages_total", reply="2xx") == 1
