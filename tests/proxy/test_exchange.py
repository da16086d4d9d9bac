"""What every way of sending has in common: MAIL's parameters, joined refusals, spent sessions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import MAIL, RCPT, envelope
from xoauth2_proxy import replies
from xoauth2_proxy.errors import ExtensionMissing, OutcomeUnknown
from xoauth2_proxy.smtp.protocol import Envelope, Reply, reply
from xoauth2_proxy.upstream.envelope import EnvelopeSender, TransactionRefused, close_if_spent
from xoauth2_proxy.upstream.stream import StreamingTransaction

if TYPE_CHECKING:
    from tests.support.peers import Upstreams

pytestmark = pytest.mark.both_loops


EVERYTHING = {"SIZE": "35882577", "8BITMIME": "", "SMTPUTF8": "", "PIPELINING": ""}


@pytest.mark.parametrize(
    ("extensions", "size_bytes", "is_ascii", "parameters"),
    [
        (EVERYTHING, 7, True, " SIZE=7 BODY=8BITMIME SMTPUTF8"),
        (EVERYTHING, 0, False, " BODY=8BITMIME SMTPUTF8"),
        ({"8BITMIME": "", "SMTPUTF8": ""}, 7, False, " BODY=8BITMIME SMTPUTF8"),
        ({"SIZE": ""}, 7, True, " SIZE=7"),
        ({}, 7, True, ""),
    ],
)
async def test_mail_says_what_the_provider_understands(
    network: Upstreams,
    extensions: dict[str, str],
    size_bytes: int,
    is_ascii: bool,
    parameters: str,
) -> None:
    connection, _ = await network.connect(extensions)
    sender = Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True)
    commands = EnvelopeSender(connection, sender)._envelope_commands(size_bytes, is_ascii=is_ascii)
    assert commands == [f"MAIL FROM:<a@x>{parameters}\r\n".encode(), RCPT]


@pytest.mark.parametrize(
    ("extensions", "sender", "answer"),
    [
        ({"SMTPUTF8": ""}, Envelope("a@x", ["b@y"], body_8bit=True), replies.EIGHT_BIT_UNSUPPORTED),
        ({"8BITMIME": ""}, Envelope("a@x", ["b@y"], smtputf8=True), replies.SMTPUTF8_UNSUPPORTED),
    ],
)
async def test_content_not_known_yet_needs_what_its_envelope_declares(
    network: Upstreams, extensions: dict[str, str], sender: Envelope, answer: Reply
) -> None:
    connection, _ = await network.connect(extensions)
    with pytest.raises(ExtensionMissing) as caught:
        EnvelopeSender(connection, sender)._envelope_commands(0, is_ascii=False)
    assert caught.value.reply is answer
    assert connection.transactions == 0
    # ASCII throughout needs neither.
    EnvelopeSender(connection, sender)._envelope_commands(0, is_ascii=True)


@pytest.mark.parametrize("extensions", [{"PIPELINING": ""}, {}], ids=["pipelining", "lock step"])
@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (("250 a", "450 4.2.1 b", "450 4.2.2 c"), "450 4.2.1"),
        (("450 4.2.1 a", "550 5.1.1 b", "551 5.1.6 c"), "550 5.1.1"),
    ],
)
async def test_refused_recipients_are_told_by_name_and_the_gravest_code(
    network: Upstreams, extensions: dict[str, str], answers: tuple[str, ...], told: str
) -> None:
    connection, peer = await network.connect(extensions)
    exchange = EnvelopeSender(connection, envelope("a@y", "b@y", "c@y"))
    commands = exchange._envelope_commands(0, is_ascii=True)
    sending = asyncio.create_task(exchange._send_envelope(commands))
    for line in ("250 ok", *answers):
        await peer.line()
        peer.says(line)
    with pytest.raises(TransactionRefused) as caught:
        await sending
    answer = caught.value.reply
    assert f"{answer.code} {answer.enhanced}" == told
    wanted = [
        f"<{path}>: {said}"
        for path, said in zip(("a@y", "b@y", "c@y"), answers, strict=True)
        if not said.startswith("2")
    ]
    assert answer.text == (*wanted, "The message was sent to no one")
    assert connection.is_usable


async def test_a_lone_recipients_refusal_stays_as_it_is(network: Upstreams) -> None:
    connection, peer = await network.connect({"PIPELINING": ""})
    exchange = EnvelopeSender(connection, envelope())
    sending = asyncio.create_task(
        exchange._send_envelope(exchange._envelope_commands(0, is_ascii=True))
    )
    await peer.expects_flight(MAIL + RCPT)
    peer.says("250 ok", "550-5.1.1 The account does not exist.", "550 5.1.1 Look it up.")
    with pytest.raises(TransactionRefused) as caught:
        await sending
    assert caught.value.reply == reply(550, "1.1", "The account does not exist.", "Look it up.")


@pytest.mark.parametrize("answer", ["250 2.1.5 Recipient OK", "251 2.0.0 forwarded", "220 ready"])
async def test_a_yes_to_something_else_is_no_yes_to_the_message(
    network: Upstreams, answer: str
) -> None:
    connection, peer = await network.connect({})
    ending = asyncio.create_task(StreamingTransaction(connection, envelope()).end(b".\r\n"))
    await peer.expects(b".\r\n")
    peer.says(answer)
    with pytest.raises(OutcomeUnknown):
        await ending


@pytest.mark.parametrize(
    ("code", "is_kept"),
    [(250, True), (550, True), (451, True), (552, True)]
    + [(code, False) for code in (421, 432, 500, 502, 503, 504, 530, 538, 555, 354)],
)
async def test_a_connection_of_no_further_use_is_closed(
    network: Upstreams, code: int, is_kept: bool
) -> None:
    connection, peer = await network.connect({})
    close_if_spent(connection, Reply(code, "", ("x",)))
    assert connection.is_usable is is_kept
    if not is_kept:
        assert await peer.rest() == b"QUIT\r\n"
