"""What MAIL says to a provider, by what the provider understands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.transactions import (
    BOTH,
    begin,
)
from xoauth2_proxy import replies
from xoauth2_proxy.errors import ExtensionMissing
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope, Reply

if TYPE_CHECKING:
    from tests.support.peers import Upstreams


UTF8 = Envelope("é@x", ["b@y"], smtputf8=True)


@pytest.mark.parametrize(
    ("extensions", "to", "mail"),
    [
        ({"SIZE": "1000"}, Envelope("a@x", ["b@y"]), "MAIL FROM:<a@x> SIZE=18"),
        ({}, Envelope("", ["b@y"]), "MAIL FROM:<>"),
        (
            {"8BITMIME": ""},
            Envelope("a@x", ["b@y"], body_8bit=True),
            "MAIL FROM:<a@x> BODY=8BITMIME",
        ),
        ({"8BITMIME": ""}, Envelope("a@x", ["b@y"]), "MAIL FROM:<a@x>"),
        ({"SMTPUTF8": ""}, UTF8, "MAIL FROM:<é@x> SMTPUTF8"),
        ({}, Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True), "MAIL FROM:<a@x>"),
        (
            {"SIZE": "", "8BITMIME": "", "SMTPUTF8": ""},
            Envelope("a@x", ["b@y"], body_8bit=True, smtputf8=True),
            "MAIL FROM:<a@x> SIZE=18 BODY=8BITMIME SMTPUTF8",
        ),
    ],
)
async def test_mail_says_what_the_provider_understands(
    network: Upstreams, extensions: dict[str, str], to: Envelope, mail: str
) -> None:
    connection, peer = await network.connect(extensions)
    sending = begin(connection, to)
    await peer.expects(f"{mail}\r\n".encode())
    peer.says("550 5.0.0 no")
    assert not (await sending).is_positive


NOTIFY = Envelope("a@x", ["b@y"], notifications={0: " NOTIFY=NEVER ORCPT=rfc822;b@y"})


async def test_notifications_are_asked_for_as_the_client_did(network: Upstreams) -> None:
    connection, peer = await network.connect({"PIPELINING": "", "DSN": ""})
    to = replace(NOTIFY, ret="HDRS", envid="QQ+2B1")
    sending = begin(connection, to)
    await peer.expects(
        b"MAIL FROM:<a@x> RET=HDRS ENVID=QQ+2B1\r\n"
        b"RCPT TO:<b@y> NOTIFY=NEVER ORCPT=rfc822;b@y\r\nDATA\r\n"
    )
    peer.says("550 5.0.0 no", "503 no", "503 no")
    assert not (await sending).is_positive


@pytest.mark.parametrize(
    ("to", "content", "answer"),
    [
        (Envelope("a@x", ["b@y"], body_8bit=True), b"\xe9\r\n", replies.EIGHT_BIT_UNSUPPORTED),
        (Envelope("a@x", ["b@y"], smtputf8=True), b"\xc3\xa9\r\n", replies.SMTPUTF8_UNSUPPORTED),
        (UTF8, b"a\r\n", replies.SMTPUTF8_UNSUPPORTED),
        (Envelope("a@x", ["é@y"], smtputf8=True), b"a\r\n", replies.SMTPUTF8_UNSUPPORTED),
        (Envelope("a@x", ["b@y"], ret="HDRS"), b"a\r\n", replies.DSN_UNSUPPORTED),
        (Envelope("a@x", ["b@y"], envid="id"), b"a\r\n", replies.DSN_UNSUPPORTED),
        (NOTIFY, b"a\r\n", replies.DSN_UNSUPPORTED),
    ],
)
async def test_what_the_provider_cannot_take_is_refused_before_a_word_is_said(
    network: Upstreams, to: Envelope, content: bytes, answer: Reply
) -> None:
    connection, peer = await network.connect(BOTH)
    with pytest.raises(ExtensionMissing) as missing:
        await connection.send_message(to, Content(content, is_stuffed=False))
    assert missing.value.reply is answer
    connection.close()
    assert await peer.rest() == b"QUIT\r\n"
