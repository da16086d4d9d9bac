"""Runs sign-ins at an account's authorization server: begin, finish, revoke.

I1: a code is exchanged only for the attempt that requested it, with that attempt's code verifier; a
redirect is accepted only from the server that was asked, if it identifies itself (RFC 9207).
I2: a sign-in without a refresh token is refused: it would work for an hour only.
`sign_in` decides who may sign in, and saves grants.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any, TypeVar

from xoauth2_proxy.errors import GrantRevoked, SignInRefused, TokenEndpointRefused, TokenError
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.authorization import provider_requests
from xoauth2_proxy.oauth.authorization.provider_profile import ProviderProfile
from xoauth2_proxy.oauth.authorization.provider_requests import Attempt
from xoauth2_proxy.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.authorization.provider_requests import DeviceAttempt, SignInResult

_T = TypeVar("_T")

_VERIFIER_OCTETS = 48  # 64 characters; RFC 7636 §4.1 wants 43 to 128
_SLOWER_SECONDS = 5.0  # RFC 8628 §3.5
_MAX_INTERVAL_SECONDS = 60.0
_MAX_WORDS = 300  # characters of a redirect's error: anyone can write one
_DEVICE_ENDS = {
    "access_denied": "the person declined",
    "expired_token": "no one signed in before the code expired; try again",
}


class AuthorizationServer:
    """The server where one account's owner signs in.

    Every request can raise `TokenError`: `TokenEndpointRefused` if the operator must correct the
    configuration, `TokenEndpointUnavailable` if it is transient.
    """

    def __init__(self, account: Account, threads: Executor) -> None:
        self.account = account
        self._threads = threads
        self.profile = ProviderProfile(account, {})  # complete once `metadata` has returned

    async def metadata(self) -> Mapping[str, Any]:
        """Return the server's metadata; configured endpoints replace its own."""
        return (await self._known()).metadata

    async def begin(self, redirect_uri: str) -> Attempt:
        """Return an attempt; its `url` leads to the server's sign-in page."""
        profile = await self._ready()
        attempt = {
            "redirect_uri": redirect_uri,
            "state": secrets.token_urlsafe(),
            "code_verifier": secrets.token_urlsafe(_VERIFIER_OCTETS),
            "nonce": secrets.token_urlsafe() if profile.has_openid else "",
        }
        return Attempt(url=provider_requests.authorization_url(profile, **attempt), **attempt)

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        """Return who signed in and the tokens; `answer` is the query of the redirect.

        Raises `SignInRefused`: the person or the server declined, or the state is another one.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("the answer belongs to another sign-in: its state is not ours")
        profile = await self._known()
        _check_issuer(profile, answer)
        if "error" in answer:  # RFC 6749 §4.1.2.1
            words = ": ".join(filter(None, (answer["error"], answer.get("error_description"))))
            raise SignInRefused(f"{profile.name} says {one_line(words, _MAX_WORDS)}")
        if not answer.get("code"):
            raise SignInRefused("the answer holds no code")
        return await self.finish_with_code(attempt, answer["code"])

    async def finish_with_code(self, attempt: Attempt, code: str) -> SignInResult:
        """Return who signed in and the tokens, for a code that a person pasted without its state.

        Only the code verifier ties it to the attempt. Raises: as `finish`.
        """
        profile = await self._known()
        try:
            return await self._ask(provider_requests.exchange_code, profile, attempt, code)
        except GrantRevoked as error:
            raise SignInRefused(
                f"{profile.name} does not accept the code ({error}); a code works once, for a few "
                "minutes: sign in again"
            ) from None

    async def begin_device(self) -> DeviceAttempt:
        """Return the code for the person to type on the server's page. RFC 8628 §3.1.

        Raises `SignInRefused`: the server has no device flow that works for mail.
        """
        profile = await self._ready()
        if profile.is_google:
            raise SignInRefused("Google's device flow grants no scope for mail")
        if not profile.can_use_device:
            raise SignInRefused(f"{profile.name} offers no device flow")
        return await self._ask(provider_requests.ask_for_device_code, profile)

    async def finish_device(self, attempt: DeviceAttempt) -> SignInResult:
        """Return who signed in and the tokens, once the person has done so. RFC 8628 §3.5.

        Raises `SignInRefused`: the person declined, or the code expired.
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
                # `slow_down`, or a transient error: the RFC asks to wait longer after both.
                interval_seconds = min(interval_seconds + _SLOWER_SECONDS, _MAX_INTERVAL_SECONDS)
        raise SignInRefused(_DEVICE_ENDS["expired_token"])

    async def revoke(self, refresh_token: str) -> bool:
        """Revoke the token (RFC 7009); return False if the server has no such endpoint."""
        return await self._ask(provider_requests.revoke, await self._known(), refresh_token)

    async def _known(self) -> ProviderProfile:
        if not self.profile.metadata:
            metadata = await self._ask(provider_requests.find_metadata, self.profile)
            self.profile = ProviderProfile(self.account, metadata)
        return self.profile

    async def _ready(self) -> ProviderProfile:
        client = self.account.oauth
        if client.certificate is not None and not client.client_secret:
            raise TokenEndpointRefused(
                "signing in does not work with a certificate; configure a client_secret, or a "
                "public client"
            )
        return await self._known()

    async def _ask(self, ask: Callable[..., _T], *arguments: object) -> _T:
        def asked() -> _T:
            with endpoint.open_session(self.account.oauth.ca_file) as session:
                return ask(session, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._threads, asked)


def _check_issuer(profile: ProviderProfile, answer: Mapping[str, str]) -> None:
    """Raise if the redirect names another server than this one. RFC 9207 §2.4."""
    issuer = profile.metadata.get("issuer")
    if not issuer:
        return
    announces = profile.metadata.get("authorization_response_iss_parameter_supported") is True
    if announces and "iss" not in answer:
        raise SignInRefused(
            f"the answer does not say that it comes from {profile.name}: its iss is missing; copy "
            "the whole address"
        )
    if answer.get("iss", issuer) != issuer:
        raise SignInRefused("the answer comes from another server: its iss is not the issuer")
