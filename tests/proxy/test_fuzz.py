"""The fuzz targets: their seeds, and a short run of changes to them, the same each time.

The long run is `make fuzz`; what it finds becomes a seed here.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import pytest

from tests.fuzz import reference
from tests.fuzz.content import ContentTarget
from tests.fuzz.mutation import Mutator
from tests.fuzz.session import SessionTarget
from tests.fuzz.targets import TARGETS, seeds, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.targets import Target

_SECONDS = 0.5  # of changes to the seeds of one target, and never more runs than this
_RUNS = 400
SMUGGLING = {name: octets for name, octets in seeds("transaction").items() if "smuggling" in name}


@pytest.fixture(params=list(TARGETS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(name: str) -> Iterator[Target]:
    made = TARGETS[name]()
    yield made
    made.close()


def test_seeds_break_nothing(name: str, target: Target) -> None:
    found = seeds(name)
    assert len(found) > 10
    for file, octets in found.items():
        try:
            target.check(octets)
        except Exception as error:
            raise AssertionError(f"seeds/{name}/{file}: {error}") from error


def test_changed_seeds_break_nothing(name: str, target: Target) -> None:
    mutator = Mutator(list(seeds(name).values()), words(name), target.max_bytes)
    choice = random.Random(1)
    begun = time.monotonic()
    for _ in range(_RUNS):
        octets = mutator.next(choice)
        try:
            mutator.learn(octets, target.check(octets))
        except Exception as error:
            raise AssertionError(f"{name} broke on {octets!r}: {error}") from error
        if time.monotonic() - begun > _SECONDS:
            break
    assert mutator.behaviours > 1


@pytest.mark.parametrize("seed", SMUGGLING)
@pytest.mark.parametrize("is_strict", [False, True])
def test_smuggling_fails_wherever_the_octets_are_cut(seed: str, is_strict: bool) -> None:
    octets = SMUGGLING[seed]
    content = ContentTarget()
    for at in range(len(octets)):
        content.check_in([octets[:at], octets[at:]], octets)
    target = SessionTarget(is_logged_in=True, is_strict=is_strict)
    variant = octets.index(b"hello")
    whole = target.check(octets)
    cuts = [[octets[:at], octets[at:]] for at in range(variant, variant + 20)]
    for pieces in [*cuts, [bytes([octet]) for octet in octets]]:
        codes = target.check_in(pieces, octets)
        # What waits behind the end of a refused message ends the session, and waits by chance.
        assert codes == whole or (is_strict and "521" in f"{whole} {codes}")
    target.close()


# The targets themselves.


def test_reference_knows_bare_line_ends() -> None:
    bare = [b"\n", b"\r", b"a\nb", b"a\rb", b"\r\r\n", b"\n\r\n", b"a\r\n\r"]
    assert all(reference.has_bare_line_ends(octets) for octets in bare)
    assert not any(reference.has_bare_line_ends(octets) for octets in (b"", b"a", b"\r\n\r\n"))


def test_reference_ends_data_at_a_dot_between_line_ends_only() -> None:
    assert reference.end_of_data(b".\r\n") == 0
    assert reference.end_of_data(b"a\r\n.\r\nb") == 3
    for octets in (b"a\n.\r\n", b"\r\n.\n", b"\r\n..\r\n", b"a.\r\n", b"\r.\r\n"):
        assert reference.end_of_data(octets) is None


@pytest.mark.parametrize("name", ["transaction", "upstream", "content"])
def test_target_notices_what_is_broken(
    name: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that lets a bare LF pass, or believes any reply, does not go unnoticed."""
    monkeypatch.setattr("xoauth2_proxy.smtp.content.Collector.refusal", lambda self: None)
    monkeypatch.setattr("xoauth2_proxy.smtp.protocol.Reply.is_positive", True)

    def check_all() -> None:
        for octets in seeds(name).values():
            target.check(octets)

    with pytest.raises((AssertionError, ValueError)):
        check_all()


# What fuzzing found, until it is mended.

CHUNK = b"MAIL FROM:<smuggled@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nsmuggled\r\n.\r\n"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"BDAT %d LAST\n", id="bare LF"),
        pytest.param(b"BDAT %d LAST\xff\r\n", id="not UTF-8"),
        pytest.param(b"BDAT %d\tLAST\r\n", id="control"),
        pytest.param(b"BDAT %d LAST" + b" " * 3000 + b"\r\n", id="too long"),
    ],
)
def test_chunk_behind_a_broken_bdat_is_never_read_as_commands(line: bytes) -> None:
    target = SessionTarget(is_logged_in=True)
    octets = line % len(CHUNK) + CHUNK
    codes = target.check(octets)
    target.close()
    assert isinstance(codes, tuple)
    assert 354 not in codes, codes
