"""Sends one HTTP request; the response's time and size are limited."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REQUEST_SECONDS = 15.0
_MAX_BYTES = 8 << 20


class FetchFailed(Exception):
    """There is no usable response; the text says why."""


async def fetch(url: str, query: Mapping[str, str] | None = None, *, method: str = "GET") -> bytes:
    """Return the body of the response from `url`.

    Raises:
        FetchFailed: there is no response, an error, or one that is too large.
    """
    import aiohttp  # a third of a run's start, and a run without a sandbox asks nothing

    timeout = aiohttp.ClientTimeout(total=_REQUEST_SECONDS)
    octets = bytearray()
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.request(method, url, params=query) as response,
        ):
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                octets += chunk
                if len(octets) > _MAX_BYTES:
                    raise FetchFailed("the response is too long")
    except (aiohttp.ClientError, OSError) as error:
        raise FetchFailed(f"it does not answer: {str(error) or type(error).__name__}") from error
    return bytes(octets)


async def fetch_object(url: str, query: Mapping[str, str] | None = None) -> dict[str, object]:
    """Return the JSON object from `url`.

    Raises:
        FetchFailed: there is none.
    """
    try:
        answer = json.loads(await fetch(url, query))
    except ValueError as error:
        raise FetchFailed("the response is not JSON") from error
    if not isinstance(answer, dict):
        raise FetchFailed("the response is not a JSON object")
    return answer
