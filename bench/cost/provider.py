"""The sandbox as a process of its own, and what it tells over HTTP of what arrived."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from bench.process.child_process import running_child

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bench.process.interruption import Interruption

_REQUEST_SECONDS = 30.0
_PAGE_MESSAGES = 5000


class ProviderUnavailable(Exception):
    """The sandbox gives no usable answer."""


@dataclass(frozen=True, slots=True)
class Flavour:
    """What kind of provider it is."""

    has_tls: bool = True
    has_chunking: bool = True
    rtt_seconds: float = 0.0

    @property
    def name(self) -> str:
        """A name for its files."""
        words = ("tls" if self.has_tls else "clear", "bdat" if self.has_chunking else "data")
        return "-".join(("provider", *words, f"{self.rtt_seconds * 1000:g}ms"))


@dataclass(frozen=True, slots=True)
class Stats:
    """The counters that matter here."""

    messages: int
    turns: int
    connections_opened: int


@dataclass(frozen=True, slots=True)
class Provider:
    """A running sandbox."""

    smtp: tuple[str, int]
    http_url: str
    ca_file: str
    state_dir: Path

    async def stats(self) -> Stats:
        """Return the counters as they are now.

        Raises:
            ProviderUnavailable: there is no usable answer.
        """
        answer = await self._get("/stats")
        try:
            return Stats(
                int(answer["messages_total"]),
                int(answer["turns"]),
                int(answer["connections_opened"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProviderUnavailable(f"the sandbox's counters lack {error}") from None

    async def digests(self, after: int) -> list[str]:
        """Return the SHA-256 of each message that arrived after message number `after`.

        Raises:
            ProviderUnavailable: there is no usable answer.
        """
        digests: list[str] = []
        while True:
            page = await self._get(f"/messages?after={after}&limit={_PAGE_MESSAGES}")
            messages = page.get("messages")
            if not isinstance(messages, list):
                raise ProviderUnavailable("the sandbox answers no list of messages")
            if not messages:
                return digests
            digests += [str(message["sha256"]) for message in messages]
            after = int(messages[-1]["seq"])

    async def _get(self, path: str) -> dict[str, Any]:
        return await get_json(self.http_url + path)


@asynccontextmanager
async def provider(
    flavour: Flavour, folder: Path, interruption: Interruption
) -> AsyncIterator[Provider]:
    """Run a sandbox of this flavour for as long as the context is entered.

    Raises:
        ChildError: it did not start.
    """
    state_dir = folder / "state"
    arguments = ["--smtp-port", "0", "--http-port", "0", "--state-dir", str(state_dir)]
    arguments += ["--tls", "starttls" if flavour.has_tls else "none"]
    arguments += ["--rtt", f"{flavour.rtt_seconds:f}s"]
    if not flavour.has_chunking:
        arguments += ["--withhold", "CHUNKING"]
    module = ("bench", "sandbox", *arguments)
    async with running_child(flavour.name, module, folder, interruption) as process:
        yield Provider(
            process.address("smtp"), process.text("http"), process.text("ca_file"), state_dir
        )


async def get_json(url: str) -> dict[str, Any]:
    """Return the JSON object at a URL.

    Raises:
        ProviderUnavailable: there is none.
    """
    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            response.raise_for_status()
            answer = await response.json()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise ProviderUnavailable(f"{url} does not answer: {reason}") from error
    if not isinstance(answer, dict):
        raise ProviderUnavailable(f"{url} answers no JSON object")
    return answer
