"""A device whose message ends with LF.LF waits for a reply: it is told why, and nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.streams import dotted, streaming
from tests.support.turned_away import turned_away
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.clients.interface import Refused
from xoauth2_proxy.submission import session

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from xoauth2_proxy.clients.interface import ConnectedClient

pytestmark = pytest.mark.both_loops

ENDS = [b"\n.\n", b"\r\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n"]


@pytest.fixture
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the relay wait briefly behind such an end; its other patience stays as it is."""
    monkeypatch.setattr(session, "_MISTAKEN_END_SECONDS", 0.2)


def reasons_heard(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> list[Refused | None]:
    """Return a list that gets the reason of each client that is turned away."""
    heard: list[Refused | None] = []
    (listening,) = relay.sessions()
    observer = listening._client.observer

    class Listening:
        def turned_away(self, client: ConnectedClient) -> None:
            heard.append(client.reason)
            observer.turned_away(client)

    monkeypatch.setattr(listening._client, "observer", Listening())
    return heard


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.usefixtures("short_wait")
async def test_a_mistaken_end_is_answered_soon_and_its_message_goes_nowhere(
    start_relay: StartRelay, end: bytes, strict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await start_relay(one_account() | {"listener": {"strict": strict}})
    async with await relay.log_in() as client:
        heard = reasons_heard(relay, monkeypatch)
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"Subject: a\n\nb" + end)
        assert await client.reply() == replies.NO_END_OF_DATA
        assert await client.closed()
    assert heard == [Refused.NO_END_OF_DATA]
    assert relay.sandbox.received.total == 0


SCRIPT = b"DATA\nSubject: a\n\nb\n.\nQUIT\n"


@pytest.mark.usefixtures("short_wait")
@pytest.mark.parametrize("closes", [False, True])
async def test_a_script_that_sends_all_at_once_is_told_too(
    relay: Relay, closes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        client.write(SCRIPT)
        assert (await client.reply()).code == 354
        if closes:
            client.writer.write_eof()
        else:
            assert await client.reply() == replies.NO_END_OF_DATA
        assert await client.closed()
    (told,) = turned_away(caplog)
    assert told["reason"] == Refused.NO_END_OF_DATA
    assert "CRLF" in str(told)
    assert relay.sandbox.received.total == 0


@pytest.mark.usefixtures("short_wait")
async def test_a_mistaken_end_of_a_streamed_message_is_answered_too(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(streaming())
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(dotted(20_000).replace(b"\r\n.", b"\r\n..") + b"b\n.\n")
        assert await client.reply() == replies.NO_END_OF_DATA
        assert await client.closed()
    assert relay.sandbox.received.total == 0


@pytest.mark.parametrize("end", ENDS)
async def test_content_that_goes_on_behind_a_lone_dot_is_one_message(
    relay: Relay, end: bytes
) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(b"a" + end)
        (listening,) = relay.sessions()
        await until(lambda: listening._dialogue.has_mistaken_end)
        client.write(b"b\r\n.\r\n")
        assert (await client.reply()).is_positive
        assert not listening._dialogue.has_mistaken_end
    (arrived,) = relay.sandbox.received
    content = arrived.content or b""
    assert (content[:1], content[-3:]) == (b"a", b"b\r\n")


@pytest.mark.usefixtures("short_wait")
async def test_the_true_end_may_be_cut_anywhere_and_come_late(relay: Relay) -> None:
    async with await relay.log_in() as client:
        await client.envelope("to@example.net")
        assert (await client.command("DATA")).code == 354
        for octet in b"a\r\n.\r":
            client.write(bytes([octet]))
        (listening,) = relay.sessions()
        await until(lambda: listening._dialogue._data._tail == b"\r\n.\r")
        listening._look_at_the_clock()
        assert not listening._dialogue.is_closed
        client.write(b"\n")
        assert (await client.reply()).is_positive
