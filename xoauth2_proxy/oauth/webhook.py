"""Sends notices to the operator's webhook. The URL may contain a secret and is never logged whole.

Each notice is one POST, a JSON object:

    {"version": 1, "event": "needs_a_person" or "well", "mailbox": "alice@example.com",
     "provider": "outlook", "state": "attention", "days_left": 6.5, "reason": "…", "remedy": "…",
     "at": "2026-11-01T12:00:00Z"}
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy import __version__, log
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.oauth.mailbox_status import rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp

    from xoauth2_proxy.oauth.grant import EpochSeconds
    from xoauth2_proxy.oauth.mailbox_status import MailboxStatus
    from xoauth2_proxy.oauth.token_request import Clock

_TIMEOUT_SECONDS = 10.0
_TRIES = 3
_FAILURE_LOG_SECONDS = 3600.0  # a webhook that stays down is logged once an hour

_log = log.logger("webhook")


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to the webhook."""

    is_well: bool
    status: MailboxStatus
    at: EpochSeconds

    def to_json(self) -> dict[str, object]:
        """Return the body of the request."""
        shown = self.status.to_json()
        kept = ("mailbox", "provider", "state", "days_left", "reason", "remedy")
        return {
            "version": 1,
            "event": "well" if self.is_well else "needs_a_person",
            **{key: shown[key] for key in kept},
            "at": rfc3339(self.at),
        }


class Webhook:
    """Posts notices as JSON, one a request."""

    def __init__(
        self,
        url: str,
        *,
        tls_context: ssl.SSLContext | None = None,
        pause_seconds: float = 2.0,
        clock: Clock = time,
    ) -> None:
        """`tls_context` replaces the system's certificate authorities."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._url = url
        self._shown = f"{parts.scheme}://{host}"  # paths and queries hold secrets
        self._proxy: str | None = None  # as the environment names it
        if not (is_loopback(host) or urllib.request.proxy_bypass(host)):
            self._proxy = urllib.request.getproxies().get(parts.scheme)
        self._tls_context = tls_context
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._failure_logged_at = float("-inf")

    async def deliver(self, notices: Sequence[Notice]) -> int:
        """Send notices in order, up to the first failure; return how many are done.

        A notice that is refused permanently counts as done.
        """
        if self._tls_context is None:
            # Reads the certificate authorities from disk, so not on the event loop.
            self._tls_context = await asyncio.to_thread(ssl.create_default_context)
        # For the first notice, not for the start; in a thread, so that mail does not wait.
        await asyncio.to_thread(importlib.import_module, "aiohttp")
        import aiohttp

        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls_context),
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            headers={"User-Agent": f"xoauth2-proxy/{__version__}"},
        ) as http:
            for number, notice in enumerate(notices):
                if not await self._deliver_one(http, notice):
                    return number
        return len(notices)

    async def _deliver_one(self, http: aiohttp.ClientSession, notice: Notice) -> bool:
        problem, is_final = "", False
        for attempt in range(_TRIES):
            await asyncio.sleep(self._pause_seconds * attempt)
            problem, is_final = await self._post(http, notice)
            if not problem:
                return True
            if is_final:
                break
        now = self._clock.monotonic()
        if now - self._failure_logged_at >= _FAILURE_LOG_SECONDS:
            self._failure_logged_at = now
            _log.event(logging.WARNING, "webhook failed", webhook=self._shown, error=problem)
        return is_final

    async def _post(self, http: aiohttp.ClientSession, notice: Notice) -> tuple[str, bool]:
        """Return the error ("": none), and whether it is permanent."""
        import aiohttp

        try:
            async with http.post(
                self._url, json=notice.to_json(), proxy=self._proxy, allow_redirects=False
            ) as response:
                status = response.status
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # The error's text may quote the URL.
            return f"cannot be reached ({type(error).__name__})", False
        if 200 <= status < 300:
            return "", False
        is_final = 300 <= status < 500 and status not in (408, 429)
        return f"answers HTTP {status}", is_final
