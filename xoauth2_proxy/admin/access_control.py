"""Who may ask what of the admin server. RFC 6750 §2.1, RFC 6265bis §5.6.7 (SameSite).

With a token configured, everything needs it: programs present it as a bearer token, people once,
for a session. Without one the server is on loopback, and anyone on the machine may use it; but no
web page a person visits can use their browser for it: requests must name this machine (DNS
rebinding), and changes must carry what another site's page cannot send unasked.
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

from xoauth2_proxy.admin.sessions import Failures, Sessions, new_id
from xoauth2_proxy.loopback import is_loopback, requested_host

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BODY_SECONDS = 10.0  # for a request's body, all of it
SIGN_IN_SECONDS = 300  # as long as the attempt lives (`oauth.sign_in`)

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})  # `none`: the person, not a page
_ID = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)  # as `new_id` makes them
_FORM = "application/x-www-form-urlencoded"


class Kind(Enum):
    """What a route is for, which decides who may use it and how refusals look."""

    MONITOR = "monitor"  # health, metrics, and what is not there
    PROBE = "probe"  # a word for an orchestrator, which has no token
    API = "api"
    PAGE = "page"
    OPEN = "open"  # the way in: no token is asked for


_MONITORING = frozenset({Kind.MONITOR, Kind.PROBE})


class Guard:
    """Judges every request before it is answered."""

    def __init__(self, token: str, public_url: str, kinds: Mapping[str, Kind]) -> None:
        self.sessions = Sessions()
        self.listens_on = ""  # the configured address
        self._failures = Failures()
        self._token = token.encode()
        self._public = urlsplit(public_url)
        self._kinds = kinds  # by the route's path, as it was registered

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        return bool(self._token)

    def kind(self, request: web.Request) -> Kind:
        """Return what the request's route is for."""
        resource = request.match_info.route.resource
        return self._kinds.get(resource.canonical, Kind.MONITOR) if resource else Kind.MONITOR

    @web.middleware
    async def admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer the request, or refuse it."""
        kind = self.kind(request)
        if kind not in _MONITORING and not self.has_token:
            self._check_host(request)
        is_bearer = self._authorize(request, kind)
        if kind not in _MONITORING and request.method not in _SAFE and not is_bearer:
            await self._check_intent(request, kind)
        return await handler(request)

    def origin(self, request: web.Request) -> str:
        """Return the scheme and host under which browsers reach this server."""
        if self._public.netloc:
            return f"{self._public.scheme}://{self._public.netloc}"
        return f"{request.scheme}://{request.host}"

    def local_name(self, request: web.Request) -> str:
        """Return the origin by the machine's name where a browser used its address; else "".

        Microsoft takes any port in a redirect address for `localhost` alone
        (https://learn.microsoft.com/entra/identity-platform/reply-url, 2026-11).
        """
        name, _, port = request.host.rpartition(":")
        is_address = name in {"127.0.0.1", "[::1]"} and port.isdigit()
        return f"http://localhost:{port}" if is_address and not self._public.netloc else ""

    # Sessions: a browser that has shown the token has one cookie, any browser that was sent a form
    # another. `Strict` cookies stay away when another site leads here, so the first is never
    # replaced by a page that merely lacks it.

    def enter(self, request: web.Request, response: web.Response) -> None:
        """Let the browser, which showed the token, in."""
        self.sessions.close(self._cookie(request, "session"))
        self._set_cookie(request, response, "session", self.sessions.open())

    def leave(self, request: web.Request, response: web.Response) -> None:
        """End the browser's session."""
        self.sessions.close(self._cookie(request, "session"))
        response.del_cookie(self._cookie_name(request, "session"))

    def is_token(self, request: web.Request, given: str) -> bool:
        """Return whether this is the token; wrong ones are counted.

        Raises:
            HTTPTooManyRequests: too many were wrong; this one was not looked at.
        """
        address = request.remote or ""
        wait_seconds = self._failures.wait_seconds(address)
        if wait_seconds:
            headers = {"Retry-After": str(int(wait_seconds) + 1)}
            raise web.HTTPTooManyRequests(text="too many wrong tokens; wait", headers=headers)
        if self._matches(given):
            return True
        self._failures.add(address)
        return False

    def form_mark(self, request: web.Request) -> tuple[str, str]:
        """Return what a form must bring back, and the browser's new id ("": it has one)."""
        owner, new = self._owner(request), ""
        if not owner:
            owner = new = new_id()
        return self.sessions.mark("form", owner), new

    def remember(self, request: web.Request, response: web.Response, new: str) -> None:
        """Give the browser its new id."""
        self._set_cookie(request, response, "form", new)

    # A sign-in's answer comes from the provider's site, where `Strict` cookies stay away: the
    # browser that began it has a cookie of its own for it.

    def bind_sign_in(self, request: web.Request, response: web.Response, state: str) -> None:
        """Let the browser, and no other, finish the sign-in."""
        response.set_cookie(
            self._sign_in_cookie(request, state),
            self.sessions.mark("sign-in", state),
            max_age=SIGN_IN_SECONDS,
            path="/oauth/",
            httponly=True,
            secure=self._is_https(request),
            samesite="Lax",
        )

    def has_begun(self, request: web.Request, state: str) -> bool:
        """Whether the sign-in was begun in this browser."""
        mark = request.cookies.get(self._sign_in_cookie(request, state), "")
        return self.sessions.is_mark(mark, "sign-in", state)

    def end_sign_in(self, request: web.Request, response: web.Response, state: str) -> None:
        """Take the cookie of a sign-in back."""
        response.del_cookie(self._sign_in_cookie(request, state), path="/oauth/")

    def is_from_elsewhere(self, request: web.Request) -> bool:
        """Whether another site's page made the browser ask."""
        site = request.headers.get("Sec-Fetch-Site")
        return site is not None and site not in _OWN_SITE

    def _check_host(self, request: web.Request) -> None:
        name = requested_host(request.headers.get("Host", ""))
        own = {self.listens_on.lower(), requested_host(self._public.netloc), "localhost"} - {""}
        if name not in own and not is_loopback(name):
            raise web.HTTPForbidden(text="this server goes by another host name")

    def _authorize(self, request: web.Request, kind: Kind) -> bool:
        """Return whether a program presented the token. Raises for who may not ask.

        Wrong ones count as on the form, and beyond the limit none is looked at: else a program
        could go on guessing where a form may not.
        """
        if not self.has_token or kind is Kind.PROBE:
            return False
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(request, given.strip()):
            return True
        if kind is Kind.OPEN:
            return False
        is_enough = kind is Kind.PAGE or request.method in _SAFE
        if is_enough and self.sessions.use(self._cookie(request, "session")):
            return False
        if kind is Kind.PAGE and not scheme:
            raise web.HTTPSeeOther("/login")
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})

    async def _check_intent(self, request: web.Request, kind: Kind) -> None:
        """Raise unless the request was meant: not another site's page made the browser send it."""
        origin = request.headers.get("Origin")
        if self.is_from_elsewhere(request) or (
            origin is not None and not self._is_own(request, origin)
        ):
            raise web.HTTPForbidden(text="not from another site")
        if kind is Kind.API:
            mark = request.headers.get("X-CSRF-Token", "")
            if "X-Requested-By" not in request.headers and not self._is_form_mark(request, mark):
                raise web.HTTPForbidden(text="the header X-Requested-By is missing (any value)")
            return
        if request.content_type != _FORM:
            raise web.HTTPUnsupportedMediaType(text=f"a form is sent as {_FORM}")
        mark = (await form_of(request)).get("csrf", "")
        if not self._is_form_mark(request, mark):
            raise web.HTTPForbidden(
                text="the form is too old, or the browser sent no cookie with it; go back, load "
                "the page again and repeat it"
            )

    def _is_form_mark(self, request: web.Request, mark: str) -> bool:
        owner = self._owner(request)
        return bool(owner) and self.sessions.is_mark(mark, "form", owner)

    def _owner(self, request: web.Request) -> str:
        """Return the id that the browser's forms belong to; "" if it has none."""
        session = self._cookie(request, "session")
        return session if self.sessions.use(session) else self._cookie(request, "form")

    def _is_own(self, request: web.Request, origin: str) -> bool:
        netloc = urlsplit(origin).netloc.lower()
        return netloc in {request.headers.get("Host", "").lower(), self._public.netloc} - {""}

    def _matches(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

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


async def form_of(request: web.Request) -> dict[str, str]:
    """Return the fields of a form. Raises `HTTPRequestTimeout`."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            posted = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the form did not arrive in time") from None
    return {name: value for name, value in posted.items() if isinstance(value, str)}
