"""A running proxy's mailboxes, by its admin server: listed, added, removed.

Every call blocks, within a limit: what removes mailboxes must work in the last moment of a process
too, when its event loop runs no more.
"""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BATCH = 100  # what the admin server takes at once
_MAX_BYTES = 8 << 20
_MAX_SHOWN_CHARACTERS = 300
_FORBIDDEN = "the admin server wants its token: set XOAUTH2_PROXY_ADMIN_TOKEN"


class AdminError(Exception):
    """The admin server does not do it; the text says why."""


class AdminRefused(AdminError):
    """It said no: nothing has changed."""


class AdminUnavailable(AdminError):
    """It gave no usable answer: what was asked may have been done, or be done yet."""


@dataclass(frozen=True, slots=True)
class AddedMailboxes:
    """What became of mailboxes that were to be added; each is in one of the two."""

    added: frozenset[str]
    failed: dict[str, str]  # mailbox and why


class AdminApi:
    """The admin server at a URL."""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises `ValueError`: the URL is not http or https with a host."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url} is no http URL")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.is_clear = parts.scheme == "http"
        self._port = parts.port  # None: the scheme's
        self._path = parts.path.rstrip("/")
        # The second header says that it was meant: no web page can send it unasked.
        self._headers = {"Content-Type": "application/json", "X-Requested-By": "xoauth2-bench"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def mailboxes(self, timeout_seconds: float) -> frozenset[str]:
        """Return the mailboxes there are, in lower case. Raises `AdminError`."""
        answer = self._ask("GET", "/accounts", timeout_seconds)
        return frozenset(str(one["email"]).lower() for one in _rows(answer, "accounts"))

    def add(
        self, documents: Sequence[Mapping[str, object]], timeout_seconds: float
    ) -> AddedMailboxes:
        """Add up to `MAX_BATCH` mailboxes.

        Raises:
            AdminRefused: none was added.
            AdminUnavailable: nobody knows.
        """
        answer = self._ask("POST", "/accounts/batch", timeout_seconds, documents)
        failed = {
            str(one["email"]).lower(): _shown(one.get("error"))
            for one in _rows(answer, "failed_accounts")
        }
        added = (str(one["email"]).lower() for one in _rows(answer, "added_accounts"))
        return AddedMailboxes(frozenset(added), failed)

    def remove(self, mailbox: str, timeout_seconds: float) -> bool:
        """Remove a mailbox that was added; return whether there was one. Raises `AdminError`."""
        try:
            self._ask("DELETE", f"/accounts/{quote(mailbox, safe='@')}", timeout_seconds)
        except _NotThere:
            return False
        return True

    def _ask(
        self, method: str, path: str, timeout_seconds: float, document: object = None
    ) -> dict[str, Any]:
        body = None if document is None else json.dumps(document).encode()
        exchange = _HttpRequest(method, self._path + path, body, self._headers)
        try:
            status, octets = exchange.carry_out(self._connection(timeout_seconds))
        except (OSError, http.client.HTTPException) as error:
            reason = str(error) or type(error).__name__
            raise AdminUnavailable(f"{self.url} does not answer: {reason}") from error
        try:
            answer = json.loads(octets)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise AdminUnavailable(f"{self.url} answered {status}, and no JSON object")
        # A batch of which every mailbox failed is a 400 that lists them.
        if status < 300 or (status == 400 and "failed_accounts" in answer):
            return answer
        raise _failure(status, f"{self.url} answered {status}: {_shown(answer.get('error'))}")

    def _connection(self, timeout_seconds: float) -> http.client.HTTPConnection:
        if self.is_clear:
            return http.client.HTTPConnection(self.host, self._port, timeout=timeout_seconds)
        return http.client.HTTPSConnection(
            self.host, self._port, timeout=timeout_seconds, context=ssl.create_default_context()
        )


class _NotThere(AdminRefused):
    """It knows no such thing."""


@dataclass(frozen=True, slots=True)
class _HttpRequest:
    method: str
    path: str
    body: bytes | None = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    def carry_out(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        """Return status and body; raises what `http.client` does."""
        try:
            connection.request(self.method, self.path, self.body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.read(_MAX_BYTES)
        finally:
            connection.close()


def _failure(status: int, text: str) -> AdminError:
    if status == 404:
        return _NotThere(text)
    if status in {401, 403}:
        return AdminRefused(f"{text} ({_FORBIDDEN})" if status == 401 else text)
    return AdminRefused(text) if 400 <= status < 500 else AdminUnavailable(text)


def _rows(answer: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    rows = answer.get(key)
    if not isinstance(rows, list) or not all(
        isinstance(one, dict) and "email" in one for one in rows
    ):
        raise AdminUnavailable(f"the admin server's answer has no list of {key}")
    return rows


def _shown(text: object) -> str:
    """Return a server's words, fit for a terminal."""
    return "".join(one for one in str(text) if one.isprintable())[:_MAX_SHOWN_CHARACTERS]
