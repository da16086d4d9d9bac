"""The users of a run: they sign in before it, and their grants are revoked afterwards."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from bench.process.child_process import StartInterrupted
from bench.sign_in.authorization_server import ProviderError, RegisteredClient, discover
from bench.sign_in.browser_visitor import BrowserVisitor
from bench.sign_in.callback_server import CallbackServer
from bench.sign_in.clients import client_for
from bench.sign_in.grants import Grants
from bench.sign_in.http_visitor import HttpVisitor
from bench.sign_in.request import SignInMethod
from bench.sign_in.sign_ins import SignInRecord, SignIns
from bench.targets.blocking_http import NoAnswer, ask, shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from bench.measurement.result import SignInFigures
    from bench.process.interruption import Interruption
    from bench.sign_in.authorization_server import AuthorizationServer
    from bench.sign_in.request import SignInRequest
    from bench.targets.mailboxes import BenchMailbox
    from bench.targets.target import Target

_MINT_SECONDS = 30.0
_SANDBOX_CLIENT = RegisteredClient("xoauth2-proxy")  # public, and known to every sandbox


@asynccontextmanager
async def signing_in(
    request: SignInRequest,
    target: Target,
    interruption: Interruption,
    announce: Callable[[str], None],
    *,
    is_kept: bool,
) -> AsyncIterator[Users]:
    """Yield the users, who sign in when they are prepared; revoke their grants afterwards.

    If `is_kept`, the grants stay and are listed.

    Raises:
        ProviderError: there is no provider to sign in at.
    """
    if request.provider is not None:
        issuer = request.provider.issuer
    elif target.sandbox_url:
        issuer = target.sandbox_url
    else:
        reason = target.no_sandbox_reason
        raise ProviderError(f"--sign-in needs the sandbox, or another --issuer: {reason}.")
    users = Users(request, issuer, interruption, announce, is_kept=is_kept)
    # A private proxy's sandbox forgets its clients when it ends.
    users.keeps_client = request.provider is not None or not target.is_private
    interruption.on_request.add(users.tell_stop)
    interruption.on_abort.append(users.end_at_once)
    try:
        yield users
    finally:
        # In a thread: it continues if this task is cancelled, and the loop waits for it.
        await asyncio.to_thread(users.end)
        interruption.on_abort.remove(users.end_at_once)
        interruption.on_request.discard(users.tell_stop)


class Users:
    """The users of one run at one provider."""

    def __init__(
        self,
        request: SignInRequest,
        issuer: str,
        interruption: Interruption,
        announce: Callable[[str], None],
        *,
        is_kept: bool,
    ) -> None:
        self.figures: SignInFigures | None = None  # None: the sign-ins have not ended
        self.keeps_client = True
        self._request = request
        self._issuer = issuer
        self._interruption = interruption
        self._announce = announce
        self._is_kept = is_kept
        self._grants: Grants | None = None

    async def prepare(
        self, mailboxes: Sequence[BenchMailbox]
    ) -> tuple[list[BenchMailbox], dict[str, str]]:
        """Sign the users in; return those who are, with their grants, and why others are not.

        Raises:
            ProviderError: the provider cannot be used.
            StartInterrupted: a signal came first.
        """
        count, method = len(mailboxes), self._request.method
        self._announce(f"Signing in {count} users at {self._issuer} ({method.value}).")
        is_mint = method is SignInMethod.MINT
        needs_registration = not (is_mint or self._request.client_id)
        server = await asyncio.to_thread(
            discover,
            self._issuer,
            needs_registration=needs_registration,
            allow_remote=self._request.allow_remote,
        )
        self._check()
        if is_mint:
            client, record = _SANDBOX_CLIENT, await self._mint(server, mailboxes)
        else:
            client, record = await self._sign_in(server, mailboxes)
        self.figures = record.figures()
        signed_in = [
            replace(one, oauth=self._oauth(client, record.tokens[one.address]))
            for one in mailboxes
            if one.address in record.tokens
        ]
        return signed_in, record.failures

    def end(self) -> None:
        """Revoke all grants, or list them; blocks, never raises."""
        if self._grants is not None:
            self._grants.end()

    def end_at_once(self) -> None:
        """Do the same in the last moment of the process, with a short time limit."""
        if self._grants is not None:
            self._grants.end_at_once()

    def tell_stop(self) -> None:
        """Say what happens after a first signal, unless the load has begun and says it."""
        if self.figures is None:
            self._announce("Stopping. What was made so far is removed.")

    async def _sign_in(
        self, server: AuthorizationServer, mailboxes: Sequence[BenchMailbox]
    ) -> tuple[RegisteredClient, SignInRecord]:
        request = self._request
        async with CallbackServer(request.callback_port) as callback:
            client = await asyncio.to_thread(
                client_for,
                request,
                server,
                callback.url,
                self._announce,
                is_kept=self.keeps_client,
            )
            self._check()
            self._grants = Grants(server, client, is_kept=self._is_kept)
            is_browser = request.method is SignInMethod.BROWSER
            browser_or_http = (
                BrowserVisitor(request, self._interruption)
                if is_browser
                else HttpVisitor(allow_remote=request.allow_remote)
            )
            async with browser_or_http as visitor:
                self._check()
                sign_ins = SignIns(request, server, client, self._grants, callback)
                return client, await sign_ins.all_of(
                    mailboxes, visitor, self._interruption, self._announce
                )

    async def _mint(
        self, server: AuthorizationServer, mailboxes: Sequence[BenchMailbox]
    ) -> SignInRecord:
        record = SignInRecord(self._request.method.value, len(mailboxes))
        self._grants = Grants(server, _SANDBOX_CLIENT, is_kept=self._is_kept)
        addresses = [one.address for one in mailboxes]
        for mailbox, token in (await asyncio.to_thread(_minted, self._issuer, addresses)).items():
            self._grants.add(mailbox, token)
            record.succeeded(mailbox, token)
        self._announce(f"{len(addresses)} of {len(addresses)} users have a grant.")
        return record

    def _oauth(self, client: RegisteredClient, token: str) -> dict[str, object]:
        """Return what the proxy's account of a user has beside its address and password."""
        keys: dict[str, object] = {"client_id": client.client_id, "refresh_token": token}
        if client.secret:
            keys["client_secret"] = client.secret
        provider = self._request.provider
        if provider is None:
            return {"provider": "sandbox", **keys}
        upstream = {
            "host": provider.upstream_host,
            "port": provider.upstream_port,
            "tls": provider.upstream_tls.value,
        }
        scopes = list(self._request.asked_scopes)
        return {
            "provider": "oidc",
            "issuer": provider.issuer,
            "scopes": scopes,
            "upstream": upstream,
            **keys,
        }

    def _check(self) -> None:
        if self._interruption.requested.is_set():
            raise StartInterrupted


def _minted(sandbox_url: str, mailboxes: Sequence[str]) -> dict[str, str]:
    """Return a refresh token of each mailbox. Raises `ProviderError`."""
    body = json.dumps({"mailboxes": list(mailboxes), "kind": "refresh"}).encode()
    headers = {"Content-Type": "application/json"}
    url = f"{sandbox_url}/test/tokens/batch"
    try:
        response = ask("POST", url, _MINT_SECONDS, body=body, headers=headers)
    except NoAnswer as error:
        raise ProviderError(f"{url} does not answer: {error}") from error
    answer = response.json_object() or {}
    if response.status != 201 or not isinstance(answer.get("tokens"), list):
        raise ProviderError(f"{url} answers {response.status}: {shown(answer.get('error', ''))}")
    return {str(one["mailbox"]): str(one["token"]) for one in answer["tokens"]}
