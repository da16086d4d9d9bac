"""Goes through a provider's pages in a real browser, which Playwright drives.

One browser for all users; each has a context of its own, with its own cookies.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.process.child_process import StartInterrupted, remove_folder
from bench.sign_in.authorization_server import ProviderError, SignInFailed
from bench.sign_in.forms import is_refusal
from bench.sign_in.request import BrowserName
from bench.sign_in.visitor import MAX_LOGINS, MAX_PAGES
from bench.targets.blocking_http import shown

if TYPE_CHECKING:
    from types import TracebackType

    from playwright.async_api import (
        Browser,
        ElementHandle,
        Page,
        Playwright,
    )

    from bench.process.interruption import Interruption
    from bench.sign_in.request import SignInRequest
    from bench.sign_in.visitor import Visit

_PAGE_MS = 60_000.0  # for a page to come, and for what is pressed on it
_CLOSE_SECONDS = 10.0
_HEARD_SECONDS = 0.5
_NOWHERE = "http://127.0.0.1:9"  # the discard port: what is not on loopback is not reached
_NEAR = "localhost,127.0.0.1,[::1]"
_SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
_LOGIN = (
    "input[autocomplete~=username], input[type=email], input[name=login], input[name=username], "
    "input[name=identifier], input[name=loginfmt], input[name=email], input[name=user]"
)
_PASSWORD = "input[type=password]"  # noqa: S105 - a selector
_BUTTON = "button:not([type=button]):not([type=reset]), input[type=submit]"
_WORDS = "one => [one.name, one.value, one.textContent].join(' ')"


class BrowserVisitor:
    """A browser, from its start to its end."""

    def __init__(self, request: SignInRequest, interruption: Interruption) -> None:
        self._request = request
        self._interruption = interruption
        self._folder = Path()  # the browser's temporary files
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    async def __aenter__(self) -> Self:
        """Start the browser.

        Raises:
            ProviderError: there is none.
            StartInterrupted: a signal came first.
        """
        try:
            import playwright.async_api  # noqa: F401 - is it there?
        except ImportError:
            raise ProviderError(
                "--sign-in browser needs Playwright: pip install 'xoauth2-proxy[bench]', "
                "in a checkout pip install '.[bench]'."
            ) from None
        self._folder = Path(tempfile.mkdtemp(prefix="xoauth2-bench-"))
        self._interruption.on_abort.append(self._remove_folder)
        starting = asyncio.create_task(self._start())
        stop = asyncio.create_task(self._interruption.requested.wait())
        try:
            await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and starting.exception() is not None:
                # Ctrl+C ends Playwright's process as well, perhaps before it is heard here.
                await asyncio.wait({stop}, timeout=_HEARD_SECONDS)
            if stop.done():
                raise StartInterrupted
            await starting
        except BaseException as error:
            await self._end(starting)
            if not isinstance(error, Exception) or isinstance(error, StartInterrupted):
                raise
            name = self._request.browser.value
            raise ProviderError(
                f"{name} does not start: {_first_line(error)}. "
                f"Playwright's own is installed by: playwright install {name}"
            ) from None
        finally:
            stop.cancel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the browser, even if Ctrl+C has ended it before."""
        await self._end()

    async def go(self, visit: Visit) -> None:
        """Sign a user in and bring the answer to the callback. Raises `SignInFailed`."""
        assert self._browser is not None  # noqa: S101 - entered before
        try:
            context = await self._browser.new_context()
            try:
                context.set_default_timeout(_PAGE_MS)
                await _follow(await context.new_page(), visit)
            finally:
                with suppress(Exception):  # closing fails if the browser has died
                    await context.close()
        except SignInFailed:
            raise
        except Exception as error:  # as above
            if not visit.expected.has_come:
                raise SignInFailed(f"the browser: {_first_line(error)}") from None

    async def _start(self) -> None:
        from playwright.async_api import async_playwright

        self._playwright = await async_playwright().start()
        kind = getattr(self._playwright, self._request.browser.value)
        self._browser = await kind.launch(**self._options())

    async def _end(self, starting: asyncio.Task[None] | None = None) -> None:
        if starting is not None:
            starting.cancel()
            await asyncio.wait({starting})
        with suppress(Exception):  # closing fails if the browser has died
            if self._browser is not None:
                await asyncio.wait_for(self._browser.close(), _CLOSE_SECONDS)
        with suppress(Exception):  # likewise, its driver
            if self._playwright is not None:
                await asyncio.wait_for(self._playwright.stop(), _CLOSE_SECONDS)
        self._interruption.on_abort.remove(self._remove_folder)
        self._remove_folder()

    def _remove_folder(self) -> None:
        remove_folder(self._folder)

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "headless": not self._request.is_headed,
            "env": os.environ | {"TMPDIR": str(self._folder)},
            # Ctrl+C is the benchmarker's, which ends the browser.
            "handle_sigint": False,
            "handle_sigterm": False,
            "handle_sighup": False,
        }
        if not self._request.allow_remote:
            options["proxy"] = {"server": _NOWHERE, "bypass": _NEAR}
        if self._request.browser is BrowserName.CHROMIUM:
            options |= {"args": list(_QUIET), "chromium_sandbox": os.geteuid() != 0}
            if path := next(filter(None, map(shutil.which, _SYSTEM_BROWSERS)), None):
                options["executable_path"] = path
        return options


async def _follow(page: Page, visit: Visit) -> None:
    await page.goto(visit.url, wait_until="load")
    logins = 0
    for _ in range(MAX_PAGES):
        if visit.expected.has_come:
            return
        if field := await page.query_selector(f"{_LOGIN} >> visible=true"):
            await field.fill(visit.mailbox)
        if field := await page.query_selector(f"{_PASSWORD} >> visible=true"):
            logins += 1
            if logins > MAX_LOGINS:
                raise SignInFailed("the provider does not accept the login")
            await field.fill(visit.password)
        button = await _button(page)
        if button is None:
            raise SignInFailed(f"no button to press on {_place(page)}")
        async with page.expect_navigation(wait_until="load"):
            await button.click()
    raise SignInFailed(f"no end after {MAX_PAGES} pages; the last was {_place(page)}")


async def _button(page: Page) -> ElementHandle | None:
    for one in await page.query_selector_all(f":is({_BUTTON}) >> visible=true"):
        if not is_refusal(str(await one.evaluate(_WORDS))):
            return one
    return None


def _place(page: Page) -> str:
    return shown(page.url.partition("?")[0])


def _first_line(error: Exception) -> str:
    """Return the first line of an error, without the queries of addresses."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return shown(" ".join(word.partition("?")[0] for word in line.split()))
