"""Finds the relay to measure, running or private; refuses addresses other than loopback."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bench.client.endpoint import Endpoint, Tls
from bench.client.submission import is_listening
from bench.targets.http_client import FetchFailed, fetch_object
from bench.targets.loopback import is_loopback
from bench.targets.private_proxy import PrivateProxyError, private_proxy
from bench.targets.target_request import (
    DEFAULT_ADMIN_URL,
    DEFAULT_HOST,
    DEFAULT_PORT,
    ELSEWHERE,
    TargetError,
    tls_context,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from bench.process.interruption import Interruption
    from bench.targets.target_request import PrivateProxyOptions, TargetRequest

_PROBE_SECONDS = 5.0
_MAX_STATUS_CHARACTERS = 50
_LOG_TAIL_LINES = 5
_LOG_TAIL_BYTES = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A listening relay."""

    endpoint: Endpoint
    state_dir: Path
    sandbox_url: str  # "" if there is no sandbox
    no_sandbox_reason: str  # "" if there is a sandbox
    admin_url: str = ""  # of the proxy with that sandbox; "" if there is none
    is_private: bool = False  # it has the requested mailboxes
    log_file: Path | None = None  # of a private proxy

    @property
    def own_admin_url(self) -> str:
        """The admin server of a private proxy; "" for other relays."""
        return self.admin_url if self.is_private else ""

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of a private proxy's log; empty for other relays."""
        if self.log_file is None:
            return ()
        with self.log_file.open("rb") as file:
            file.seek(max(0, self.log_file.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return tuple(lines[-_LOG_TAIL_LINES:])


@asynccontextmanager
async def open_target(
    request: TargetRequest, interruption: Interruption, announce: Callable[[str], None]
) -> AsyncIterator[Target]:
    """Yield the relay to measure; start a private one if `request` allows and needs it.

    Raises:
        TargetError: no server listens, or the target is not on loopback.
        StartInterrupted: a signal came while a private proxy was starting.
    """
    if request.is_private:
        announce("Starting a private proxy and its provider for this run.")
        async with _private_target(request.private_options, interruption) as target:
            yield target
        return
    endpoint = await _endpoint(request)
    if await is_listening(endpoint, _PROBE_SECONDS):
        elsewhere = request.mail_goes_elsewhere
        url, reason = ("", ELSEWHERE) if elsewhere else await _sandbox(request)
        yield Target(
            endpoint=endpoint,
            state_dir=request.state_dir,
            sandbox_url=url,
            no_sandbox_reason=reason,
            admin_url=_admin_url(request) if url else "",
        )
    elif request.is_default and request.may_start_private:
        what = "with the sandbox " if request.private_options.has_sandbox else ""
        announce(f"Nothing listens at {endpoint}: starting a private proxy {what}for this run.")
        async with _private_target(request.private_options, interruption) as target:
            yield target
    else:
        raise TargetError(await _hint(request, endpoint))


@asynccontextmanager
async def _private_target(
    private_options: PrivateProxyOptions, interruption: Interruption
) -> AsyncIterator[Target]:
    try:
        async with private_proxy(interruption, private_options) as proxy:
            yield Target(
                endpoint=Endpoint(proxy.host, proxy.port),
                state_dir=proxy.state_dir,
                sandbox_url=proxy.sandbox_url,
                no_sandbox_reason="" if proxy.sandbox_url else ELSEWHERE,
                admin_url=proxy.admin_url.rstrip("/"),
                is_private=True,
                log_file=proxy.log_file,
            )
    except PrivateProxyError as error:
        raise TargetError(str(error)) from error


async def _endpoint(request: TargetRequest) -> Endpoint:
    host = request.host or DEFAULT_HOST
    port = DEFAULT_PORT if request.port is None else request.port
    if not await _is_loopback(host):
        if not request.allow_remote:
            raise TargetError(
                f"{host} is not a loopback address. A benchmark floods the target with mail: use "
                "--allow-remote only for a relay that is yours."
            )
        if request.has_login and request.tls is Tls.NONE:
            raise TargetError(
                f"{host} is not a loopback address, and the login must not be sent over a "
                "network in clear. Use --tls starttls or --tls implicit."
            )
    return Endpoint(host, port, request.tls, tls_context(request))


async def _is_loopback(host: str) -> bool:
    try:
        return await is_loopback(host)
    except OSError as error:
        raise TargetError(f"{host} cannot be resolved: {error}") from error


async def _sandbox(request: TargetRequest) -> tuple[str, str]:
    if request.admin_url is None and (request.port or DEFAULT_PORT) != DEFAULT_PORT:
        # With another proxy's sandbox, every message would count as lost.
        return "", "give the --admin-url of the proxy at this port, if it is one with a sandbox"
    if request.admin_url is not None and await _is_sandbox(request, _admin_url(request)):
        return _admin_url(request), ""
    answer = await _health(request)
    if isinstance(answer, str):
        return "", answer
    sandbox = answer.get("sandbox")
    url = sandbox.get("http") if isinstance(sandbox, dict) else None
    if not isinstance(url, str):
        return "", "the proxy runs without the sandbox"
    if not request.allow_remote and not await _is_loopback(urlsplit(url).hostname or ""):
        return "", f"the sandbox at {url} is not on loopback"
    return url.rstrip("/"), ""


async def _is_sandbox(request: TargetRequest, url: str) -> bool:
    """Return whether a stand-alone sandbox answers there."""
    if not request.allow_remote and not await _is_loopback(urlsplit(url).hostname or ""):
        return False
    try:
        return "transactions_accepted" in await fetch_object(f"{url}/stats")
    except FetchFailed:
        return False


async def _hint(request: TargetRequest, endpoint: Endpoint) -> str:
    port = "" if endpoint.port == DEFAULT_PORT else f" --port {endpoint.port}"
    answer = await _health(request)
    lines = [f"Nothing listens at {endpoint}."]
    if request.has_login:
        lines += [
            "Start the proxy with its sandbox in another terminal:",
            f"    xoauth2-proxy --sandbox{port}" + ("" if port else "        (or: make run)"),
        ]
    if request.is_default and request.tls is Tls.NONE:
        lines.append("or use --use-mock-tokens, which starts a private proxy for the run.")
    if isinstance(answer, str):
        lines.append(f"(Health: {answer}.)")
    else:
        status = str(answer.get("status", "nothing of its status"))[:_MAX_STATUS_CHARACTERS]
        lines.append(f"However, a proxy is running: {_health_url(request)} says {status}.")
        lines.append("Does it listen at another --host or --port?")
    return "\n".join(lines)


def _admin_url(request: TargetRequest) -> str:
    return (request.admin_url or DEFAULT_ADMIN_URL).rstrip("/")


def _health_url(request: TargetRequest) -> str:
    return _admin_url(request) + "/health"


async def _health(request: TargetRequest) -> dict[str, object] | str:
    """Return the response of /health, or why there is none."""
    import aiohttp

    url = _health_url(request)
    try:
        if not request.allow_remote and not await _is_loopback(urlsplit(url).hostname or ""):
            return f"{url} is not on loopback, so it was not asked"
        timeout = aiohttp.ClientTimeout(total=_PROBE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            answer = json.loads(await response.content.read(1 << 20))
    except TargetError as error:
        return str(error)
    except aiohttp.ClientConnectorError:
        return f"nothing listens at {url}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url} does not answer ({str(error) or type(error).__name__})"
    except ValueError:
        return f"{url} answers something that is not JSON"
    return answer if isinstance(answer, dict) else f"{url} answers no JSON object"
