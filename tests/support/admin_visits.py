"""A browser at the admin pages, as far as HTTP goes: it keeps cookies and follows nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from http.cookies import Morsel
    from types import TracebackType

TOKEN = "let me in"


@dataclass
class Answer:
    status: int
    text: str
    headers: Any
    cookies: Any

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', self.text)
        assert found, self.text
        return found[1]


class Browser:
    """Somebody's browser; it goes by the machine's name, as the pages lead it to."""

    def __init__(self, url: str) -> None:
        self.url = url.replace("127.0.0.1", "localhost")
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self._http.request(
            method, self.url + path, allow_redirects=False, **options
        ) as response:
            return Answer(
                response.status, await response.text(), response.headers, response.cookies
            )

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask("GET", path, headers=headers)

    async def send(self, path: str, fields: dict[str, str], **headers: str) -> Answer:
        return await self.ask("POST", path, data=fields, headers=headers)

    def cookies(self, path: str) -> list[Morsel[str]]:
        """The cookies that the browser would send to a path."""
        jar = self._http.cookie_jar
        return [one for one in jar if path.startswith(one["path"])]

    async def enter(self, token: str = TOKEN) -> Answer:
        csrf = (await self.get("/login")).csrf
        return await self.send("/login", {"csrf": csrf, "token": token})
