"""An authorization server as the rest of the relay uses it: begin, finish, revoke.

I1: a code is exchanged only for the attempt that asked for it, with that attempt's code verifier;
a redirect is taken from the server that was asked alone, where it says who it is (RFC 9207).
I2: a sign-in without a refresh token is refused: an hour later nothing would work.
Nothing is kept here and nothing is decided about who may sign in: that is `sign_in`.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any, TypeVar

from xoauth2_proxy.errors import (
    GrantRevoked,
    SignInRefused,
    TokenEndpointRefused,
    TokenError,
)
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.authorization import provider_requests
from xoauth2_proxy.oauth.authorization.attempts import Attempt, DeviceAttempt, SignedIn
from xoauth2_proxy.oauth.authorization.provider_profile import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account

_T = TypeVar("_T")

_VERIFIER_OCTETS = 48  # 64 characters; RFC 7636 §4.1 wants 43 to 128
_SLOWER_SECONDS = 5.0  # RFC 8628 §3.5
_MAX_INTERVAL_SECONDS = 60.0
_MAX_WORDS = 300  # characters of what a redirect says: anybody can write one
_DEVICE_ENDS = {
    "access_denied": "the person said no",
    "expired_token": "nobody signed in before the code ran out; try again",
}


class AuthorizationServer:
    """The server where one account's owner signs in.

    Whatever asks it raises `TokenError`: refused for a set-up that the operator must mend,
    unavailable for what may pass.
    """

    def __init__(self, account: Account, threads: Executor) -> None:
        self.account = account
        self._threads = threads
        self._profile = Profile(account, {})

    async def metadata(self) -> Mapping[str, Any]:
        """Return what the server says of itself, with the configured endpoints instead of its."""
        return (await self._known()).metadata

    @property
    def can_use_device(self) -> bool:
        """Whether the device flow is of use; known once `metadata` has returned."""
        return self._profile.can_use_device

    @property
    def is_google(self) -> bool:
        """Whether the account is Google's, whose device flow grants no scope for mail."""
        return self._profile.is_google

    @property
    def name(self) -> str:
        """What the server is called in a text for people."""
        return self._profile.name

    def redirect_uri(self, port: int) -> str:
        """Return the address of a listener on this machine, in the form the server allows."""
        return self._profile.redirect_uri(port)

    async def begin(self, redirect_uri: str) -> Attempt:
        """Return an attempt whose `url` shows the person the server's pages."""
        profile = await self._ready()
        attempt = {
            "redirect_uri": redirect_uri,
            "state": secrets.token_urlsafe(),
            "code_verifier": secrets.token_urlsafe(_VERIFIER_OCTETS),
            "nonce": secrets.token_urlsafe() if profile.has_openid else "",
        }
        return Attempt(url=provider_requests.authorization_url(profile, **attempt), **attempt)

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignedIn:
        """Return who signed in and the tokens; `answer` is the query of the redirect.

        Raises:
            SignInRefused: the person or the server said no, or the answer is not this attempt's.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("the answer belongs to another sign-in: its state is not ours")
        profile = await self._known()
        _check_issuer(profile, answer)
        if "error" in answer:
            raise SignInRefused(f"{profile.name} says {_said(answer)}")
        if not answer.get("code"):
            raise SignInRefused("the answer holds no code")
        return await self.finish_with_code(attempt, answer["code"])

    async def finish_with_code(self, attempt: Attempt, code: str) -> SignedIn:
        """Return who signed in and the tokens, for a code that a person has copied by itself.

        Nothing came with it that could be compared: only the code verifier ties it to the attempt.

        Raises: as `finish`.
        """
        profile = await self._known()
        try:
            return await self._ask(provider_requests.exchange_code, profile, attempt, code)
        except GrantRevoked as error:
            raise SignInRefused(
                f"{profile.name} does not take the code ({error}); one is good for minutes and "
                "for one use: sign in again"
            ) from None

    async def begin_device(self) -> DeviceAttempt:
        """Return the code that the person shall type on a page of the server. RFC 8628 §3.1.

        Raises:
            SignInRefused: the server has no device flow that is of use.
        """
        profile = await self._ready()
        if profile.is_google:
            raise SignInRefused("Google's device flow grants no scope for mail")
        if not profile.can_use_device:
            raise SignInRefused(f"{profile.name} offers no device flow")
        return await self._ask(provider_requests.ask_for_device_code, profile)

    async def finish_device(self, attempt: DeviceAttempt) -> SignedIn:
        """Return once the person has signed in elsewhere. RFC 8628 §3.5. It may be cancelled.

        Raises:
            SignInRefused: the person said no, or the code ran out first.
        """
        profile = await self._known()
        interval_seconds = attempt.interval_seconds
        ends_at = time.monotonic() + attempt.expires_in_seconds
        while time.monotonic() + interval_seconds < ends_at:
            await asyncio.sleep(interval_seconds)
            try:
                return await self._ask(provider_requests.poll, profile, attempt.device_code)
            except TokenError as error:
                word = error.oauth_error
                if word == "authorization_pending":
                    continue
                if word in _DEVICE_ENDS:
                    raise SignInRefused(_DEVICE_ENDS[word]) from None
                if not error.is_transient:
                    raise
                # `slow_down`, or trouble that may pass: the RFC asks for patience with both.
                interval_seconds = min(interval_seconds + _SLOWER_SECONDS, _MAX_INTERVAL_SECONDS)
        raise SignInRefused(_DEVICE_ENDS["expired_token"])

    async def revoke(self, refresh_token: str) -> bool:
        """Return True once the token is worth nothing (RFC 7009); False: there is no such way."""
        return await self._ask(provider_requests.revoke, await self._known(), refresh_token)

    async def _known(self) -> Profile:
        if not self._profile.metadata:
            metadata = await self._ask(provider_requests.find, self._profile)
            self._profile = Profile(self.account, metadata)
        return self._profile

    async def _ready(self) -> Profile:
        client = self.account.oauth
        if client.certificate is not None and not client.client_secret:
            raise TokenEndpointRefused(
                "signing in is not possible with a certificate; configure a client_secret, or a "
                "public client"
            )
        return await self._known()

    async def _ask(self, ask: Callable[..., _T], *arguments: object) -> _T:
        def asked() -> _T:
            with endpoint.open_session(self.account.oauth.ca_file) as session:
                return ask(session, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._threads, asked)


def _check_issuer(profile: Profile, answer: Mapping[str, str]) -> None:
    """Raise unless the redirect came from this server, as far as it tells. RFC 9207 §2.4."""
    issuer = profile.metadata.get("issuer")
    if not issuer:
        return
    announces = profile.metadata.get("authorization_response_iss_parameter_supported") is True
    if announces and "iss" not in answer:
        raise SignInRefused(
            f"the answer does not say that it is of {profile.name}: its iss is missing; copy the "
            "whole address"
        )
    if answer.get("iss", issuer) != issuer:
        raise SignInRefused("the answer is of another server: its iss is not the issuer")


def _said(answer: Mapping[str, str]) -> str:
    """Return the error of a redirect (RFC 6749 §4.1.2.1) as one short line."""
    text = answer["error"]
    if description := answer.get("error_description"):
        text += f": {description}"
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_WORDS else text[:_MAX_WORDS] + "…"
