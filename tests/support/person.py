"""A person at the identity provider's pages: reads forms, signs in, says yes or no, and is led on.

Speaks HTTP like a browser without scripts; TLS is verified against the provider's authority.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import urljoin, urlsplit

import aiohttp

from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from types import TracebackType

_MAX_PAGES = 20
_PATIENCE = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)


class SignInServer(Protocol):
    """Where somebody signs in."""

    @property
    def issuer(self) -> str: ...

    def trust(self) -> ssl.SSLContext: ...


@dataclass(frozen=True)
class LoopbackServer:
    """A server of this machine, without TLS."""

    issuer: str

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context()


@dataclass(slots=True)
class Form:
    """One form of a page."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)  # name, value


class Person:
    """Someone with a browser of their own: cookies last as long as the person does."""

    def __init__(self, provider: SignInServer) -> None:
        self._provider = provider
        self._http = aiohttp.ClientSession(
            cookie_jar=aiohttp.CookieJar(unsafe=True),  # for hosts that are addresses
            connector=aiohttp.TCPConnector(ssl=provider.trust()),
            timeout=_PATIENCE,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.close()

    async def sign_in(self, url: str, mailbox: str, *, consents: bool = True) -> str:
        """Go through the provider's pages; return the address it redirects to, unvisited."""
        typed = {"login": mailbox, "password": "any"}
        return await self._go(url, typed, consents=consents, answers_login=True)

    async def refuse_to_sign_in(self, url: str) -> str:
        """Press Cancel on the login page; return the address the provider redirects to."""
        return await self._go(url, {}, consents=False, answers_login=False)

    async def approve_device(
        self, url: str, user_code: str, mailbox: str, *, consents: bool = True
    ) -> str:
        """Type the code, sign in and allow; return the text of the last page."""
        typed = {"login": mailbox, "password": "any", "user_code": user_code}
        return await self._go(url, typed, consents=consents, answers_login=True)

    async def visit(self, url: str) -> tuple[int, str]:
        """Open a page, as the browser does with the address it was redirected to."""
        async with self._http.get(url, allow_redirects=False) as answer:
            return answer.status, await answer.text()

    async def _go(
        self, url: str, typed: dict[str, str], *, consents: bool, answers_login: bool
    ) -> str:
        method, fields, has_refused = "GET", dict[str, str](), False
        for _ in range(_MAX_PAGES):
            async with self._http.request(
                method,
                url,
                data=fields if method == "POST" else None,
                allow_redirects=False,
            ) as answer:
                text = await answer.text()
                location = answer.headers.get("Location", "")
                assert answer.status < 400 or location, f"{answer.status} at {url}: {text}"
            if location:
                method, url, fields = "GET", urljoin(url, location), {}
                if not self._is_providers(url):
                    return url
                continue
            form = _form(text)
            if form is None or (has_refused and "user_code" in form.fields):
                return text
            is_yes = answers_login if "login" in form.fields else consents
            method, url = "POST", urljoin(url, form.action)
            fields = _filled(form, typed, is_yes=is_yes)
            has_refused = fields.get("answer") == "deny"
        raise AssertionError(f"no end after {_MAX_PAGES} pages; the last was {url}")

    def _is_providers(self, url: str) -> bool:
        return urlsplit(url).netloc == urlsplit(self._provider.issuer).netloc


def _filled(form: Form, typed: dict[str, str], *, is_yes: bool) -> dict[str, str]:
    fields = {name: typed.get(name, value) for name, value in form.fields.items()}
    for name, value in form.buttons:
        if name == "answer" and (value != "deny") == is_yes:
            fields[name] = value
            break
    return fields


def _form(page: str) -> Form | None:
    parser = _Forms()
    parser.feed(page)
    return parser.form


class _Forms(HTMLParser):
    """Finds the page's one form; its buttons may follow it, as HTML's `form` attribute allows."""

    def __init__(self) -> None:
        super().__init__()
        self.form: Form | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.form = Form(values.get("action", ""))
        elif self.form is not None and tag == "input" and values.get("name"):
            self.form.fields[values["name"]] = values.get("value", "")
        elif self.form is not None and tag == "button":
            self.form.buttons.append((values.get("name", ""), values.get("value", "")))


def user_code_in(text: str) -> str:
    """Return the code of the device flow that a text names."""
    found = re.search(r"\b[A-Z]{4}-[A-Z]{4}\b", text)
    assert found, f"no code in {text!r}"
    return found[0]
