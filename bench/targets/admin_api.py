"""Lists, adds and removes a running proxy's mailboxes through its admin server.

Every call blocks for a limited time: mailboxes must also be removed in a process's last moment,
when its event loop has stopped.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from bench.targets.blocking_http import NoAnswer, ask, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BATCH = 100  # the admin server's limit for one request
_FORBIDDEN = "the admin server requires its token: set XOAUTH2_PROXY_ADMIN_TOKEN"


class AdminError(Exception):
    """The admin server did not carry out the request; the text says why."""


class AdminRefused(AdminError):
    """It refused; nothing has changed."""


class AdminUnavailable(AdminError):
    """It gave no usable response; the request may have been, or may yet be, carried out."""


@dataclass(frozen=True, slots=True)
class AddedMailboxes:
    """The result of adding mailboxes; each mailbox is in one of the two fields."""

    added: frozenset[str]
    failed: dict[str, str]  # reason by mailbox


class AdminApi:
    """The admin server at a URL."""

    def __init__(self, url: str, token: str = "") -> None:
        """Raises `ValueError`: the URL is not http or https with a host."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise ValueError(f"{url} is not an http URL")
        self.url = url.rstrip("/")
        self.host = parts.hostname
        self.is_clear = parts.scheme == "http"
        # A web page cannot send the second header, which protects against forged requests.
        self._headers = {"Content-Type": "application/json", "X-Requested-By": "xoauth2-bench"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def mailboxes(self, timeout_seconds: float) -> frozenset[str]:
        """Return the existing mailboxes in lower case. Raises `AdminError`."""
        answer = self._ask("GET", "/accounts", timeout_seconds)
        return frozenset(str(one["email"]).lower() for one in _rows(answer, "accounts"))

    def add(
        self, documents: Sequence[Mapping[str, object]], timeout_seconds: float
    ) -> AddedMailboxes:
        """Add up to `MAX_BATCH` mailboxes.

        Raises:
            AdminRefused: none was added.
            AdminUnavailable: unknown whether any was added.
        """
        answer = self._ask("POST", "/accounts/batch", timeout_seconds, documents)
        failed = {
            str(one["email"]).lower(): shown(one.get("error"))
            for one in _rows(answer, "failed_accounts")
        }
        added = (str(one["email"]).lower() for one in _rows(answer, "added_accounts"))
        return AddedMailboxes(frozenset(added), failed)

    def remove(self, mailbox: str, timeout_seconds: float) -> bool:
        """Remove an added mailbox; return whether it existed. Raises `AdminError`."""
        try:
            self._ask("DELETE", f"/accounts/{quote(mailbox, safe='@')}", timeout_seconds)
        except _NotThere:
            return False
        return True

    def _ask(
        self, method: str, path: str, timeout_seconds: float, document: object = None
    ) -> dict[str, Any]:
        body = None if document is None else json.dumps(document).encode()
        try:
            response = ask(
                method, self.url + path, timeout_seconds, body=body, headers=self._headers
            )
        except NoAnswer as error:
            raise AdminUnavailable(f"{self.url} does not answer: {error}") from error
        answer, status = response.json_object(), response.status
        if answer is None:
            raise AdminUnavailable(f"{self.url} answered {status}, and no JSON object")
        # If every mailbox of a batch fails, the response is a 400 that lists them.
        if status < 300 or (status == 400 and "failed_accounts" in answer):
            return answer
        raise _failure(status, f"{self.url} answered {status}: {shown(answer.get('error'))}")


class _NotThere(AdminRefused):
    """The server answered 404."""


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
        raise AdminUnavailable(f"the admin server's response has no list of {key}")
    return rows
