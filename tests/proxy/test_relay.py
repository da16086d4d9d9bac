"""One message to the provider: what is tried again, what never is, and what is told of it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.parts import Parts, parts
from tests.support.refreshers import ScriptedRefresher
from tests.support.sandbox import reply_fault
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import replies
from xoauth2_proxy.accounts.accounts import Login
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointUnavailable
from xoauth2_proxy.log import LOGGER_NAME
from xoauth2_proxy.message import Message
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope, Reply, reply

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.oauth.grant import AccessToken

pytestmark = pytest.mark.both_loops

CONTENT = Content(b"Message-ID: <1@x>\r\nSubject: a\r\n\r\n.b\r\n", is_stuffed=False)


async def send(made: Parts, *recipients: str, content: Content = CONTENT) -> Reply:
    envelope = Envelope("from@example.com", list(recipients or ("to@example.net",)))
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await made.relay.relay(Message(Login(made.account), envelope, "a-1"), content)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """Return the fields of the relay's log lines, with the message."""
    return [
        {"message": record.getMessage(), **getattr(record, "fields", {})}
        for record in caplog.records
        if record.name == f"{LOGGER_NAME}.relay"
    ]


async def test_the_reply_is_the_providers(made: Parts) -> None:
    answer = await send(made, "one@example.net", "two@example.net")
    (message,) = made.sandbox.received
    assert answer.code == 250
    assert message.id in answer.text[0]
    assert message.content == CONTENT.octets
    assert message.reverse_path == "from@example.com"
    assert message.forward_paths == ("one@example.net", "two@example.net")


async def test_a_refusal_is_the_providers_and_the_next_message_goes(made: Parts) -> None:
    made.sandbox.add_fault(reply_fault(Step.END, "550 5.7.1 Looks like spam"))
    assert await send(made) == reply(550, "7.1", "Looks like spam")
    assert (await send(made)).is_positive
    assert made.sandbox.counters.connections_opened == 1


async def test_421_becomes_451_and_the_connection_is_not_used_again(made: Parts) -> None:
    made.sandbox.add_fault(reply_fault(Step.END, "421 4.7.0 Too fast"))
    assert await send(made) == reply(451, "7.0", "Too fast")
    assert (await send(made)).is_positive
    assert made.sandbox.counters.connections_opened == 2


# Tried again, once.


async def test_a_kept_connection_that_died_unnoticed_is_replaced(made: Parts) -> None:
    await send(made)
    made.sandbox.add_fault(Fault(Step.MAIL, Action.DROP))
    made.pool._pools[next(iter(made.pool._pools))].idle[0].last_used_at -= 10.0
    assert (await send(made)).is_positive
    assert made.sandbox.received.total == 2
    assert made.sandbox.counters.connections_opened == 2


async def test_421_at_mail_is_tried_again_on_a_new_connection(made: Parts) -> None:
    await send(made)
    made.sandbox.add_fault(reply_fault(Step.MAIL, "421 4.4.2 Idle for too long"))
    assert (await send(made)).is_positive
    assert made.sandbox.received.total == 2
    assert made.sandbox.counters.connections_opened == 2


async def test_the_second_attempt_trusts_no_kept_connection(made: Parts) -> None:
    made.sandbox.add_fault(Fault(Step.END, Action.DELAY, seconds=3600))
    first = asyncio.create_task(send(made))
    await made.sandbox.arrived(Step.END)
    await send(made)
    made.sandbox.end_delays()
    await first
    assert repr(made.pool) == "<Pool 0 leased or opening, 2 idle, 0 waiting>"
    made.sandbox.add_fault(reply_fault(Step.MAIL, "421 4.4.2 Idle for too long"))
    assert (await send(made)).is_positive
    assert made.sandbox.counters.connections_opened == 3


async def test_a_second_loss_is_told_and_not_tried_again(made: Parts) -> None:
    made.sandbox.add_fault(reply_fault(Step.MAIL, "421 4.3.2 Shutting down", nth=None))
    assert await send(made) == reply(451, "3.2", "Shutting down")
    assert made.sandbox.arrivals(Step.MAIL) == 2
    assert repr(made.pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_two_connections_lost_without_a_word_are_told(made: Parts) -> None:
    made.sandbox.add_fault(Fault(Step.MAIL, Action.DROP, nth=None))
    recipients = ("one@example.net", "two@example.net")  # content waits for the envelope
    assert await send(made, *recipients) is replies.UPSTREAM_LOST
    assert made.sandbox.arrivals(Step.MAIL) == 2
    assert repr(made.pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


# Never tried again.


@pytest.mark.parametrize("action", [Action.DROP, Action.ACCEPT_THEN_DROP, Action.RESET])
async def test_after_the_last_octet_nothing_is_tried_again(
    made: Parts, action: Action, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    made.sandbox.add_fault(Fault(Step.END, action))
    assert await send(made) is replies.UPSTREAM_LOST
    assert made.sandbox.arrivals(Step.MAIL) == 1
    (line,) = lines(caplog)
    assert line["message"] == "outcome unknown"
    assert line["id"] == "a-1"
    assert line["message_id"] == "<1@x>"


async def test_a_message_id_that_comes_in_pieces_is_told(
    made: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    made.sandbox.add_fault(Fault(Step.END, Action.DROP))
    envelope = Envelope("from@example.com", ["to@example.net"])
    streaming = made.relay.stream(Message(Login(made.account), envelope, "a-1"))
    async with asyncio.timeout(PATIENCE_SECONDS):
        for part in (b"Subject: a\r\nMessage-", b"ID: <1@x>\r\n"):
            if (waiting := streaming.write(part, is_stuffed=False)) is not None:
                await waiting
        assert await streaming.finish(b"\r\nb\r\n", is_stuffed=False) is replies.UPSTREAM_LOST
    (line,) = lines(caplog)
    assert line["message_id"] == "<1@x>"


async def test_lost_in_the_middle_of_content_is_told(made: Parts) -> None:
    made.sandbox.add_fault(Fault(Step.CONTENT, Action.RESET))
    content = Content(b"x" * 4_000_000 + b"\r\n", is_stuffed=False)
    assert await send(made, content=content) is replies.UPSTREAM_LOST
    assert made.sandbox.arrivals(Step.MAIL) == 1
    assert made.sandbox.received.total == 0


@pytest.mark.parametrize("answer", ["550 5.7.1 no", "451 4.3.0 later", "503 5.5.1 what"])
async def test_a_refusal_is_not_tried_again(made: Parts, answer: str) -> None:
    made.sandbox.add_fault(reply_fault(Step.MAIL, answer, nth=None))
    assert not (await send(made)).is_positive
    assert made.sandbox.arrivals(Step.MAIL) == 1


# Whatever goes wrong.


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (GrantRevoked("invalid_grant"), replies.GRANT_ENDED),
        (TokenEndpointUnavailable("503"), replies.TOKEN_UNAVAILABLE),
        (ValueError("ya29.secret"), replies.TOKEN_UNAVAILABLE),
    ],
)
async def test_no_error_escapes(
    tmp_path: Path, error: Exception, answer: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    refresher = ScriptedRefresher()
    refresher.fails_with = error
    async with parts(tmp_path, refresher) as made:
        assert await send(made) is answer
        assert made.count("messages_total", reply=f"{answer.code // 100}xx") == 1
        assert repr(made.pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"
    assert lines(caplog)[-1]["reply"] is answer


async def test_no_free_connection_in_time_is_busy(tmp_path: Path) -> None:
    async with parts(tmp_path, max_connections=1, wait_seconds=0.05) as made:
        made.sandbox.add_fault(Fault(Step.END, Action.STALL))
        stalled = asyncio.create_task(send(made))
        await made.sandbox.arrived(Step.END)
        assert await send(made) is replies.UPSTREAM_BUSY
        stalled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stalled
        assert repr(made.pool) == "<Pool 0 leased or opening, 0 idle, 0 waiting>"


async def test_a_token_of_the_clients_own_is_what_the_message_is_sent_with(
    tmp_path: Path,
) -> None:
    refresher = ScriptedRefresher()
    async with parts(tmp_path, refresher) as made:
        login = Login(made.account, access_token=made.sandbox.tokens.mint("someone@example.com"))
        message = Message(login, Envelope("a@x", ["b@y"]), "a-1")
        answer = await made.relay.relay(message, CONTENT)
        assert answer.is_positive
    assert refresher.asked == []


async def test_a_token_refused_at_the_provider_is_replaced_once(made: Parts) -> None:
    first = await made.tokens.token_for(made.account)
    made.sandbox.revoke(first.value)
    assert (await send(made)).is_positive
    second: AccessToken = await made.tokens.token_for(made.account)
    assert second is not first
    assert made.sandbox.counters.auth_refused == 1


# What is told of it.


async def test_a_message_is_counted_and_logged(
    made: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, LOGGER_NAME)
    answer = await send(made)
    (line,) = lines(caplog)
    expected = {
        "message": "transaction",
        "id": "a-1",
        "account": "someone@example.com",
        "sender": "from@example.com",
        "credential": "",
        "recipients": 1,
        "recipient": "to@example.net",
        "message_id": "<1@x>",
        "bytes": len(CONTENT.octets),
        "reply": answer,
    }
    assert expected.items() <= line.items()
    assert line.keys() - expected.keys() == {"wait_seconds", "relay_seconds"}
    assert made.count("messages_total", reply="2xx") == 1
    assert made.count("message_bytes_total") == len(CONTENT.octets)
    assert made.count("relay_duration_seconds_count") == 1
    assert made.count("pool_wait_seconds_count") == 1


async def test_a_wait_in_vain_is_measured_as_well(tmp_path: Path) -> None:
    async with parts(tmp_path, max_connections=1, wait_seconds=0.05) as made:
        made.sandbox.add_fault(Fault(Step.END, Action.STALL))
        stalled = asyncio.create_task(send(made))
        await made.sandbox.arrived(Step.END)
        before = made.count("pool_wait_seconds_count"), made.count("pool_wait_seconds_sum")
        assert await send(made) is replies.UPSTREAM_BUSY
        assert made.count("pool_wait_seconds_count") > before[0]
        assert made.count("pool_wait_seconds_sum") > before[1] + 0.025  # loops round timers
        stalled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stalled


async def test_an_opening_in_vain_is_measured_as_well(made: Parts) -> None:
    made.sandbox.add_fault(Fault(Step.CONNECT, Action.DROP))
    assert await send(made) is replies.UPSTREAM_UNREACHABLE
    assert made.count("pool_wait_seconds_count") >= 1
    assert made.count("pool_wait_seconds_sum") > 0
