"""A large message is taken at any speed, whatever its number of lines, and arrives whole."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import message

if TYPE_CHECKING:
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

MEGABYTE = 1_000_000


async def test_a_megabyte_in_one_burst_arrives_whole(relay: Relay) -> None:
    content = message("burst", size_bytes=MEGABYTE)
    assert content.count(b"\r\n") > 10_000
    async with await relay.log_in() as client:
        answer = await client.send(content)
    assert answer.code == 250, str(answer)
    assert [kept.content for kept in relay.sandbox.received] == [content]


@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_hundred_megabytes_pass_over_one_session(relay: Relay) -> None:
    contents = [message(f"number {number}", size_bytes=MEGABYTE) for number in range(100)]
    async with await relay.log_in() as client:
        answers = [await client.send(content) for content in contents]
        assert (await client.command("QUIT")).code == 221
    assert {answer.code for answer in answers} == {250}
    arrived = [(kept.size_bytes, kept.sha256) for kept in relay.sandbox.received]
    assert arrived == [(len(content), hashlib.sha256(content).hexdigest()) for content in contents]
