"""The properties of messages and connections: sizes, recipients, reuse. Pure values.

A message's properties depend only on its number, so it can be regenerated after the run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path  # noqa: TC003 - a dataclass field's type

MAX_MESSAGE_BYTES = 100_000_000
REPLY_SECONDS = 120.0  # the wait for each reply, which includes the relay's wait for its upstream
MAX_RECIPIENTS = 1000
_MAX_SIZES = 100
_MAX_MESSAGES = 1_000_000  # on one connection

_SIZE = re.compile(r"(\d{1,9})([km]?)(?::(\d{1,6}))?", re.ASCII | re.IGNORECASE)
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)
_UNITS = {"": 1, "k": 1000, "m": 1_000_000}
_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of messages in octets, with weights for their frequency."""

    text: str  # as given
    choices: tuple[tuple[int, int], ...]  # size, weight

    @classmethod
    def parse(cls, text: str) -> Sizes:
        """Return the distribution `4k:70,100k:25,1m:5`, or the single size `4096`.

        Raises:
            ValueError: it is neither; the text says so.
        """
        choices = []
        for part in text.split(",", _MAX_SIZES):
            match = _SIZE.fullmatch(part.strip())
            if match is None:
                raise ValueError(f"{part.strip()!r} is not a size with its weight, like 4k:70.")
            size_bytes = int(match[1]) * _UNITS[match[2].lower()]
            if not 1 <= size_bytes <= MAX_MESSAGE_BYTES:
                raise ValueError(f"{part.strip()!r} is not between 1 and {MAX_MESSAGE_BYTES}.")
            choices.append((size_bytes, int(match[3] or 1)))
        if not sum(weight for _, weight in choices):
            raise ValueError("all weights are 0.")
        return cls(text, tuple(choices))

    @property
    def size_bytes(self) -> int | None:
        """The size if there is only one; None if there are several."""
        return self.choices[0][0] if len(self.choices) == 1 else None

    def pick(self, number: int) -> int:
        """Return the size of message `number` in octets."""
        if len(self.choices) == 1:
            return self.choices[0][0]
        bounds = list(accumulate(weight for _, weight in self.choices))
        drawn = scattered(number) % bounds[-1]
        return next(
            size for (size, _), bound in zip(self.choices, bounds, strict=True) if drawn < bound
        )


@dataclass(frozen=True, slots=True)
class Recipients:
    """The range of the number of recipients."""

    least: int = 1
    most: int = 1

    @classmethod
    def parse(cls, text: str) -> Recipients:
        """Return the range `1-5`, or the single number `3`.

        Raises:
            ValueError: it is neither; the text says so.
        """
        match = _RANGE.fullmatch(text.strip())
        least, most = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= least <= most <= MAX_RECIPIENTS:
            raise ValueError(f"{text!r} is not a number or range within 1-{MAX_RECIPIENTS}.")
        return cls(least, most)

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}-{self.most}"

    def pick(self, number: int) -> int:
        """Return the number of recipients of message `number`."""
        if self.least == self.most:
            return self.least
        # A different stream of numbers from that of the sizes; the two are independent.
        return self.least + scattered(~number & _WORD) % (self.most - self.least + 1)


@dataclass(frozen=True, slots=True)
class ConnectionReuse:
    """The number of messages on a connection before it is closed."""

    messages: int | None = None  # None: unlimited

    @classmethod
    def parse(cls, text: str) -> ConnectionReuse:
        """Return the reuse for `kept`, `per-message` or a number of messages.

        Raises:
            ValueError: it is none of these; the text says so.
        """
        if text in ("kept", "per-message"):
            return cls(None if text == "kept" else 1)
        if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= _MAX_MESSAGES):
            raise ValueError(f"{text!r} is not kept, per-message or a number of messages.")
        return cls(int(text))

    def __str__(self) -> str:
        if self.messages is None:
            return "kept"
        return "per-message" if self.messages == 1 else f"{self.messages}-messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The properties of the messages and the way they are sent."""

    sizes: Sizes = Sizes("4096", ((4096, 1),))  # at least as large as the header
    eml_dir: Path | None = None  # messages to read instead of sizes; None: generated
    recipients: Recipients = Recipients()
    reuse: ConnectionReuse = ConnectionReuse()
    is_pipelined: bool = False  # MAIL, RCPT and DATA in one flight if PIPELINING is offered
    slow_bytes_per_second: float | None = None  # None: as fast as the connection takes them
    idle_clients: int = 0  # logged in and silent while the load runs


def scattered(number: int) -> int:
    """Return a pseudo-random 64-bit number computed from `number` (SplitMix64)."""
    value = (number + 1) * 0x9E3779B97F4A7C15 & _WORD
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB & _WORD
    return value ^ value >> 31
