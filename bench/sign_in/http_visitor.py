"""Goes through a provider's pages by plain HTTP, as a browser without scripts would."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from bench.sign_in.authorization_server import ProviderError, SignInFailed, check_address
from bench.sign_in.forms import form_of
from bench.sign_in.visitor import MAX_LOGINS, MAX_PAGES
from bench.targets.blocking_http import shown

if TYPE_CHECKING:
    from types import TracebackType

    from bench.sign_in.forms import Form
    from bench.sign_in.visitor import Visit

_REQUEST_SECONDS = 30.0
_MAX_PAGE_BYTES = 2 << 20


class HttpVisitor:
    """Each user has cookies of their own; the connections are shared."""

    def __init__(self, *, allow_remote: bool) -> None:
        self._allow_remote = allow_remote
        self._connector: aiohttp.TCPConnector | None = None

    async def __aenter__(self) -> Self:
        # Now, not when aiohttp was imported: it follows SSL_CERT_FILE.
        self._connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._connector is not None  # noqa: S101 - entered before
        await self._connector.close()

    async def go(self, visit: Visit) -> None:
        """Sign a user in and bring the answer to the callback. Raises `SignInFailed`."""
        async with aiohttp.ClientSession(
            connector=self._connector,
            connector_owner=False,
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # for hosts that are addresses
            timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS),
        ) as session:
            try:
                await self._follow(session, visit)
            except (aiohttp.ClientError, OSError) as error:
                reason = str(error) if isinstance(error, OSError) else ""
                raise SignInFailed(
                    f"a page does not answer: {shown(reason) or type(error).__name__}"
                ) from None

    async def _follow(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        method, url, values, logins = "GET", visit.url, dict[str, str](), 0
        for _ in range(MAX_PAGES):
            location, page = await self._page(session, method, url, values)
            if visit.expected.has_come:
                return
            if location:
                method, url, values = "GET", urljoin(url, location), {}
                continue
            form = form_of(page)
            if form is None:
                raise SignInFailed(f"{_place(url)} has no form to fill in; does it need scripts?")
            logins += any(one.is_password for one in form.fields)
            if logins > MAX_LOGINS:
                raise SignInFailed("the provider does not accept the login")
            method, url, values = _filled(form, url, visit)
        raise SignInFailed(f"no end after {MAX_PAGES} pages; the last was {_place(url)}")

    async def _page(
        self, session: aiohttp.ClientSession, method: str, url: str, values: dict[str, str]
    ) -> tuple[str, str]:
        """Return where a response leads to, and its page."""
        try:
            check_address(_without_query(url), "a page", allow_remote=self._allow_remote)
        except ProviderError as error:
            raise SignInFailed(str(error)) from None
        query, body = (values or None, None) if method == "GET" else (None, values)
        async with session.request(
            method, url, params=query, data=body, allow_redirects=False
        ) as answer:
            page = await _text_of(answer)
            location = answer.headers.get("Location", "") if 300 <= answer.status < 400 else ""
            if answer.status >= 400:
                raise SignInFailed(f"{_place(url)} answers {answer.status}")
            return location, page


async def _text_of(answer: aiohttp.ClientResponse) -> str:
    octets = bytearray()
    async for chunk in answer.content.iter_any():
        octets += chunk
        if len(octets) > _MAX_PAGE_BYTES:
            raise SignInFailed(f"{_place(str(answer.url))} is too long a page")
    return octets.decode("utf-8", "replace")


def _filled(form: Form, url: str, visit: Visit) -> tuple[str, str, dict[str, str]]:
    action, values = form.filled(visit.mailbox, visit.password)
    return ("POST" if form.method == "post" else "GET"), urljoin(url, action), values


def _without_query(url: str) -> str:
    return url.partition("#")[0].partition("?")[0]


def _place(url: str) -> str:
    """Return a URL without its query, which may hold a code or a state."""
    parts = urlsplit(url)
    return shown(f"{parts.scheme}://{parts.netloc}{parts.path}")
