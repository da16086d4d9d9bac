"""The relay's half of a sign-in, whatever the provider speaks: begin, finish, poll, revoke.

I1: an answer is accepted only for the attempt whose state it has.
I2: a sign-in without a refresh token is refused: it would work for an hour only.
`sign_in` decides who may sign in, and saves grants.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import GrantRevoked, SignInRefused, TokenError
from xoauth2_proxy.oauth.attempt import Attempt
from xoauth2_proxy.redaction import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.attempt import DeviceAttempt, SignInResult

_VERIFIER_OCTETS = 48  # 64 characters; RFC 7636 §4.1 wants 43 to 128
_SLOWER_SECONDS = 5.0  # RFC 8628 §3.5
_MAX_INTERVAL_SECONDS = 60.0
_MAX_WORDS = 300  # characters of a redirect's error: anyone can write one
_DEVICE_ENDS = {
    "access_denied": "the person declined",
    "expired_token": "no one signed in before the code expired; try again",
}


class SignInServer(ABC):
    """The server where one account's owner signs in.

    Every request can raise `TokenError`: `TokenEndpointRefused` if the operator must correct the
    configuration, `TokenEndpointUnavailable` if it is transient.
    """

    def __init__(self, account: Account) -> None:
        self.account = account

    @property
    @abstractmethod
    def name(self) -> str:
        """The provider's name in messages."""

    @property
    def browser_obstacle(self) -> str:
        """Why no one can sign in with a browser; "" if it is possible."""
        return ""

    @property
    @abstractmethod
    def device_obstacle(self) -> str:
        """Why no one can sign in on another device; "" if it is possible. Known when prepared."""

    @abstractmethod
    def redirect_uri(self, port: int) -> str:
        """Return the redirect URI of a listener on this machine, as the provider allows it."""

    @abstractmethod
    async def prepare(self) -> None:
        """Find out what the server offers."""

    @abstractmethod
    async def revoke(self, refresh_token: str) -> bool:
        """Revoke the grant (RFC 7009); return False if the server cannot."""

    @abstractmethod
    async def begin_device(self) -> DeviceAttempt:
        """Return the code for the person to type on the server's page. RFC 8628 §3.1.

        Raises `SignInRefused`: the server has no device flow that works for mail.
        """

    @abstractmethod
    async def _begin(self, attempt: Attempt) -> str:
        """Return the address of the sign-in page."""

    @abstractmethod
    async def _exchange(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        """Return who signed in and the tokens. Raises `GrantRevoked`: the code is no good."""

    @abstractmethod
    async def _poll(self, attempt: DeviceAttempt) -> SignInResult:
        """Return who signed in and the tokens. Raises with an `oauth_error` of RFC 8628 §3.5."""

    @abstractmethod
    def _check_answer(self, answer: Mapping[str, str]) -> None:
        """Raise `SignInRefused` if the answer comes from another server."""

    async def begin(self, redirect_uri: str) -> Attempt:
        """Return an attempt; its `url` leads to the server's sign-in page."""
        await self.prepare()
        attempt = Attempt(
            redirect_uri=redirect_uri,
            state=secrets.token_urlsafe(),
            code_verifier=secrets.token_urlsafe(_VERIFIER_OCTETS),
            nonce=secrets.token_urlsafe(),
        )
        return replace(attempt, url=await self._begin(attempt))

    async def finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        """Return who signed in and the tokens; `answer` is the query of the redirect.

        Raises `SignInRefused`: the person or the server declined, or the state is another one.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), attempt.state.encode()):
            raise SignInRefused("the answer belongs to another sign-in: its state is not ours")
        await self.prepare()
        self._check_answer(answer)
        if "error" in answer:  # RFC 6749 §4.1.2.1
            words = ": ".join(filter(None, (answer["error"], answer.get("error_description"))))
            raise SignInRefused(f"{self.name} says {one_line(words, _MAX_WORDS)}")
        return await self._finish(attempt, answer)

    async def finish_with_code(self, attempt: Attempt, code: str) -> SignInResult:
        """Return who signed in and the tokens, for a code that a person pasted without its state.

        Only the code verifier ties it to the attempt. Raises: as `finish`.
        """
        await self.prepare()
        return await self._finish(attempt, {"code": code})

    async def finish_device(self, attempt: DeviceAttempt) -> SignInResult:
        """Return who signed in and the tokens, once the person has done so. RFC 8628 §3.5.

        Raises `SignInRefused`: the person declined, or the code expired.
        """
        interval_seconds = attempt.interval_seconds
        ends_at = time.monotonic() + attempt.expires_in_seconds
        while time.monotonic() + interval_seconds < ends_at:
            await asyncio.sleep(interval_seconds)
            try:
                return await self._poll(attempt)
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

    async def _finish(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        try:
            return await self._exchange(attempt, answer)
        except GrantRevoked as error:
            raise SignInRefused(
                f"{self.name} does not accept the code ({error}); a code works once, for a few "
                "minutes: sign in again"
            ) from None
