"""Requests to the admin server of a proxy that runs."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp

TOKEN_VARIABLE = "XOAUTH2_PROXY_ADMIN_TOKEN"  # noqa: S105 - a name
_DONE = (200, 201)
_TIMEOUT = aiohttp.ClientTimeout(total=60.0)  # revoking waits for the provider


class NoAnswer(Exception):
    """The admin server could not be asked, or a proxy would not answer so.

    `is_absent`: nothing listens there.
    """

    def __init__(self, text: str, *, is_absent: bool = False) -> None:
        super().__init__(text)
        self.is_absent = is_absent


class Refused(Exception):
    """The proxy says no; the text is its own."""


class AdminApi:
    """The admin server at an address."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._token = token

    @property
    def shown(self) -> str:
        """The address without a user and password."""
        return urlsplit(self._url).netloc.rpartition("@")[2] or "--url"

    async def accounts(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the enabled accounts and the disabled ones. Raises `NoAnswer`."""
        try:
            document = await self._ask("GET", "/accounts")
        except Refused as error:
            raise NoAnswer(str(error)) from None
        return _objects(document.get("accounts")), _objects(document.get("disabled_accounts", []))

    async def listeners(self) -> list[dict[str, Any]]:
        """Return the listeners, with their addresses and certificates; none if it does not say."""
        try:
            document = await self._ask("GET", "/health")
        except (NoAnswer, Refused):  # 503, or a proxy of an earlier version
            return []
        return _objects(document.get("listeners", []))

    async def remove(self, mailbox: str) -> list[str]:
        """Remove a mailbox that was added; return nothing. Raises `NoAnswer`, `Refused`."""
        await self._ask("DELETE", f"/accounts/{quote(mailbox, safe='')}")
        return []

    async def revoke(self, mailbox: str) -> list[str]:
        """Revoke a mailbox's grant; return what that did not end. Raises `NoAnswer`, `Refused`."""
        answer = await self._ask("POST", f"/accounts/{quote(mailbox, safe='')}/revoke")
        warnings = answer.get("warnings")
        return [str(one) for one in warnings] if isinstance(warnings, list) else []

    async def credentials(self, mailbox: str) -> list[dict[str, Any]]:
        """Return a mailbox's credentials. Raises `NoAnswer`, `Refused`."""
        answer = await self._ask("GET", _credentials(mailbox))
        return _objects(answer.get("credentials"))

    async def add_credential(self, mailbox: str, document: dict[str, Any]) -> dict[str, Any]:
        """Make a credential; return it, with its password if that was generated.

        Raises `NoAnswer`, `Refused`.
        """
        answer = await self._ask("POST", _credentials(mailbox), document)
        (credential,) = _objects([answer.get("credential")])
        return credential

    async def revoke_credential(self, mailbox: str, name: str) -> None:
        """Revoke a credential. Raises `NoAnswer`, `Refused`."""
        await self._ask("DELETE", f"{_credentials(mailbox)}/{quote(name, safe='')}")

    async def clients(self) -> list[dict[str, Any]]:
        """Return the clients that were seen lately, the newest first. Raises `NoAnswer`."""
        try:
            document = await self._ask("GET", "/clients")
        except Refused as error:
            raise NoAnswer(str(error)) from None
        return _objects(document.get("clients"))

    async def reload(self) -> None:
        """Have the configuration read again. Raises `NoAnswer`, `Refused`."""
        await self._ask("POST", "/reload")

    async def _ask(
        self, method: str, path: str, document: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        headers = {"X-Requested-By": "xoauth2-proxy"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        try:
            connector = aiohttp.TCPConnector(
                ssl=await asyncio.to_thread(ssl.create_default_context)
            )
            async with (
                aiohttp.ClientSession(
                    connector=connector, timeout=_TIMEOUT, headers=headers
                ) as http,
                http.request(
                    method, self._url + path, json=document, allow_redirects=False
                ) as response,
            ):
                status, text = response.status, await response.text()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Not the error's text: it may quote the request, token and all.
            is_absent = isinstance(error, aiohttp.ClientConnectorError)
            why = "nothing listens there" if is_absent else type(error).__name__
            raise NoAnswer(why, is_absent=is_absent) from None
        return _judged(status, text)


def _credentials(mailbox: str) -> str:
    return f"/accounts/{quote(mailbox, safe='')}/credentials"


def _objects(listed: object) -> list[dict[str, Any]]:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise NoAnswer("the answer has no list of objects")
    return listed


def _judged(status: int, text: str) -> dict[str, Any]:
    if status in (401, 403):
        raise NoAnswer(f"it wants its token: {TOKEN_VARIABLE}")
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise NoAnswer("the answer is no JSON object" if status in _DONE else f"HTTP {status}")
    if status >= 400:
        raise Refused(str(document.get("error") or document.get("detail") or f"HTTP {status}"))
    if status not in _DONE:
        raise NoAnswer(f"HTTP {status}")
    return document
