"""The messages between a load's parent process and its children, over their stdin and stdout.

Arguments and environment are not used, as others could read the secrets there. Both ends are this
program and no other process holds the pipes, so pickle is safe for the frames.
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

_LENGTH_OCTETS = 8  # before each frame
_READ_OCTETS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A child's share of a run; the first order."""

    request: RunRequest
    host: str
    port: int
    state_dir: Path  # with the key of the mock tokens
    messages: Messages  # identical for all children, including the date
    share: ProcessShare


@dataclass(frozen=True, slots=True)
class Start:
    """Start at this time on the clock of time.perf_counter, which all processes share."""

    at: float


@dataclass(frozen=True, slots=True)
class Stop:
    """Start no more messages."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The child is prepared and waits for the start."""


@dataclass(frozen=True, slots=True)
class MessageBegun:
    """A message was started."""

    number: int
    is_warmup: bool


@dataclass(frozen=True, slots=True)
class MessageDropped:
    """A message was due but is dropped."""

    number: int
    at_seconds: float
    is_warmup: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event, with the child's own usage."""

    usage: GeneratorUsage


Order: TypeAlias = Assignment | Start | Stop
Event: TypeAlias = Ready | MessageBegun | Sample | MessageDropped | Ended


def frame(told: Order | list[Event]) -> bytes:
    """Return a message encoded as a frame, which `orders` and `events` read."""
    octets = pickle.dumps(told, pickle.HIGHEST_PROTOCOL)
    return len(octets).to_bytes(_LENGTH_OCTETS, "big") + octets


async def orders(reader: asyncio.StreamReader) -> AsyncIterator[Order]:
    """Yield the parent's orders until it is gone."""
    async for order in _frames(reader):
        if isinstance(order, Assignment | Start | Stop):
            yield order


async def events(reader: asyncio.StreamReader) -> AsyncIterator[Iterable[Event]]:
    """Yield a child's events until it is gone."""
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
