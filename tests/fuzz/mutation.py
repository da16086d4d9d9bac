"""Changes to inputs, the same ones for the same seed of the random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


class Mutator:
    """Makes inputs out of inputs. Those with new behaviour join the ones it starts from."""

    def __init__(self, inputs: Sequence[bytes], tokens: Sequence[bytes], max_bytes: int) -> None:
        self._inputs = list(inputs) or [b""]
        self._tokens = tokens or [b"\0"]
        self._max_bytes = max_bytes
        self._seen: set[object] = set()

    @property
    def behaviours(self) -> int:
        return len(self._seen)

    def learn(self, octets: bytes, behaviour: object) -> None:
        """Note what an input brought about; new behaviour makes it a starting point."""
        if behaviour not in self._seen:
            self._seen.add(behaviour)
            if len(self._inputs) < 20_000:
                self._inputs.append(octets)

    def next(self, choice: random.Random) -> bytes:
        octets = bytearray(choice.choice(self._inputs))
        for _ in range(choice.choice((1, 1, 2, 3, 6))):
            choice.choice(_CHANGES)(self, octets, choice)
        return bytes(octets[: self._max_bytes])

    def _flip(self, octets: bytearray, choice: random.Random) -> None:
        if octets:
            octets[choice.randrange(len(octets))] ^= 1 << choice.randrange(8)

    def _replace(self, octets: bytearray, choice: random.Random) -> None:
        if octets:
            octets[choice.randrange(len(octets))] = choice.choice((0, 9, 10, 13, 32, 46, 127, 255))

    def _insert_token(self, octets: bytearray, choice: random.Random) -> None:
        at = choice.randint(0, len(octets))
        octets[at:at] = choice.choice(self._tokens)

    def _delete(self, octets: bytearray, choice: random.Random) -> None:
        start = choice.randint(0, len(octets))
        del octets[start : start + choice.choice((1, 1, 2, 8, 40))]

    def _repeat(self, octets: bytearray, choice: random.Random) -> None:
        start = choice.randint(0, len(octets))
        piece = octets[start : start + choice.choice((1, 4, 30, 200))]
        octets[start:start] = piece * choice.choice((1, 1, 2, 20))

    def _splice(self, octets: bytearray, choice: random.Random) -> None:
        other = choice.choice(self._inputs)
        start = choice.randint(0, len(other))
        octets[choice.randint(0, len(octets)) :] = other[start:]

    def _insert_part(self, octets: bytearray, choice: random.Random) -> None:
        lines = choice.choice(self._inputs).splitlines(keepends=True) or [b""]
        start = choice.randrange(len(lines))
        at = octets.find(b"\n", choice.randint(0, len(octets))) + 1
        octets[at:at] = b"".join(lines[start : start + choice.randint(1, 4)])

    def _drop_line(self, octets: bytearray, choice: random.Random) -> None:
        lines = bytes(octets).splitlines(keepends=True) or [b""]
        del lines[choice.randrange(len(lines))]
        octets[:] = b"".join(lines)

    def _change_digit(self, octets: bytearray, choice: random.Random) -> None:
        digits = [at for at, octet in enumerate(octets) if octet in b"0123456789"]
        if digits:
            octets[choice.choice(digits)] = choice.choice(b"0123456789")


_CHANGES = (
    Mutator._flip,
    Mutator._replace,
    Mutator._insert_token,
    Mutator._insert_token,
    Mutator._delete,
    Mutator._repeat,
    Mutator._splice,
    Mutator._insert_part,
    Mutator._drop_line,
    Mutator._change_digit,
)
