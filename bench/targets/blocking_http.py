"""Sends one HTTP request and blocks until it is answered, in limited time and size.

For threads, and for a process's last moment, when its event loop has stopped. No redirect is
followed, and no proxy is asked.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_MAX_BYTES = 8 << 20
_MAX_SHOWN_CHARACTERS = 300


class NoAnswer(Exception):
    """There was no response; the request may have been, or may yet be, carried out."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A response, whatever its status."""

    status: int
    octets: bytes = field(repr=False)

    def json_object(self) -> dict[str, Any] | None:
        """Return the JSON object in the body; None if it is none."""
        try:
            answer = json.loads(self.octets)
        except (ValueError, RecursionError):
            return None
        return answer if isinstance(answer, dict) else None


def ask(
    method: str,
    url: str,
    timeout_seconds: float,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpAnswer:
    """Return the response of an http or https URL.

    Raises:
        NoAnswer: there is none.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port, timeout_seconds)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return HttpAnswer(answer.status, answer.read(_MAX_BYTES))
    except (OSError, http.client.HTTPException) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error
    finally:
        connection.close()


def shown(text: object) -> str:
    """Return a server's text, safe for a terminal."""
    return "".join(one for one in str(text) if one.isprintable())[:_MAX_SHOWN_CHARACTERS]


def _connection(
    scheme: str, host: str, port: int | None, timeout_seconds: float
) -> http.client.HTTPConnection:
    if scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    return http.client.HTTPSConnection(
        host, port, timeout=timeout_seconds, context=ssl.create_default_context()
    )
