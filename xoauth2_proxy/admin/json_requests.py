"""What the JSON interfaces have in common: bodies, answers and errors."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn

from aiohttp import web

from xoauth2_proxy import log, strict_json
from xoauth2_proxy.admin.access_control import BODY_SECONDS
from xoauth2_proxy.errors import ConfigError

if TYPE_CHECKING:
    from xoauth2_proxy.admin.http_errors import HttpError

_log = log.logger("admin")


def error_response(what: HttpError) -> web.Response:
    """Return an error as a JSON response."""
    return web.json_response(what.to_json(), status=what.status, headers=what.headers)


def answer(status: int = 200, **body: object) -> web.Response:
    """Return the response to a request that succeeded."""
    return web.json_response({"success": True} | body, status=status)


def email_of(request: web.Request) -> str:
    """Return the mailbox that the path names."""
    return request.match_info["email"]


async def json_body(request: web.Request) -> Any:  # noqa: ANN401 - as it came
    """Return the body. Raises `ConfigError`, `HTTPUnsupportedMediaType`, `HTTPRequestTimeout`."""
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="the body must be application/json")
    try:
        async with asyncio.timeout(BODY_SECONDS):
            octets = await request.read()
        value, faults = strict_json.parse(octets, name="body")
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body did not arrive in time") from None
    except ValueError as error:
        fail("", str(error))
    if faults:
        fail("", " ".join(faults[0]))
    return value


def flag(document: dict[str, Any], key: str, path: str = "", *, default: bool) -> bool:
    """Take an option of the request, true or false, out of the document. Raises `ConfigError`."""
    value = document.pop(key, default)
    if not isinstance(value, bool):
        fail(f"{path}.{key}" if path else key, "must be true or false")
    return bool(value)


def fail(path: str, problem: str) -> NoReturn:
    """Refuse the request for what is wrong at a JSON path of its body. Raises `ConfigError`."""
    raise ConfigError([(path, problem)])


def log_change(what: str, request: web.Request, mailbox: str, **fields: object) -> None:
    """Log what a client of the admin server has done."""
    _log.event(logging.INFO, what, account=mailbox, by=request.remote, **fields)
