"""A provider's token endpoint: a real HTTP(S) server that issues tokens, or does what a test says.

It runs in a thread and loop of its own, so that libraries which block can ask it from anywhere.

    async with TokenEndpoint(authority) as endpoint:
        endpoint.grants("rt-1")  # a refresh token it knows
        endpoint.will(answer(status=503, headers={"Retry-After": "7"}), HANGS)
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
import tempfile
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import jwt
from cryptography import x509

from tests.support.listening import stop_listening
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import trustme

_SERVE_SECONDS = 60.0  # no connection outlives this, whatever a test forgets

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # lower-case names
    form: dict[str, str]

    @property
    def client(self) -> tuple[str, str]:
        """Id and secret of the client, from the form or from HTTP Basic (RFC 6749 §2.3.1)."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            client_id, _, secret = base64.b64decode(value).decode().partition(":")
            return unquote_plus(client_id), unquote_plus(secret)
        return self.form.get("client_id", ""), self.form.get("client_secret", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, and how it is sent."""

    octets: bytes  # status line, headers and body
    manner: Literal["whole", "drips", "hangs"] = "whole"
    then_closes: bool = False


def answer(
    body: object = None,
    status: int = 200,
    headers: dict[str, str] | None = None,
    *,
    length: int | None = None,
) -> Answer:
    """Return an answer: a JSON body, or octets as they are; `length` is what is claimed of it."""
    octets = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(octets) if length is None else length),
        **(headers or {}),
    }
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
    return Answer(head.encode() + b"\r\n" + octets, then_closes=length is not None)


def error(word: str, description: str = "", status: int = 400, **more: object) -> Answer:
    """Return a refusal. RFC 6749 §5.2."""
    return answer({"error": word, "error_description": description, **more}, status)


HANGS = Answer(b"", "hangs")  # until the endpoint ends, or `release`
DRIPS = Answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", "drips")  # the body
DRIPS_HEAD = Answer(b"HTTP/1.1 200 OK\r\nX-Long: ", "drips")
GARBAGE = answer(b"<html>it works</html>")
NO_HTTP = Answer(b"220 mail.example ESMTP\r\n", then_closes=True)
CLOSES = Answer(b"", then_closes=True)
OVERSIZED = answer(b'{"access_token": "' + b"a" * 600_000 + b'"}')
TRUNCATED = answer(b'{"access_token": "at-', length=4000)


def redirect(url: str, status: int = 307) -> Answer:
    """Return a redirect to `url`."""
    return answer({}, status, {"Location": url})


# What every refresher makes of what an endpoint may do: the error, and what its text tells.
FAILURES: tuple[tuple[Answer, type[TokenError], str], ...] = (
    (error("invalid_grant", "Token has been revoked."), GrantRevoked, "Token has been revoked."),
    (error("interaction_required", "AADSTS50076"), GrantRevoked, "interaction_required"),
    (error("invalid_client", "no", 401), TokenEndpointRefused, "invalid_client: no"),
    (error("unauthorized_client", status=401), TokenEndpointRefused, "unauthorized_client"),
    (error("deleted_client", status=401), TokenEndpointRefused, "deleted_client"),
    (error("invalid_scope"), TokenEndpointRefused, "invalid_scope"),
    (error("invalid_grant", "AADSTS50053: locked"), TokenEndpointUnavailable, "AADSTS50053"),
    (error("temporarily_unavailable"), TokenEndpointUnavailable, "temporarily_unavailable"),
    (answer({}, 408), TokenEndpointUnavailable, "HTTP 408"),
    (answer({}, 429), TokenEndpointUnavailable, "HTTP 429"),
    (error("internal_failure", status=500), TokenEndpointUnavailable, "internal_failure"),
    (answer(b"<h1>Bad Gateway</h1>", 502), TokenEndpointUnavailable, "HTTP 502"),
    (answer({}, 503), TokenEndpointUnavailable, "HTTP 503"),
    (GARBAGE, TokenEndpointUnavailable, "not a JSON object"),
    (TRUNCATED, TokenEndpointUnavailable, "closed the connection"),
    (CLOSES, TokenEndpointUnavailable, "closed the connection"),
    (OVERSIZED, TokenEndpointUnavailable, "too large"),
    (NO_HTTP, TokenEndpointUnavailable, "does not speak HTTP"),
    (answer({"token_type": "Bearer"}), TokenEndpointUnavailable, "no access token"),
    (redirect("https://elsewhere.example/token"), TokenEndpointUnavailable, "redirects"),
    (HANGS, TokenEndpointUnavailable, "no answer in time"),
    (DRIPS, TokenEndpointUnavailable, "no answer in time"),
)


@dataclass
class _Family:
    """All refresh tokens that come of one sign-in."""

    newest: str
    is_revoked: bool = False


@dataclass
class TokenEndpoint:
    """The server; its fields may be changed while it runs."""

    authority: trustme.CA | None = None  # None: plain HTTP
    rotates: bool = False  # a refresh gives a new refresh token, and the old one is no more
    detects_reuse: bool = False  # an old one ends the whole family (RFC 9700 §4.14.2)
    repeats_refresh_token: bool = False  # the answer names the same one again
    lifetime_seconds: float = 3600.0
    refresh_lifetime_seconds: int = 0  # 0: not told
    clients: dict[str, str] = field(default_factory=dict)  # id to secret; empty: any client
    certificates: dict[str, bytes] = field(default_factory=dict)  # id to PEM, for assertions
    service_accounts: dict[str, bytes] = field(default_factory=dict)  # e-mail to PEM public key
    mailboxes: set[str] = field(default_factory=set)  # whom service accounts act for; empty: any
    metadata: dict[str, object] = field(default_factory=dict)  # more of the discovery document
    requests: list[Request] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)  # access tokens
    claims: list[dict[str, object]] = field(default_factory=list)  # of assertions accepted
    connections: int = 0

    async def __aenter__(self) -> Self:
        self._families: dict[str, _Family] = {}
        self._scripts: dict[str, deque[Answer]] = {"token": deque(), "discovery": deque()}
        self._always: dict[str, Answer] = {}
        self._routes: dict[str, Callable[[Request], Answer]] = {}
        self._port = 0
        self._is_up = threading.Event()
        self._directory = tempfile.TemporaryDirectory()
        if self.authority is not None:
            self.authority.cert_pem.write_to_path(str(self.ca_file))
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(),))
        self._thread.start()
        await asyncio.to_thread(self._is_up.wait)
        return self

    async def __aexit__(self, *raised: object) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        await asyncio.to_thread(self._thread.join)
        self._directory.cleanup()

    @property
    def url(self) -> str:
        """Scheme, name and port; also Microsoft's `authority`."""
        scheme = "http" if self.authority is None else "https"
        return f"{scheme}://localhost:{self._port}"

    @property
    def issuer(self) -> str:
        """The issuer of `/.well-known/openid-configuration`."""
        return self.url

    @property
    def token_url(self) -> str:
        """The token endpoint of that issuer; Microsoft's is `/{tenant}/oauth2/v2.0/token`."""
        return f"{self.url}/token"

    @property
    def ca_file(self) -> Path:
        """Whom to trust, as PEM."""
        return Path(self._directory.name) / "ca.pem"

    @property
    def token_requests(self) -> list[Request]:
        """Requests for tokens, in order."""
        return [one for one in self.requests if _kind(one.path) == "token"]

    def will(self, *answers: Answer, to: Literal["token", "discovery"] = "token") -> None:
        """Give these answers to the next requests, one each; then do what is usual."""
        self._scripts[to].extend(answers)

    def always(self, given: Answer | None, to: Literal["token", "discovery"] = "token") -> None:
        """Give this answer to every request from now on; None: do what is usual again."""
        self._always.pop(to, None)
        if given is not None:
            self._always[to] = given

    def route(self, path: str, function: Callable[[Request], Answer]) -> None:
        """Let a function of the test's own answer the requests for `path`."""
        self._routes[path] = function

    def grants(self, refresh_token: str) -> None:
        """Know a refresh token, as if a person had signed in."""
        self._families[refresh_token] = _Family(refresh_token)

    def revoke(self, refresh_token: str) -> None:
        """Know it no longer, nor any other of its family."""
        self._families[refresh_token].is_revoked = True

    def release(self) -> None:
        """Close the connections of requests that hang."""
        self._loop.call_soon_threadsafe(self._released.set)

    def issue(self, **more: object) -> dict[str, object]:
        """Return a good answer's body with a new access token. RFC 6749 §5.1."""
        access_token = f"at-{len(self.issued) + 1}-{secrets.token_urlsafe(8)}"
        self.issued.append(access_token)
        body: dict[str, object] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": self.lifetime_seconds,
        }
        if self.refresh_lifetime_seconds:
            body["refresh_token_expires_in"] = self.refresh_lifetime_seconds
        return body | more

    # What runs in the thread

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._released = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls())
        self._port = server.sockets[0].getsockname()[1]
        self._is_up.set()
        await self._ending.wait()
        await stop_listening(server)
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _tls(self) -> ssl.SSLContext | None:
        if self.authority is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert("localhost").configure_cert(context)
        return context

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SERVE_SECONDS):
                while (request := await _read(reader)) is not None:
                    self.requests.append(request)
                    if not await self._send(self._answer(request), writer):
                        break
        except (OSError, EOFError, TimeoutError):
            pass  # the client's doing
        finally:
            writer.transport.abort() if not writer.is_closing() else None

    async def _send(self, given: Answer, writer: asyncio.StreamWriter) -> bool:
        writer.write(given.octets)
        await writer.drain()
        match given.manner:
            case "hangs":
                await self._released.wait()
                return False
            case "drips":
                while True:
                    writer.write(b" ")
                    await writer.drain()
                    await asyncio.sleep(0.05)  # an octet now and then is what is asked for
        if given.then_closes:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return not given.then_closes

    def _answer(self, request: Request) -> Answer:
        if (function := self._routes.get(request.path)) is not None:
            return function(request)
        kind = _kind(request.path)
        if kind is None:
            return error("not_found", status=404)
        if self._scripts[kind]:
            return self._scripts[kind].popleft()
        if kind in self._always:
            return self._always[kind]
        return self._tokens(request) if kind == "token" else self._discovery(request)

    def _discovery(self, request: Request) -> Answer:
        tenant = request.path.removesuffix("/v2.0/.well-known/openid-configuration")
        if tenant != request.path:
            issuer, base = f"{self.url}{tenant}/v2.0", f"{self.url}{tenant}/oauth2/v2.0"
        else:
            base = issuer = self.url + request.path.removesuffix(
                "/.well-known/openid-configuration"
            )
        known = {
            "issuer": issuer,
            "token_endpoint": f"{base}/token",
            "authorization_endpoint": f"{base}/authorize",
            "device_authorization_endpoint": f"{base}/devicecode",
            "jwks_uri": f"{base}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return answer({**known, **self.metadata})

    def _tokens(self, request: Request) -> Answer:
        form = request.form
        if form.get("grant_type") == JWT_BEARER:
            return self._service_account(form.get("assertion", ""))
        if (refused := self._refused_client(request)) is not None:
            return refused
        match form.get("grant_type"):
            case "refresh_token":
                return self._refresh(form.get("refresh_token", ""), form.get("scope"))
            case "client_credentials" if any(request.client) or form.get("client_assertion"):
                return answer(self.issue(scope=form.get("scope", "")))
            case "client_credentials":
                return error("invalid_client", "no client", 401)
        return error("unsupported_grant_type")

    def _refused_client(self, request: Request) -> Answer | None:
        client_id, secret = request.client
        if request.form.get("client_assertion_type") == ASSERTION_TYPE:
            return self._refused_assertion(client_id, request)
        if self.clients and self.clients.get(client_id) != secret:
            return error("invalid_client", f"Invalid client secret {secret} provided.", 401)
        return None

    def _refused_assertion(self, client_id: str, request: Request) -> Answer | None:
        pem = self.certificates.get(client_id)
        if pem is None:
            return error("invalid_client", "unknown key", 401)
        key = x509.load_pem_x509_certificate(pem).public_key()
        try:
            claims = jwt.decode(
                request.form.get("client_assertion", ""),
                key,  # type: ignore[arg-type]
                algorithms=["RS256", "PS256"],
                audience=self.url + request.path,
            )
        except jwt.InvalidTokenError as refused:
            return error("invalid_client", str(refused), 401)
        self.claims.append(claims)
        return None

    def _service_account(self, assertion: str) -> Answer:
        try:
            issuer = jwt.decode(assertion, options={"verify_signature": False})["iss"]
            claims = jwt.decode(
                assertion,
                self.service_accounts[issuer].decode(),
                algorithms=["RS256"],
                # google-auth signs for Google, wherever it sends the assertion.
                audience=["https://oauth2.googleapis.com/token", self.token_url],
            )
        except (jwt.InvalidTokenError, KeyError):
            return error("invalid_grant", "Invalid JWT Signature.")
        if self.mailboxes and claims.get("sub") not in self.mailboxes:
            return error("invalid_grant", "Invalid email or User ID")
        self.claims.append(claims)
        return answer(self.issue())

    def _refresh(self, refresh_token: str, scope: str | None) -> Answer:
        family = self._families.get(refresh_token)
        if family is None or family.is_revoked or family.newest != refresh_token:
            if family is not None and self.detects_reuse:
                family.is_revoked = True
            return error("invalid_grant", "Token has been expired or revoked.")
        body = self.issue(**({"scope": scope} if scope else {}))
        if self.rotates:
            family.newest = f"rt-{secrets.token_urlsafe(8)}"
            self._families[family.newest] = family
        if self.rotates or self.repeats_refresh_token:
            body["refresh_token"] = family.newest
        return answer(body)


def _kind(path: str) -> Literal["token", "discovery"] | None:
    if path.endswith("/.well-known/openid-configuration"):
        return "discovery"
    return "token" if path.endswith("/token") else None


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Request(
        method=method,
        path=url.path,
        query=dict(parse_qsl(url.query)),
        headers=headers,
        form=dict(parse_qsl(body.decode(), keep_blank_values=True)),
    )
