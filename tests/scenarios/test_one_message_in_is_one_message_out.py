"""Whatever a client sends around a dot, a lenient server behind the relay gets one message of it.

Every pair of up to three CRs and LFs around a dot, as DATA and as BDAT, cut at every place, whole
and streamed, to a server that takes BDAT and to one that does not, on a listener that repairs line
ends and on a strict one.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from tests.support.documents import one_account
from tests.support.lenient_server import LenientServer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.submission.session import ClientSession

ENDS = [b"", b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r", b"\n\n", b"\r\r\n", b"\r\n\r", b"\n\r\n"]
VARIANTS = [before + b"." + after for before, after in itertools.product(ENDS, ENDS)]
SMUGGLED = b"MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nsmuggled\r\n"
MAIL = b"MAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\n"
BUFFER_BYTES = 4096
BARE = re.compile(rb"\r(?!\n)|(?<!\r)\n")
TRUE_END = b"\r\n.\r\n"


def contents(way: str, *, is_start: bool) -> Iterator[tuple[bytes, int]]:
    """Yield contents that hold a variant, and where it begins.

    `is_start`: they begin a message, which a variant then does as well.
    """
    for variant in VARIANTS:
        for before in (b"", b"Subject: a\r\n\r\nb")[0 if is_start else 1 :]:
            content = before + variant + SMUGGLED
            if way == "BDAT" or TRUE_END not in b"\r\n" + content:
                yield content, len(before)


def pieces_of(octets: bytes, start: int, end: int) -> Iterator[list[bytes]]:
    """Yield the octets whole, cut in two at each place there, and octet by octet there."""
    yield [octets]
    for at in range(start, end):
        yield [octets[:at], octets[at:]]
    yield [octets[:start], *(octets[at : at + 1] for at in range(start, end)), octets[end:]]


class Talk:
    """A client whose octets reach its session in the pieces that a test chooses."""

    def __init__(self, client: Client, session: ClientSession, way: str) -> None:
        self._client, self._session, self._way = client, session, way

    async def send(self, content: bytes, at: int, pieces: list[bytes], padding: bytes) -> int:
        """Send one message; return the code of its final reply."""
        said = self._session.data_received
        said(MAIL)
        for _ in range(2):
            assert (await self._client.reply()).code == 250
        if self._way == "DATA":
            said(b"DATA\r\n")
            assert (await self._client.reply()).code == 354
            for piece in [padding, *pieces, b".\r\n"]:
                await self._hear(piece)
        else:
            await self._hear(b"BDAT %d\r\n" % len(padding) + padding)
            for piece in pieces:
                await self._hear(b"BDAT %d\r\n" % len(piece) + piece)
            await self._hear(b"BDAT 0 LAST\r\n")
            for _ in range(1 + len(pieces)):
                assert (await self._client.reply()).code == 250
        return (await self._client.reply()).code

    async def _hear(self, octets: bytes) -> None:
        # Like a transport, which does not read while the session has paused it.
        if self._session._is_reading_paused:
            await until(lambda: not self._session._is_reading_paused)
        self._session.data_received(octets)


async def talk(relay: Relay, way: str) -> tuple[Client, Talk]:
    client = await relay.log_in()
    (session,) = relay.sessions()
    return client, Talk(client, session, way)


@pytest.mark.parametrize("way", ["DATA", "BDAT"])
@pytest.mark.parametrize("chunking", [True, False], ids=["BDAT up", "DATA up"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("strict", [False, True], ids=["tolerant", "strict"])
async def test_no_variant_of_the_end_makes_a_second_message(
    start_relay: StartRelay, way: str, chunking: bool, streams: bool, strict: bool
) -> None:
    padding = b"padding\r\n" * 700 if streams else b""
    async with LenientServer(chunking=chunking) as server:
        relay = await start_relay(
            one_account(upstream=server.upstream, limits={"max_messages_per_connection": 10_000})
            | {
                "relay": {"buffer_bytes": BUFFER_BYTES},
                "listener": {"strict": strict, "max_commands": 100_000},
            }
        )
        client, talking = await talk(relay, way)
        sent = 0
        async with client:
            for content, at in contents(way, is_start=not streams):
                for pieces in pieces_of(content, at, at + 8):
                    code = await talking.send(content, at, pieces, padding)
                    is_refused = strict and BARE.search(content) is not None
                    assert code == (550 if is_refused else 250), pieces
                    sent += not is_refused
                    assert len(server.messages) == sent, pieces
        assert sent >= (30 if streams else 50)
        for sender, recipients, content in server.messages:
            assert sender.startswith(b"FROM:<a@x.example>")
            assert recipients.startswith(b"TO:<b@y.example>")
            assert b"smuggled" in content
            assert not BARE.search(content)
