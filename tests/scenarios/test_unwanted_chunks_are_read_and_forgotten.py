"""A BDAT that may not be: its octets are read, for they follow at once, and kept nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import message
from xoauth2_proxy import replies
from xoauth2_proxy.smtp import content
from xoauth2_proxy.submission import transaction

if TYPE_CHECKING:
    from tests.support.relay import Relay
    from xoauth2_proxy.smtp.protocol import Reply

pytestmark = pytest.mark.both_loops

MEGABYTES = 8_000_000


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much every collector of the relay was given, one item each."""
    sizes: list[int] = []

    class Watched(content.Collector):
        def __init__(self, max_bytes: int, *, is_strict: bool) -> None:
            super().__init__(max_bytes, is_strict=is_strict)
            self._number = len(sizes)
            sizes.append(0)

        def add(self, chunk: bytes) -> None:
            super().add(chunk)
            sizes[self._number] += len(chunk)

    monkeypatch.setattr(transaction, "Collector", Watched)
    return sizes


@pytest.mark.parametrize("is_last", [True, False], ids=["last", "not last"])
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ([], replies.AUTH_REQUIRED),
        (["EHLO client.example"], replies.AUTH_REQUIRED),
        (["AUTH"], replies.BAD_SEQUENCE),
        (["AUTH", "MAIL FROM:<a@example.com>"], replies.BAD_SEQUENCE),
        (["AUTH", "MAIL FROM:<a@example.com>", "RCPT TO:<>"], replies.NO_VALID_RECIPIENTS),
    ],
    ids=["nothing", "EHLO", "AUTH", "MAIL", "RCPT refused"],
)
async def test_megabytes_nobody_asked_for_are_answered_and_not_kept(
    relay: Relay, gathered: list[int], said: list[str], told: Reply, is_last: bool
) -> None:
    has_login = said[:1] == ["AUTH"]
    async with await (relay.log_in() if has_login else relay.connect()) as client:
        for line in said[has_login:]:
            await client.command(line)
        chunk = b"BDAT %d%b\r\n" % (MEGABYTES, b" LAST" if is_last else b"")
        for _ in range(3):
            client.write(chunk + b"x" * MEGABYTES)
        client.write(b"NOOP\r\n")
        answers = [await client.reply() for _ in range(4)]
        assert answers[0] == told
        assert {answer.code for answer in answers[1:3]} <= {503, 530}
        assert answers[3] == replies.OK
        assert sum(gathered) == 0
        (session,) = relay.app._listeners[0]._sessions
        assert not session._dialogue.unread_bytes
    # What was refused stood in nobody's way.
    async with await relay.log_in() as client:
        assert (await client.send(message())).code == 250
    assert relay.sandbox.counters.connections_opened == 1
    assert sum(gathered) > 0, "the watch does not watch"
