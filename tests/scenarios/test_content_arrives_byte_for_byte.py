"""Whatever a message holds, the provider gets it octet for octet, by DATA and by BDAT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.corpus import real_messages
from tests.support.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

    Submit = Callable[[Client, bytes], Awaitable[Reply]]

HEAD = b"From: a@example.com\r\nSubject: odd\r\n\r\n"
EVERY_OCTET = bytes(octet for octet in range(256) if octet not in b"\r\n\0")
GENERATED = {
    "empty": b"",
    "a line end": b"\r\n",
    "a dot": b".\r\n",
    "two dots": b"..\r\n",
    "dots only": b".\r\n..\r\n...\r\n....\r\n",
    "a dot at the start of the content": b".Subject: x\r\n\r\nx\r\n",
    "dots at the starts of lines": HEAD + b".a\r\n..b\r\n...\r\n. \r\n.\r\n" * 20,
    "a dot after every line end": HEAD + b"\r\n." * 5000 + b"\r\n",
    "almost the end of data": HEAD + b"x.\r\n\r\n .\r\n\r\n..\r\n\r\n",
    "8-bit": HEAD + "Grüße – 你好 🚀\r\n".encode() * 50,
    "latin-1": HEAD + "Grüße aus Köln\r\n".encode("latin-1") * 50,
    "every octet but CR, LF and NUL": HEAD + (EVERY_OCTET + b"\r\n") * 20,
    "a line of 998": HEAD + b"x" * 998 + b"\r\n",
    "a line of 999": HEAD + b"x" * 999 + b"\r\n",
    "a line of 100,000": HEAD + b"y" * 100_000 + b"\r\n",
    "a line of a million": HEAD + b"z" * 1_000_000 + b"\r\n",
    "no header": b"\r\nonly a body\r\n",
    "only a header": HEAD,
    "a huge header": b"".join(b"X-%d: %b\r\n" % (n, b"v" * 900) for n in range(2000)) + HEAD,
    "a header line of 200,000": b"X: " + b"v" * 200_000 + b"\r\n" + HEAD,
    "blank lines at the end": HEAD + b"x\r\n" + b"\r\n" * 1000,
    "white space at the ends of lines": HEAD + b"x \t \r\n \r\n\t\r\n" * 100,
    "commands": HEAD + b"QUIT\r\nRSET\r\nBDAT 0 LAST\r\nMAIL FROM:<>\r\n" * 10,
    "above one flight": HEAD + b"0123456789\r\n" * 30_000,
}
SIZES = (65_535, 65_536, 65_537, 131_072, 262_143, 262_144, 262_145)  # the edges of our buffers


async def by_data(client: Client, content: bytes) -> Reply:
    await client.command("MAIL FROM:<a@example.com> BODY=8BITMIME")
    await client.command("RCPT TO:<b@example.net>")
    return await client.data(content)


async def by_bdat(client: Client, content: bytes) -> Reply:
    await client.command("MAIL FROM:<a@example.com> BODY=8BITMIME")
    await client.command("RCPT TO:<b@example.net>")
    client.write(b"BDAT %d LAST\r\n" % len(content) + content)
    return await client.reply()


async def by_bdat_in_chunks(client: Client, content: bytes) -> Reply:
    """Send chunks of 1, 2, 3 … octets: every line end and dot is cut in two sooner or later."""
    await client.command("MAIL FROM:<a@example.com> BODY=8BITMIME")
    await client.command("RCPT TO:<b@example.net>")
    size = 1
    rest = content
    while len(rest) > size:
        chunk, rest = rest[:size], rest[size:]
        client.write(b"BDAT %d\r\n" % len(chunk) + chunk)
        assert (await client.reply()).code == 250
        size += 1 + size // 10
    client.write(b"BDAT %d\r\n" % len(rest) + rest)
    assert (await client.reply()).code == 250
    return await client.command("BDAT 0 LAST")


async def by_data_in_pieces(client: Client, content: bytes) -> Reply:
    """Send DATA in writes of a few octets, each on its own."""
    await client.command("MAIL FROM:<a@example.com> BODY=8BITMIME")
    await client.command("RCPT TO:<b@example.net>")
    assert (await client.command("DATA")).code == 354
    stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
    at, size = 0, 1
    while at < len(stuffed):
        client.write(stuffed[at : at + size])
        await client.writer.drain()
        at += size
        size = size % 4000 + 1 + size // 20
    return await client.reply()


async def assert_unchanged(relay: Relay, submit: Submit, contents: dict[str, bytes]) -> None:
    async with await relay.log_in() as client:
        for name, content in contents.items():
            answer = await submit(client, content)
            assert answer.code == 250, f"{name}: {answer}"
    changed = [
        name
        for (name, content), kept in zip(contents.items(), relay.sandbox.received, strict=True)
        if kept.content != content
    ]
    assert not changed


WAYS = pytest.mark.parametrize("submit", [by_data, by_bdat, by_bdat_in_chunks, by_data_in_pieces])
UPSTREAM = pytest.mark.parametrize(
    "withhold", [frozenset[str](), frozenset({"CHUNKING"})], ids=["BDAT up", "DATA up"]
)


@WAYS
@UPSTREAM
async def test_generated_messages(
    start_relay: StartRelay, tmp_path: Path, submit: Submit, withhold: frozenset[str]
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    await assert_unchanged(relay, submit, GENERATED)


@WAYS
@UPSTREAM
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_real_messages(
    start_relay: StartRelay, tmp_path: Path, submit: Submit, withhold: frozenset[str]
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    await assert_unchanged(relay, submit, real_messages())


@UPSTREAM
@pytest.mark.parametrize("submit", [by_data, by_bdat])
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_messages_whose_line_ends_meet_the_edges_of_buffers(
    start_relay: StartRelay, tmp_path: Path, submit: Submit, withhold: frozenset[str]
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    contents = {
        f"{size} {shift}": b"x" * (size - shift) + b"\r\n.\r\n..\r\nend\r\n"
        for size in SIZES
        for shift in range(8)
    }
    await assert_unchanged(relay, submit, contents)


async def test_a_missing_last_line_end_is_added(relay: Relay) -> None:
    async with await relay.log_in() as client:
        assert (await by_bdat(client, HEAD + b"unended")).code == 250
    assert [kept.content for kept in relay.sandbox.received] == [HEAD + b"unended\r\n"]
