"""Decides who may request what from the admin server. RFC 6750 §2.1, RFC 6265bis §5.6.7 (SameSite).

With a token configured, every request needs it: programs send it as a bearer token, people enter it
once for a session. Without one the server listens on loopback, and anyone on the machine may use
it. But no web page can use a visitor's browser for that: requests must name this machine (DNS
rebinding), and changes need a token or header that another site cannot send (CSRF).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from xoauth2_proxy.admin.sessions import FailedLogins, Sessions, new_id
from xoauth2_proxy.network import host_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_SECONDS = 10.0  # for a request's body, all of it
SIGN_IN_SECONDS = 300  # as long as the attempt lives (`oauth.sign_in`)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})  # `none`: the person, not a page
_ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # as `new_id` makes them
_FORM = "application/x-www-form-urlencoded"


class RouteKind(Enum):
    """What a route is for: it decides who may use it, and how errors are rendered."""

    MONITOR = "monitor"  # health, metrics, and unknown paths
    PROBE = "probe"  # for an orchestrator, which has no token
    API = "api"
    SECRET = "secret"  # noqa: S105 - as API, for programs with the token; no browser may use it
    PAGE = "page"
    OPEN = "open"  # login: needs no token


MONITORING = frozenset({RouteKind.MONITOR, RouteKind.PROBE})


class AccessControl:
    """Checks every request before it is handled."""

    def __init__(self, token: str, public_url: str, kinds: Mapping[str, RouteKind]) -> None:
        self.sessions = Sessions()
        self.listens_on = ""  # the configured address
        self._failures = FailedLogins()
        self._token = token.encode()
        self._public = urlsplit(public_url)
        self._kinds = kinds  # by the route's registered path

    @property
    def has_token(self) -> bool:
        """Whether a token is configured."""
        return bool(self._token)

    def kind(self, request: web.Request) -> RouteKind:
        """Return the kind of the request's route."""
        resource = request.match_info.route.resource
        return self._kinds.get(resource.canonical if resource else "", RouteKind.MONITOR)

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Handle the request if it is allowed; otherwise raise an HTTP error."""
        kind = self.kind(request)
        if kind not in MONITORING and not self.has_token:
            self._check_host(request)
        is_bearer = self._authorize(request, kind)
        if kind not in MONITORING and request.method not in _SAFE and not is_bearer:
            await self._check_csrf(request, kind)
        return await handler(request)

    def origin(self, request: web.Request) -> str:
        """Return the scheme and host under which browsers reach this server."""
        if self._public.netloc:
            return f"{self._public.scheme}://{self._public.netloc}"
        return f"{request.scheme}://{request.host}"

    def local_name(self, request: web.Request) -> str:
        """Return the origin with `localhost` if the browser used a loopback address; else "".

        Microsoft accepts any port in a redirect address only for `localhost`
        (https://learn.microsoft.com/entra/identity-platform/reply-url, 2026-11).
        """
        name, _, port = request.host.rpartition(":")
        is_address = name in {"127.0.0.1", "[::1]"} and port.isdigit()
        return f"http://localhost:{port}" if is_address and not self._public.netloc else ""

    # A browser that has entered the token has a session cookie; any browser with a form has another
    # cookie. `Strict` cookies are not sent when another site links here, so a page that is loaded
    # without the session cookie must not replace it.

    def log_in(self, request: web.Request, response: web.Response) -> None:
        """Open a session for the browser, which has entered the token."""
        self.sessions.close(self._cookie(request, "session"))
        self._set_cookie(request, response, "session", self.sessions.open())

    def log_out(self, request: web.Request, response: web.Response) -> None:
        """Close the browser's session."""
        self.sessions.close(self._cookie(request, "session"))
        response.del_cookie(self._cookie_name(request, "session"))

    def is_token(self, request: web.Request, given: str) -> bool:
        """Return whether this is the token; wrong ones are counted.

        Raises `HTTPTooManyRequests`: too many were wrong; this one was not looked at.
        """
        address = request.remote or ""
        wait_seconds = self._failures.wait_seconds(address)
        if wait_seconds:
            headers = {"Retry-After": str(int(wait_seconds) + 1)}
            raise web.HTTPTooManyRequests(text="too many wrong tokens; wait", headers=headers)
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            return True
        self._failures.add(address)
        return False

    def csrf_token(self, request: web.Request) -> tuple[str, str]:
        """Return the CSRF token for a form, and the browser's new id ("": it has one)."""
        owner, new = self._form_owner(request), ""
        if not owner:
            owner = new = new_id()
        return self.sessions.sign("form", owner), new

    def set_form_cookie(self, request: web.Request, response: web.Response, new: str) -> None:
        """Set the cookie with the browser's new id."""
        self._set_cookie(request, response, "form", new)

    # A sign-in's answer comes from the provider's site, from where `Strict` cookies are not sent.
    # So the browser that began the sign-in has a `Lax` cookie for it.

    def bind_sign_in(self, request: web.Request, response: web.Response, state: str) -> None:
        """Set the cookie without which the sign-in cannot be finished."""
        response.set_cookie(
            self._sign_in_cookie(request, state),
            self.sessions.sign("sign-in", state),
            max_age=SIGN_IN_SECONDS,
            path="/oauth/",
            httponly=True,
            secure=self._is_https(request),
            samesite="Lax",
        )

    def began_sign_in(self, request: web.Request, state: str) -> bool:
        """Whether the sign-in began in this browser."""
        token = request.cookies.get(self._sign_in_cookie(request, state), "")
        return self.sessions.is_signature(token, "sign-in", state)

    def end_sign_in(self, request: web.Request, response: web.Response, state: str) -> None:
        """Delete the cookie of the sign-in."""
        response.del_cookie(self._sign_in_cookie(request, state), path="/oauth/")

    def is_cross_site(self, request: web.Request) -> bool:
        """Whether another site's page caused the request."""
        site = request.headers.get("Sec-Fetch-Site")
        return site is not None and site not in _OWN_SITE

    def _check_host(self, request: web.Request) -> None:
        name = host_of(request.headers.get("Host", ""))
        own = {self.listens_on.lower(), host_of(self._public.netloc)} - {""}
        if name not in own and not is_loopback(name):
            raise web.HTTPForbidden(text="use localhost, or the host name of admin.public_url")

    def _authorize(self, request: web.Request, kind: RouteKind) -> bool:
        """Return whether the request has the token as bearer. Raises if it is not authorized.

        Wrong tokens count as on the login form, with the same limit.
        """
        if kind is RouteKind.SECRET and not self.has_token:
            raise web.HTTPForbidden(text="this needs admin.token, which programs send")
        if not self.has_token or kind is RouteKind.PROBE:
            return False
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(request, given.strip()):
            return True
        if kind is RouteKind.OPEN:
            return False
        is_enough = kind is RouteKind.PAGE or request.method in _SAFE
        is_enough = is_enough and kind is not RouteKind.SECRET
        if is_enough and self.sessions.use(self._cookie(request, "session")):
            return False
        if kind is RouteKind.PAGE and not scheme:
            raise web.HTTPSeeOther("/login")
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})

    async def _check_csrf(self, request: web.Request, kind: RouteKind) -> None:
        """Raise if another site's page may have caused the request (CSRF)."""
        origin = request.headers.get("Origin")
        if self.is_cross_site(request) or (
            origin is not None and not self._is_own(request, origin)
        ):
            raise web.HTTPForbidden(text="requests from other sites are not allowed")
        if kind is RouteKind.API:
            token = request.headers.get("X-CSRF-Token", "")
            if "X-Requested-By" not in request.headers and not self._is_csrf_token(request, token):
                raise web.HTTPForbidden(
                    text="the header X-Requested-By is missing; send it with any value"
                )
            return
        if request.content_type != _FORM:
            raise web.HTTPUnsupportedMediaType(text=f"a form must be sent as {_FORM}")
        token = (await form_fields(request)).get("csrf", "")
        if not self._is_csrf_token(request, token):
            raise web.HTTPForbidden(
                text="the form has expired, or the browser sent no cookie with it; go back, reload "
                "the page and try again"
            )

    def _is_csrf_token(self, request: web.Request, token: str) -> bool:
        owner = self._form_owner(request)
        return bool(owner) and self.sessions.is_signature(token, "form", owner)

    def _form_owner(self, request: web.Request) -> str:
        """Return the browser's id for CSRF tokens; "" if it has none."""
        session = self._cookie(request, "session")
        return session if self.sessions.use(session) else self._cookie(request, "form")

    def _is_own(self, request: web.Request, origin: str) -> bool:
        netloc = urlsplit(origin).netloc.lower()
        return netloc in {request.headers.get("Host", "").lower(), self._public.netloc} - {""}

    def _is_https(self, request: web.Request) -> bool:
        return self.origin(request).startswith("https:")

    def _cookie(self, request: web.Request, name: str) -> str:
        value = request.cookies.get(self._cookie_name(request, name), "")
        return value if _ID.fullmatch(value) else ""

    def _set_cookie(
        self, request: web.Request, response: web.Response, name: str, value: str
    ) -> None:
        response.set_cookie(
            self._cookie_name(request, name),
            value,
            path="/",
            httponly=True,
            secure=self._is_https(request),
            samesite="Strict",
        )

    def _cookie_name(self, request: web.Request, name: str) -> str:
        # Browsers share cookies among a host's ports.
        port = request.host.rpartition(":")[2]
        return f"xoauth2_proxy_{name}" + (f"_{port}" if port.isdigit() else "")

    def _sign_in_cookie(self, request: web.Request, state: str) -> str:
        digest = hashlib.sha256(state.encode("utf-8", "surrogateescape")).hexdigest()
        return self._cookie_name(request, f"sign_in_{digest[:16]}")


async def form_fields(request: web.Request) -> dict[str, str]:
    """Return the fields of a form. Raises `HTTPRequestTimeout`."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            posted = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form did not arrive in time") from None
    return {name: value for name, value in posted.items() if isinstance(value, str)}
