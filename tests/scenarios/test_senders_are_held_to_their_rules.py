"""A login with rules sends as the addresses that it may; every other octet of a message stays."""

from __future__ import annotations

import base64
import json
import logging
import re
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.scenarios.test_content_arrives_byte_for_byte import (
    by_bdat,
    by_data,
    by_data_in_pieces,
)
from tests.support.corpus import real_messages
from tests.support.documents import account
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.sender_oracle import others
from tests.support.waiting import until
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.sandbox.web import mime_view

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

    Submit = Callable[[Client, bytes], Awaitable[Reply]]

OWN = "own@example.com"
FOREIGN = b"From: Copier <copier@elsewhere.example>\r\nSubject: a scan\r\n\r\n.dot\r\n"
SIGNED = re.compile(rb"(?im)^(dkim-signature|arc-message-signature)[ \t]*:|multipart/signed")


async def by_chunks(client: Client, content: bytes) -> Reply:
    """Send chunks of 1, 2, 3 … octets up to one that is refused."""
    await client.command("MAIL FROM:<a@example.com> BODY=8BITMIME")
    await client.command("RCPT TO:<b@example.net>")
    size = 1
    while content:
        chunk, content = content[:size], content[size:]
        client.write(b"BDAT %d\r\n" % len(chunk) + chunk)
        if not (answer := await client.reply()).is_positive:
            await client.command("RSET")
            return answer
        size += 1 + size // 10
    return await client.command("BDAT 0 LAST")


WAYS = pytest.mark.parametrize("submit", [by_data, by_bdat, by_chunks, by_data_in_pieces])
UPSTREAM = pytest.mark.parametrize(
    "withhold", [frozenset[str](), frozenset({"CHUNKING"})], ids=["BDAT up", "DATA up"]
)
BUFFERS = pytest.mark.parametrize("buffer_bytes", [4096, 262_144], ids=["streamed", "whole"])


def held(senders: list[str], rule: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return an account's rules beside what else there is of it."""
    return account(senders=senders, **more) | ({} if rule is None else {"from": rule})


def shown_from(content: bytes | None) -> list[str]:
    """Return the From fields of a message as the sandbox's page shows them."""
    assert content is not None
    return [value for name, value in mime_view.read(content).fields if name.lower() == "from"]


@WAYS
@UPSTREAM
@BUFFERS
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_real_messages_get_another_from_and_keep_all_else(
    start_relay: StartRelay,
    tmp_path: Path,
    submit: Submit,
    withhold: frozenset[str],
    buffer_bytes: int,
) -> None:
    document: dict[str, object] = {
        "accounts": [held([OWN], {"rewrite": OWN})],
        "relay": {"buffer_bytes": buffer_bytes},
    }
    relay = await start_relay(document, sandbox=Sandbox(tmp_path, withhold=withhold))
    sent, signed = [], 0
    async with await relay.log_in() as client:
        for name, content in real_messages().items():
            answer = await submit(client, content)
            if answer.code == 250:
                sent.append(content)
                continue
            assert str(answer).startswith("550 5.7.1 "), f"{name}: {answer}"
            assert "cannot be changed in a signed message" in str(answer), f"{name}: {answer}"
            assert SIGNED.search(content.partition(b"\r\n\r\n")[0]), name
            signed += 1
    assert signed
    for content, kept in zip(sent, relay.sandbox.received, strict=True):
        header, _, body = content.partition(b"\r\n\r\n")
        assert kept.content is not None
        new_header, _, new_body = kept.content.partition(b"\r\n\r\n")
        assert new_body == body
        assert others(new_header + b"\r\n") == others(header + b"\r\n")
        (shown,) = shown_from(kept.content)
        assert re.fullmatch(rf"[^@]*<{OWN}>|{OWN}", shown, re.DOTALL), shown
        assert kept.reverse_path == OWN


@WAYS
@UPSTREAM
@BUFFERS
async def test_a_message_is_sent_untouched_or_not_at_all(
    start_relay: StartRelay,
    tmp_path: Path,
    submit: Submit,
    withhold: frozenset[str],
    buffer_bytes: int,
) -> None:
    document: dict[str, object] = {
        "accounts": [held([OWN, "*@example.com"])],
        "relay": {"buffer_bytes": buffer_bytes},
    }
    relay = await start_relay(document, sandbox=Sandbox(tmp_path, withhold=withhold))
    allowed = b'X:  y \r\nfROM :\t"A, B"\r\n\t<Any@Example.com>\r\n\r\n.\r\n' + b"z\r\n" * 5000
    async with await relay.log_in() as client:
        assert (await submit(client, allowed)).code == 250
        answer = await submit(client, FOREIGN + b"z\r\n" * 5000)
        assert str(answer) == (
            "550 5.7.1 copier@elsewhere.example in From is not allowed; "
            f"this login may send as {OWN}, *@example.com"
        )
        assert (await submit(client, allowed)).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [allowed, allowed]


@BUFFERS
async def test_recipients_that_are_verified_hear_of_the_rewritten_sender_only(
    start_relay: StartRelay, buffer_bytes: int
) -> None:
    verified = held([OWN], {"rewrite": OWN, "reply_to": True}, recipients="verified")
    strict = account(OTHER_MAILBOX, senders=[OWN], recipients="verified")
    relay = await start_relay(
        {"accounts": [verified, strict], "relay": {"buffer_bytes": buffer_bytes}}
    )
    content = FOREIGN + b"z\r\n" * 50_000
    async with await relay.log_in() as client:
        await client.envelope("to@example.net", sender="copier@elsewhere.example")
        assert (await client.data(content)).code == 250
    (kept,) = relay.sandbox.received
    assert kept.reverse_path == OWN
    assert kept.content == content.replace(
        b"From: Copier <copier@elsewhere.example>\r\n",
        b"From: Copier <own@example.com>\r\nReply-To: Copier <copier@elsewhere.example>\r\n",
    )
    async with await relay.log_in(OTHER_MAILBOX) as client:
        for _ in range(2):
            await client.envelope("to@example.net", sender=OWN)
            assert str(await client.data(content)).startswith("550 5.7.1 copier@elsewhere.example")
        await client.envelope("to@example.net", sender=OWN)
        assert (await client.data(b"From: own@example.com\r\n\r\nx\r\n")).code == 250
    assert len(list(relay.sandbox.received)) == 2


async def test_the_log_and_the_reply_tell_who_may_send(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start_relay({"accounts": [held([OWN])]})
    caplog.set_level(logging.INFO)
    async with await relay.log_in() as client:
        await client.envelope("to@example.net", sender=OWN)
        assert (await client.data(FOREIGN)).code == 550
        answer = await client.command("MAIL FROM:<copier@elsewhere.example>")
        assert str(answer) == (
            "550 5.7.1 The sender copier@elsewhere.example is not allowed; "
            f"this login may send as {OWN}"
        )
    await until(lambda: "client turned away" in caplog.messages)
    told = [
        record.__dict__.get("fields", {})
        for record in caplog.records
        if record.msg in ("transaction", "client turned away")
    ]
    assert [str(fields["reply"]) for fields in told] == [
        f"550 5.7.1 copier@elsewhere.example in From is not allowed; this login may send as {OWN}",
        "550 5.7.1 The sender copier@elsewhere.example is not allowed; "
        f"this login may send as {OWN}",
    ]
    assert told[1]["sender"] == "copier@elsewhere.example"
    assert "add this one to senders" in told[1]["remedy"]
    assert [*relay.sandbox.received] == []


async def test_each_credential_has_its_own_senders(start_relay: StartRelay) -> None:
    copier = {
        "name": "copier",
        "password": "k2mnp4qrs7tuv9wxyz23",
        "senders": ["copier@example.com"],
    }
    free = {"name": "free", "password": "k2mnp4qrs7tuv9wxyz24", "senders": ["*"], "from": {}}
    relay = await start_relay({"accounts": [held([OWN], credentials=[copier, free])]})
    allowed = {}
    for login, password in (
        (MAILBOX, PASSWORD),
        ("copier", "k2mnp4qrs7tuv9wxyz23"),
        ("free", "k2mnp4qrs7tuv9wxyz24"),
    ):
        async with await relay.log_in(login, password) as client:
            codes = []
            for sender in (OWN, "copier@example.com", "any@elsewhere.example"):
                codes.append((await client.command(f"MAIL FROM:<{sender}>")).code)
                await client.command("RSET")
            allowed[login] = codes
    assert allowed == {
        MAILBOX: [250, 550, 550],
        "copier": [550, 250, 550],
        "free": [250, 250, 250],
    }


async def test_a_clients_own_token_frees_nobody(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = await start_relay({"accounts": [held([OWN])]})
    token = MockTokens(load_signing_key(tmp_path)).mint(MAILBOX)
    line = base64.b64encode(f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01".encode()).decode()
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.command(f"AUTH XOAUTH2 {line}")).code == 235
        assert (await client.command("MAIL FROM:<copier@elsewhere.example>")).code == 550
        assert (await client.command(f"MAIL FROM:<{OWN}>")).code == 250


async def test_rules_that_are_read_again_hold_from_the_next_message_on(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    relay = await start_relay({"accounts": [account()]})
    async with await relay.log_in() as client:
        await client.envelope("to@example.net", sender="copier@elsewhere.example")
        await read_again(relay, tmp_path, held([OWN]))
        assert (await client.data(FOREIGN)).code == 250
        assert (await client.command("MAIL FROM:<copier@elsewhere.example>")).code == 550
        await read_again(relay, tmp_path, held([OWN], {"rewrite": OWN, "display_name": "Büro"}))
        await client.envelope("to@example.net", sender="copier@elsewhere.example")
        assert (await client.data(FOREIGN)).code == 250
    _, rewritten = relay.sandbox.received
    assert rewritten.content == FOREIGN.replace(
        b"Copier <copier@elsewhere.example>", b"=?utf-8?B?QsO8cm8=?= <own@example.com>"
    )
    assert shown_from(rewritten.content) == [f"Büro <{OWN}>"]


async def read_again(relay: Relay, directory: Path, entry: dict[str, Any]) -> None:
    (directory / "accounts.json").write_text(json.dumps({"accounts": [entry]}))
    headers = {"X-Requested-By": "a test"}
    async with (
        aiohttp.ClientSession(relay.admin_url, headers=headers) as http,
        http.post("/reload") as response,
    ):
        assert response.status == 200, await response.text()


async def test_a_device_that_cannot_log_in_is_held_to_its_senders(start_relay: StartRelay) -> None:
    copier = {"name": "copier", "networks": ["127.0.0.0/8"], "senders": ["copier@example.com"]}
    relay = await start_relay({"accounts": [account(credentials=[copier])]})
    async with await relay.connect() as client:
        await client.ehlo()
        answer = await client.command(f"MAIL FROM:<{OWN}>")
        assert str(answer) == (
            f"550 5.7.1 The sender {OWN} is not allowed; this login may send as copier@example.com"
        )
        await client.envelope("to@example.net", sender="copier@example.com")
        assert (await client.data(FOREIGN)).code == 550
        await client.envelope("to@example.net", sender="copier@example.com")
        assert (await client.data(b"From: copier@example.com\r\n\r\nx\r\n")).code == 250


@WAYS
@BUFFERS
@pytest.mark.parametrize("line_end", [b"\n", b"\r\r\n"])
async def test_a_header_is_checked_and_changed_as_its_repaired_line_ends_make_it(
    start_relay: StartRelay, submit: Submit, buffer_bytes: int, line_end: bytes
) -> None:
    relaying = {"relay": {"buffer_bytes": buffer_bytes}}
    content = FOREIGN.replace(b"\r\n", line_end) + b"z\r\n" * 3000
    hidden = b"From: own@example.com\r\nSubject: a\nFrom: b@elsewhere.example\r\n\r\nx\r\n"
    relay = await start_relay({"accounts": [held([OWN, "a@example.com"])], **relaying})
    async with await relay.log_in() as client:
        for one in (content, hidden):
            assert str(await submit(client, one)).startswith("550 5.7.1 ")
    assert relay.sandbox.received.total == 0
    relay = await start_relay({"accounts": [held([OWN], {"rewrite": OWN})], **relaying})
    async with await relay.log_in() as client:
        assert (await submit(client, content)).code == 250
    (kept,) = relay.sandbox.received
    assert shown_from(kept.content) == [f"Copier <{OWN}>"]
    _, _, body = FOREIGN.partition(b"\r\n\r\n")
    assert (kept.content or b"").endswith(b"\r\n\r\n" + body + b"z\r\n" * 3000)
