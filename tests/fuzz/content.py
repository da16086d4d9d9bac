"""Fuzz target: content in pieces, against `reference`.

The first octet chooses how the rest is cut and how much is allowed.
"""

from __future__ import annotations

import random

from tests.fuzz import reference
from xoauth2_proxy.smtp.content import (
    Collector,
    Content,
    DataFraming,
    DataReader,
    Refusal,
)
from xoauth2_proxy.smtp.line_ends import MAX_CRS


class ContentTarget:
    """Reads, judges and frames the octets of one input."""

    max_bytes = 4000

    def close(self) -> None:
        """Nothing is held."""

    def check(self, octets: bytes) -> object:
        choice, octets = octets[:1] or b"\0", octets[1:]
        random_cuts = random.Random(choice)
        longest = (1, 2, 7, 4000)[choice[0] % 4]
        pieces, at = [], 0
        while at < len(octets):
            size = random_cuts.randint(0, longest)
            pieces.append(octets[at : at + size])
            at += size
        max_bytes = (4000, 30, 0)[choice[0] // 4 % 3]
        return self.check_in(pieces, octets, max_bytes)

    def check_in(self, pieces: list[bytes], octets: bytes, max_bytes: int = 4000) -> object:
        """Check `pieces`, which are `octets`: as DATA, as chunks of BDAT, and as they leave."""
        end = self._check_data(pieces, octets, max_bytes)
        refusal = self._check_chunks(pieces, octets, max_bytes)
        return end is None, refusal, len(octets) > max_bytes

    def _check_data(self, pieces: list[bytes], octets: bytes, max_bytes: int) -> int | None:
        collector = Collector(max_bytes)
        reader = DataReader(collector)
        expected_end = reference.end_of_data(octets)
        rest = None
        for number, piece in enumerate(pieces):
            rest = reader.feed(piece)
            if rest is not None:
                assert expected_end is not None, "an end where there is none"
                assert rest + b"".join(pieces[number + 1 :]) == octets[expected_end + 3 :]
                break
        assert (rest is None) == (expected_end is None), "the end was missed"
        if expected_end is not None:
            content = octets[:expected_end]
            self._check_verdict(collector, content, max_bytes, is_stuffed=True)
            if collector.refusal() is None:
                content = reference.repaired(content, is_stuffed=True)
                self._check_framing(collector.content(), reference.unstuffed(content))
        return expected_end

    def _check_chunks(self, pieces: list[bytes], octets: bytes, max_bytes: int) -> Refusal | None:
        collector = Collector(max_bytes)
        for piece in pieces:
            collector.add(piece)
            assert collector.held_bytes <= max_bytes
        self._check_verdict(collector, octets, max_bytes, is_stuffed=False)
        if collector.refusal() is None:
            content = reference.ended(reference.repaired(octets, is_stuffed=False))
            self._check_framing(collector.content(), content)
        if not reference.has_bare_line_ends(octets):
            content = reference.ended(octets)
            assert _framed(pieces, is_stuffed=False) == reference.stuffed(content) + b".\r\n"
            if reference.stuffed(reference.unstuffed(content)) == content:
                assert _framed(pieces, is_stuffed=True) == content + b".\r\n"
        return collector.refusal()

    @staticmethod
    def _check_verdict(
        collector: Collector, content: bytes, max_bytes: int, *, is_stuffed: bool
    ) -> None:
        assert collector.size_bytes == len(content)
        repaired = reference.repaired(content, is_stuffed=is_stuffed)
        refusal = collector.refusal()
        if len(content) > max_bytes:
            assert refusal is Refusal.TOO_LARGE
        elif b"\0" in content:
            assert refusal in (Refusal.NUL, Refusal.TOO_LARGE, Refusal.BARE_LINE_ENDS)
        elif b"\r" * MAX_CRS in content:
            assert refusal in (Refusal.BARE_LINE_ENDS, Refusal.TOO_LARGE)
        elif len(repaired) > max_bytes:
            assert refusal is Refusal.TOO_LARGE
        else:
            assert refusal is None
            assert collector.held_bytes == len(repaired)

    @staticmethod
    def _check_framing(content: Content, verbatim: bytes) -> None:
        assert content.for_bdat() == verbatim
        data = content.for_data()
        end = reference.end_of_data(data)
        assert end == len(data) - 3, "DATA ends early"
        assert reference.unstuffed(data[:end]) == verbatim


def _framed(pieces: list[bytes], *, is_stuffed: bool) -> bytes:
    framing = DataFraming(is_stuffed=is_stuffed)
    return b"".join([*(framing.feed(piece) for piece in pieces), framing.finish()])
