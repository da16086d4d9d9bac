"""What a load's process and its children tell each other, over the children's stdin and stdout.

Nothing of it is in an argument or in the environment, where others could read the secrets. Both
ends are this program, and nobody else holds the pipes: so the frames are pickled.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from bench.load.generator_usage import GeneratorUsage  # noqa: TC001 - a dataclass field's type
from bench.measurement.sample import Sample

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from bench.load.messages import Messages
    from bench.plan.arrivals import ProcessShare
    from bench.runs.run_request import RunRequest

_LENGTH_OCTETS = 8  # in front of each frame
_READ_OCTETS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A child's part of a run: the first thing it is told."""

    request: RunRequest
    host: str
    port: int
    state_dir: Path  # of the key of the mock tokens
    messages: Messages  # the very same for all, the date in them included
    share: ProcessShare


@dataclass(frozen=True, slots=True)
class Start:
    """Begin at this moment, on the clock of time.perf_counter, which all processes share."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Take up nothing more."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has what it needs and waits for the start."""


@dataclass(frozen=True, slots=True)
class MessageBegun:
    """A message was taken up."""

    number: int
    is_warmup: bool


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A message was due and is given up."""

    number: int
    at_seconds: float
    is_warmup: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """There will be no more; what the child saw of itself."""

    usage: GeneratorUsage


Order: TypeAlias = Assignment | Start | Stop
Event: TypeAlias = Ready | MessageBegun | Sample | MessageDropped | Ended


def frame(told: Order | list[Event]) -> bytes:
    """Return the octets that `frames` reads."""
    octets = pickle.dumps(told, pickle.HIGHEST_PROTOCOL)
    return len(octets).to_bytes(_LENGTH_OCTETS, "big") + octets


async def orders(reader: asyncio.StreamReader) -> AsyncIterator[Order]:
    """Yield what the parent says, until it is gone."""
    async for order in _frames(reader):
        if isinstance(order, Assignment | Start | Stop):
            yield order


async def events(reader: asyncio.StreamReader) -> AsyncIterator[Iterable[Event]]:
    """Yield what a child tells, until it is gone."""
    async for told in _frames(reader):
        if isinstance(told, list):
            yield told


async def _frames(reader: asyncio.StreamReader) -> AsyncIterator[object]:
    buffer = bytearray()
    while octets := await reader.read(_READ_OCTETS):
        buffer += octets
        while len(buffer) >= _LENGTH_OCTETS:
            end = _LENGTH_OCTETS + int.from_bytes(buffer[:_LENGTH_OCTETS], "big")
            if len(buffer) < end:
                break
            yield pickle.loads(bytes(buffer[_LENGTH_OCTETS:end]))  # noqa: S301 - our own process
            del buffer[:end]
