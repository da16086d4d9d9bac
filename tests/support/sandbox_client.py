"""A program that asks the sandbox's authorization server for tokens, over HTTP."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp

from tests.support.person import LoopbackServer, Person
from tests.support.raw_smtp import MAILBOX, RawSmtp

if TYPE_CHECKING:
    from types import TracebackType

    from tests.support.sandbox import Sandbox

REDIRECT_URI = "http://127.0.0.1:9/back"


@dataclass
class SandboxClient:
    """A public client with PKCE, and the person whom it asks."""

    sandbox: Sandbox
    client_id: str = "a-client"
    secret: str = field(default="", repr=False)
    redirect_uri: str = REDIRECT_URI
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(self.sandbox.http_url)
        self.person = Person(LoopbackServer(self.sandbox.http_url))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.http.close()
        await self.person.__aexit__(kind, error, traceback)

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def url(self, **changes: str | None) -> str:
        """Return the address where a person signs in; a parameter that is None is left out."""
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid email offline_access",
            "state": "a state",
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
        }
        wanted = {name: value for name, value in (query | changes).items() if value is not None}
        return f"{self.sandbox.http_url}/oauth/authorize?{urlencode(wanted)}"

    async def answer(
        self, mailbox: str = MAILBOX, *, consents: bool = True, **changes: str | None
    ) -> dict[str, str]:
        """Return the query of the address that the person is led back to."""
        address = await self.person.sign_in(self.url(**changes), mailbox, consents=consents)
        assert address.startswith(self.redirect_uri), address
        return dict(parse_qsl(urlsplit(address).query))

    async def post(
        self, path: str, headers: dict[str, str] | None = None, /, **form: str
    ) -> tuple[int, dict[str, Any]]:
        """Return status and document of a request with a form."""
        own = {"client_id": self.client_id, "client_secret": self.secret}
        data = {name: value for name, value in (own | form).items() if value}
        async with self.http.post(path, data=data, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else {}

    async def ask(self, **form: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of a token request."""
        return await self.post("/oauth/token", **form)

    async def exchange(self, code: str, **changes: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of the exchange of a code."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return await self.ask(**(form | changes))

    async def sign_in(self, mailbox: str = MAILBOX, **changes: str | None) -> dict[str, Any]:
        """Return the tokens after a whole sign-in."""
        answer = await self.answer(mailbox, consents=True, **changes)
        status, tokens = await self.exchange(answer["code"])
        assert status == 200, tokens
        return tokens

    async def refresh(self, refresh_token: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of a refresh."""
        return await self.ask(grant_type="refresh_token", refresh_token=refresh_token)

    async def register(self, **metadata: object) -> tuple[int, dict[str, Any]]:
        """Return status and document of a registration."""
        async with self.http.post("/oauth/register", json=metadata) as response:
            return response.status, await response.json()

    async def get(self, path: str, **headers: str) -> tuple[int, dict[str, Any]]:
        """Return status and document of a JSON resource."""
        async with self.http.get(path, headers=headers) as response:
            return response.status, await response.json()

    async def opens(self, token: str, mailbox: str = MAILBOX) -> bool:
        """Return whether the mail server takes the token."""
        async with RawSmtp(self.sandbox) as client:
            await client.begin()
            return (await client.authenticate(mailbox, token)).startswith("235 ")
