"""Asks a running proxy for its health, for container health checks and for people.

It runs every 30 seconds in a container, so it imports nothing but the standard library's HTTP
client.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import SplitResult

USUAL_URL = "http://127.0.0.1:9090"
URL_VARIABLE = "XOAUTH2_PROXY_ADMIN_URL"
TOKEN_VARIABLE = "XOAUTH2_PROXY_ADMIN_TOKEN"  # noqa: S105 - a name

_TIMEOUT_SECONDS = 5.0
_MAX_ANSWER_BYTES = 65_536


class Answer(NamedTuple):
    """A proxy's answer."""

    is_well: bool  # HTTP 200
    text: str  # the body, or why there is none


def run(environ: Mapping[str, str], url: str = "") -> int:
    """Print the health of the proxy whose admin server is at `url`; return the exit code."""
    address = url or environ.get(URL_VARIABLE) or USUAL_URL
    answer = ask(address, environ.get(TOKEN_VARIABLE, ""))
    sys.stdout.write(f"{answer.text}\n")
    return 0 if answer.is_well else 1


def ask(url: str, token: str) -> Answer:
    """Return what `GET url/health` says; `token` is sent as bearer token unless it is "".

    `http_proxy` is ignored. A proxy that is down or unwell raises no error.
    """
    if not url.startswith(("http://", "https://")):
        return Answer(False, f"{url}: not an http address")
    try:
        parts = urlsplit(url)
    except ValueError:
        return Answer(False, "the address given is not a URL")
    # Without a user and password.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/health"
    try:
        status, body = _get(parts, token)
    except OSError as error:
        return Answer(False, f"{shown}: {_why(error)}")
    except ValueError as error:
        # Not the text: it may quote the request, token and all.
        return Answer(
            False,
            f"{shown}: no health report ({type(error).__name__}); what answers there is not the "
            "admin server of a proxy",
        )
    if status == 200:
        return Answer(True, body)
    if status == 401:
        body = f"its admin.token is needed, in {TOKEN_VARIABLE}"
    return Answer(False, f"HTTP {status}: {body}")


def _get(parts: SplitResult, token: str) -> tuple[int, str]:
    """Return status and body. Raises `OSError`; `ValueError`: it is no HTTP."""
    import http.client  # not above: `--help` needs this module's names alone

    make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection = make(parts.hostname or "", parts.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/health", headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MAX_ANSWER_BYTES).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        if isinstance(error, OSError):  # RemoteDisconnected is both
            raise
        raise ValueError(type(error).__name__) from None
    finally:
        connection.close()


def _why(error: OSError) -> str:
    where = f"--url or {URL_VARIABLE}"
    if isinstance(error, ConnectionRefusedError):
        return (
            "connection refused: no proxy runs there; start it, or name the address of its admin "
            f"server ({where})"
        )
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_SECONDS:.0f} s; is the proxy overloaded or stopped?"
    return f"{error.strerror or type(error).__name__}; is the address right ({where})?"
