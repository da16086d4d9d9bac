"""An account's OAuth authorization server: its metadata, endpoints and particulars.

A code is exchanged only with the verifier of the attempt that requested it. A redirect is accepted
only from the server that was asked, if it identifies itself (RFC 9207).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from xoauth2_proxy.errors import SignInRefused, TokenEndpointRefused
from xoauth2_proxy.oauth import endpoint
from xoauth2_proxy.oauth.authorization import provider_requests
from xoauth2_proxy.oauth.authorization.provider_profile import ProviderProfile
from xoauth2_proxy.oauth.authorization.sign_in_server import SignInServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.attempt import Attempt, DeviceAttempt, SignInResult

_T = TypeVar("_T")


class AuthorizationServer(SignInServer):
    """The authorization server of an account that acts as an OAuth client."""

    def __init__(self, account: Account, threads: Executor) -> None:
        super().__init__(account)
        self._threads = threads
        self.profile = ProviderProfile(account, {})  # complete once `metadata` has returned

    @property
    def name(self) -> str:
        """The provider's name in messages."""
        return self.profile.name

    @property
    def device_obstacle(self) -> str:
        """Why no one can sign in on another device; "" if it is possible."""
        if self.profile.is_google:
            return "Google's device flow grants no scope for mail"
        return "" if self.profile.can_use_device else f"{self.name} offers no device flow"

    def redirect_uri(self, port: int) -> str:
        """Return the redirect URI of a listener on this machine."""
        return self.profile.redirect_uri(port)

    async def prepare(self) -> None:
        """Fetch the metadata, once."""
        await self.metadata()

    async def metadata(self) -> Mapping[str, Any]:
        """Return the server's metadata; configured endpoints replace its own."""
        if not self.profile.metadata:
            metadata = await self._ask(provider_requests.find_metadata, self.profile)
            self.profile = ProviderProfile(self.account, metadata)
        return self.profile.metadata

    async def begin_device(self) -> DeviceAttempt:
        """As `SignInServer.begin_device`."""
        self._check_client()
        await self.prepare()
        if self.device_obstacle:
            raise SignInRefused(self.device_obstacle)
        return await self._ask(provider_requests.ask_for_device_code, self.profile)

    async def revoke(self, refresh_token: str) -> bool:
        """As `SignInServer.revoke`."""
        await self.prepare()
        return await self._ask(provider_requests.revoke, self.profile, refresh_token)

    async def _begin(self, attempt: Attempt) -> str:
        self._check_client()
        return provider_requests.authorization_url(self.profile, attempt)

    async def _exchange(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        if not answer.get("code"):
            raise SignInRefused("the answer holds no code")
        return await self._ask(
            provider_requests.exchange_code, self.profile, attempt, answer["code"]
        )

    async def _poll(self, attempt: DeviceAttempt) -> SignInResult:
        await self.prepare()
        return await self._ask(provider_requests.poll, self.profile, attempt.device_code)

    def _check_answer(self, answer: Mapping[str, str]) -> None:
        """Raise if the redirect names another server than this one. RFC 9207 §2.4."""
        metadata = self.profile.metadata
        issuer = metadata.get("issuer")
        if not issuer:
            return
        announces = metadata.get("authorization_response_iss_parameter_supported") is True
        if announces and "iss" not in answer:
            raise SignInRefused(
                f"the answer does not say that it comes from {self.name}: its iss is missing; "
                "copy the whole address"
            )
        if answer.get("iss", issuer) != issuer:
            raise SignInRefused("the answer comes from another server: its iss is not the issuer")

    def _check_client(self) -> None:
        client = self.account.oauth
        if client.certificate is not None and not client.client_secret:
            raise TokenEndpointRefused(
                "signing in does not work with a certificate; configure a client_secret, or a "
                "public client"
            )

    async def _ask(self, ask: Callable[..., _T], *arguments: object) -> _T:
        def asked() -> _T:
            with endpoint.open_session(self.account.oauth.ca_file) as session:
                return ask(session, *arguments)

        return await asyncio.get_running_loop().run_in_executor(self._threads, asked)
