"""A client that says all it has to say and closes its half is served to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import message
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops


async def test_message_quit_and_half_close_in_one_go(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Subject: bye\r\n\r\nbye\r\n.\r\nQUIT\r\n")
        client.writer.write_eof()
        await relay.sandbox.arrived(Step.END)
        relay.sandbox.end_delays()
        assert (await client.reply()).code == 250
        assert (await client.reply()).code == 221
        assert await client.closed()
    (kept,) = relay.sandbox.received
    assert kept.content == b"Subject: bye\r\n\r\nbye\r\n"


async def test_a_whole_pipelined_session_and_half_close(relay: Relay) -> None:
    async with await relay.log_in() as client:
        content = message("all at once")[:-2] + b"\r\n"
        client.write(
            b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\n"
            + b"BDAT %d LAST\r\n" % len(content)
            + content
            + b"QUIT\r\n"
        )
        client.writer.write_eof()
        codes = [(await client.reply()).code for _ in range(4)]
        assert codes == [250, 250, 250, 221]
    (kept,) = relay.sandbox.received
    assert kept.content == content


async def test_a_message_cut_short_is_not_delivered(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Subject: cut\r\n\r\nsho")
        client.writer.write_eof()
        assert await client.closed()
    assert relay.sandbox.arrivals(Step.CONNECT) == 0
    assert relay.sandbox.received.total == 0
