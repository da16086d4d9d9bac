from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plan.workloads import ConnectionReuse, Recipients, Sizes, scattered


def test_one_size() -> None:
    sizes = Sizes.parse("4096")
    assert (sizes.size_bytes, sizes.pick(1), sizes.pick(99)) == (4096, 4096, 4096)


def test_sizes_occur_as_often_as_their_weights_say() -> None:
    sizes = Sizes.parse("4k:70, 100K:25,1m:5")
    counts = Counter(sizes.pick(number) for number in range(20_000))
    assert sizes.size_bytes is None
    assert set(counts) == {4000, 100_000, 1_000_000}
    for size, share in ((4000, 0.70), (100_000, 0.25), (1_000_000, 0.05)):
        assert counts[size] / 20_000 == pytest.approx(share, abs=0.01)


@given(st.integers(0, 10_000_000))
def test_what_a_message_is_like_follows_from_its_number(number: int) -> None:
    sizes, recipients = Sizes.parse("1k:1,2k:1"), Recipients.parse("2-4")
    assert sizes.pick(number) == sizes.pick(number)
    assert 2 <= recipients.pick(number) <= 4
    assert 0 <= scattered(number) < 1 << 64


def test_size_and_recipients_are_independent() -> None:
    sizes, recipients = Sizes.parse("1k:1,2k:1"), Recipients.parse("1-2")
    pairs = Counter((sizes.pick(number), recipients.pick(number)) for number in range(10_000))
    assert len(pairs) == 4
    assert min(pairs.values()) > 2300


@pytest.mark.parametrize("text", ["", "4k:", "4g", "0", "4k:0", "-1", "1e3", "200m", "4k;5k", "²"])
def test_what_is_no_distribution(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|between|weights"):
        Sizes.parse(text)


@pytest.mark.parametrize(
    ("text", "least", "most"), [("1", 1, 1), ("3", 3, 3), ("1-5", 1, 5), ("1000", 1000, 1000)]
)
def test_recipients(text: str, least: int, most: int) -> None:
    recipients = Recipients.parse(text)
    assert (recipients.least, recipients.most, str(recipients)) == (least, most, text)


@pytest.mark.parametrize("text", ["", "0", "5-1", "1001", "1-", "many", "-1"])
def test_what_is_no_number_of_recipients(text: str) -> None:
    with pytest.raises(ValueError, match="range"):
        Recipients.parse(text)


@pytest.mark.parametrize(
    ("text", "messages", "shown"),
    [
        ("kept", None, "kept"),
        ("per-message", 1, "per-message"),
        ("1", 1, "per-message"),
        ("20", 20, "20-messages"),
    ],
)
def test_reuse(text: str, messages: int | None, shown: str) -> None:
    reuse = ConnectionReuse.parse(text)
    assert (reuse.messages, str(reuse)) == (messages, shown)


@pytest.mark.parametrize("text", ["", "0", "often", "1.5", "99999999999", "-3", "²"])
def test_what_is_no_reuse(text: str) -> None:
    with pytest.raises(ValueError, match="kept"):
        ConnectionReuse.parse(text)
