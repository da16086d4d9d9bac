"""A real browser: Chromium of the distribution, driven by Playwright, on loopback only."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, Page

_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)


def system_browser() -> str:
    """Return the path of Chromium; skip the test where there is none, fail it there in CI."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        reason = "Chromium is not installed (Debian package chromium)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start a browser. A second of work: tests of one module share one, in the module's event loop.

    Skips the test where there is no Chromium; fails it there in CI.
    """
    path = system_browser()
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=path, args=list(_QUIET))
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def page_in(started: Browser) -> AsyncIterator[Page]:
    """Open an empty page that shares nothing with others: no cookies, no cache, no storage.

    It takes the certificates of the tests' servers: the relay verifies them, and that the browser
    does is not ours to test.
    """
    context = await started.new_context(ignore_https_errors=True)
    try:
        yield await context.new_page()
    finally:
        await context.close()


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """Open an empty page in a browser of its own."""
    async with browser() as started, page_in(started) as opened:
        yield opened
