"""Large content, and every way for a client to send it; what the relay holds meanwhile."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.support.documents import one_account
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

BUFFER_BYTES = 4096
AT_REST = "<Pool 0 leased or opening, 0 idle, 0 waiting>"
ONE_IDLE = "<Pool 0 leased or opening, 1 idle, 0 waiting>"


def streaming(limit: int = 36_700_160, **account: object) -> dict[str, object]:
    """Return a configuration in which all but small messages are sent on while they arrive."""
    relaying = {"buffer_bytes": BUFFER_BYTES, "max_message_bytes": limit}
    return one_account(**account) | {"relay": relaying}


def dotted(size_bytes: int, seed: int = 0) -> bytes:
    """Return content of about that size with dots before and behind line ends everywhere."""
    chance = random.Random(seed)
    lines = [b"", b".", b"..", b"...", b".x", b"x.", b"\t.", b". ."]
    block = b"".join(
        chance.choice(lines) + b"y" * chance.choice((0, 0, 1, 2, 3, 97)) + b"\r\n"
        for _ in range(1009)
    )
    head = b"Message-ID: <large@example.com>\r\nSubject: large\r\n\r\n"
    return head + block * (1 + size_bytes // len(block))


def odd_chunks(content: bytes, seed: int = 0) -> Iterator[bytes]:
    """Cut content into chunks of 1 octet to about 100,000."""
    chance = random.Random(seed)
    at = 0
    while at < len(content):
        size = chance.choice((1, 2, 3, 5, 4095, 4096, 4097, 65_537, chance.randrange(1, 100_000)))
        yield content[at : at + size]
        at += size


class Sending:
    """A message on its way from a client, to be written piece by piece.

    `way` is DATA, BDAT (one chunk) or CHUNKS (a chunk of BDAT for each piece).
    """

    WAYS = ("DATA", "BDAT", "CHUNKS")

    def __init__(self, client: Client, way: str) -> None:
        self._client = client
        self._way = way
        self._chunks = 0
        self._line_end = b"\r\n"  # how what was written ends, for dot-stuffing

    async def begin(self, size_bytes: int) -> None:
        """Send the envelope and what comes before the content."""
        await self._client.envelope("to@example.net")
        if self._way == "DATA":
            assert (await self._client.command("DATA")).code == 354
        elif self._way == "BDAT":
            self._client.write(b"BDAT %d LAST\r\n" % size_bytes)

    def write(self, piece: bytes) -> None:
        """Send a piece of the content."""
        if self._way == "DATA":
            window = self._line_end + piece
            self._client.write(window.replace(b"\r\n.", b"\r\n..")[len(self._line_end) :])
            self._line_end = b"\r\n" if window.endswith(b"\r\n") else window[-1:]
            self._line_end = self._line_end if self._line_end in (b"\r\n", b"\r") else b""
        elif self._way == "BDAT":
            self._client.write(piece)
        else:
            self._client.write(b"BDAT %d\r\n" % len(piece) + piece)
            self._chunks += 1

    async def end(self, chunk_code: int = 250) -> Reply:
        """Send the end and return the final reply; earlier chunks must be answered 250."""
        if self._way == "DATA":
            self._client.write(b".\r\n")
        elif self._way == "CHUNKS":
            self._client.write(b"BDAT 0 LAST\r\n")
            codes = {(await self._client.reply()).code for _ in range(self._chunks)}
            assert codes <= {chunk_code}
        return await self._client.reply()


async def send_large(client: Client, way: str, content: bytes) -> Reply:
    """Send a message in odd pieces and return its final reply."""
    sending = Sending(client, way)
    await sending.begin(len(content))
    for piece in odd_chunks(content):
        sending.write(piece)
    return await sending.end()


async def pool_is(relay: Relay, state: str) -> None:
    """Wait until the pool of upstream connections is in this state."""
    await until(lambda: repr(relay.app._pool) == state)
