"""Acme Mail for xoauth2-proxy. Acme's account service is not quite OAuth: it speaks of keys."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from xoauth2_proxy.plug_in import (
    Attempt,
    DeviceAttempt,
    Grant,
    GrantRevoked,
    Options,
    RefresherInfo,
    Secret,
    SignInResult,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenResponse,
    Url,
    open_session,
    required,
    send_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Executor


class AcmeOptions(Options):
    """The keys under `options` of an account or its provider."""

    service: Url = required("Address of Acme's account service.")
    app_key: Secret = required("Key of the application, from Acme's console.", repr=False)


class AcmeRefresher:
    """Gets Acme's tokens, signs people in and out."""

    info = RefresherInfo(
        display_name="Acme Mail",
        description="Mailboxes at Acme.",
        scopes=("mail.send",),
        options=AcmeOptions,
    )

    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def refresh(self, grant: Grant) -> TokenResponse:
        if not grant.refresh_token:
            raise GrantRevoked("no one has signed in yet")
        return _tokens(await self._ask(grant, "renew", key=grant.refresh_token))

    # A sign-in in a browser.

    async def authorization_url(self, grant: Grant, attempt: Attempt) -> str:
        query = {
            "mailbox": grant.mailbox,
            "scope": " ".join(grant.client.scopes),
            "back": attempt.redirect_uri,
            "state": attempt.state,
            "challenge": attempt.code_challenge,
        }
        return f"{grant.client.options.service}/connect?{urlencode(query)}"

    async def exchange(
        self, grant: Grant, attempt: Attempt, answer: Mapping[str, str]
    ) -> SignInResult:
        return _signed_in(
            await self._ask(grant, "key", code=answer["code"], verifier=attempt.code_verifier)
        )

    # A sign-in on another device.

    async def begin_device(self, grant: Grant) -> DeviceAttempt:
        begun = await self._ask(grant, "device", scope=" ".join(grant.client.scopes))
        return DeviceAttempt(
            user_code=begun["show"],
            verification_uri=f"{grant.client.options.service}/device",
            expires_in_seconds=begun["seconds"],
            interval_seconds=begun["pause"],
            device_code=begun["ticket"],
        )

    async def poll_device(self, grant: Grant, attempt: DeviceAttempt) -> SignInResult:
        return _signed_in(await self._ask(grant, "device/key", ticket=attempt.device_code))

    async def revoke(self, grant: Grant) -> bool:
        await self._ask(grant, "end", key=grant.refresh_token)
        return True

    async def _ask(self, grant: Grant, what: str, **fields: str) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _post, grant, what, fields)


def _post(grant: Grant, what: str, fields: dict[str, str]) -> dict[str, Any]:
    """Return the service's answer; blocks. No error may quote a token, so none quotes anything."""
    options: AcmeOptions = grant.client.options
    body = json.dumps({**fields, "app_key": options.app_key}).encode()
    headers = {"Content-Type": "application/json"}
    with open_session(grant.client.ca_file) as session:
        response = send_request(session, "POST", f"{options.service}/{what}", body, headers)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.ok and isinstance(answer, dict):
        return answer
    problem = answer.get("problem") if isinstance(answer, dict) else ""
    match problem:
        case "key-ended":
            raise GrantRevoked("Acme has ended the key")
        case "wait":
            raise TokenEndpointUnavailable("not yet", oauth_error="authorization_pending")
        case "declined":
            raise TokenEndpointRefused("declined", oauth_error="access_denied")
        case "app-unknown":
            raise TokenEndpointRefused("Acme does not know the app_key")
    wait_seconds = float(response.headers.get("Retry-After") or 0)
    raise TokenEndpointUnavailable(f"Acme answers {response.status_code}", wait_seconds)


def _tokens(answer: dict[str, Any]) -> TokenResponse:
    try:
        return TokenResponse(
            access_token=answer["token"],
            lifetime_seconds=answer["seconds"],
            refresh_token=answer.get("key", ""),
        )
    except KeyError:
        raise TokenEndpointUnavailable("Acme's answer lacks the token") from None


def _signed_in(answer: dict[str, Any]) -> SignInResult:
    mailbox = answer.get("mailbox", "")
    return SignInResult(issued=_tokens(answer), identity=mailbox, subject=mailbox, is_vouched=True)
