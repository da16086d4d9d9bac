"""Asks a running proxy for its health, for container health checks and for people."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass

_TIMEOUT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 65_536
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    is_well: bool  # HTTP 200
    text: str  # the body, or why there is none


def ask(url: str, token: str) -> Answer:
    """Return what `GET url/health` says; `token` is sent as bearer token unless it is "".

    Never raises for a relay that is down or unwell.
    """
    address = f"{url.rstrip('/')}/health"
    if not address.startswith(("http://", "https://")):
        return Answer(False, f"{url}: not an http address")
    request = urllib.request.Request(address)  # noqa: S310 - the scheme is checked above
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with _DIRECT.open(request, timeout=_TIMEOUT_SECONDS) as response:
            return Answer(True, response.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        with error:
            body = error.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
        if error.code == 401:
            body = "its admin.token is needed, in XOAUTH2_PROXY_ADMIN_TOKEN"
        return Answer(False, f"HTTP {error.code}: {body}")
    except OSError as error:
        return Answer(False, f"{address}: {error}")
    except (http.client.HTTPException, ValueError) as error:
        # Not the text: it may quote the request, token and all.
        return Answer(False, f"{address}: no health report ({type(error).__name__})")
