"""The sign-in of a plug-in that conducts it itself."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import SignInRefused, TokenEndpointRefused
from xoauth2_proxy.oauth.attempt import DeviceAttempt, SignInResult
from xoauth2_proxy.oauth.authorization.sign_in_server import SignInServer
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers import Revokes, SignsIn, SignsInOnDevice
from xoauth2_proxy.oauth.token_request import answer_of, check_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.attempt import Attempt
    from xoauth2_proxy.oauth.refreshers import Refresher


_URL = re.compile(r"https?://[!-~]+")


class PlugInServer(SignInServer):
    """The sign-in of an account whose plug-in conducts it."""

    def __init__(self, account: Account, refresher: Refresher) -> None:
        super().__init__(account)
        self._refresher = refresher
        self._grant = Grant(mailbox=account.email, client=account.oauth)

    @property
    def name(self) -> str:
        """The provider's name in messages."""
        return self.account.refresher_info.label

    @property
    def browser_obstacle(self) -> str:
        """Why no one can sign in with a browser; "" if it is possible."""
        if isinstance(self._refresher, SignsIn):
            return ""
        return f"{self.name} has no sign-in in a browser"

    @property
    def device_obstacle(self) -> str:
        """Why no one can sign in on another device; "" if it is possible."""
        if isinstance(self._refresher, SignsInOnDevice):
            return ""
        return f"{self.name} offers no device flow"

    def redirect_uri(self, port: int) -> str:
        """Return the redirect URI of a listener on this machine."""
        return f"http://127.0.0.1:{port}/"  # RFC 8252 §7.3

    async def prepare(self) -> None:
        """Do nothing: a plug-in has no metadata."""

    async def begin_device(self) -> DeviceAttempt:
        """As `SignInServer.begin_device`."""
        if not isinstance(self._refresher, SignsInOnDevice):
            raise SignInRefused(self.device_obstacle)
        begun: object = await answer_of(self._refresher.begin_device(self._grant))
        if not isinstance(begun, DeviceAttempt):
            raise _mistake(f"begin_device returned {type(begun).__name__}, no DeviceAttempt")
        return begun

    async def revoke(self, refresh_token: str) -> bool:
        """As `SignInServer.revoke`."""
        if not isinstance(self._refresher, Revokes):
            return False
        grant = replace(self._grant, refresh_token=refresh_token)
        return await answer_of(self._refresher.revoke(grant))

    async def _begin(self, attempt: Attempt) -> str:
        if not isinstance(self._refresher, SignsIn):
            raise SignInRefused(self.browser_obstacle)
        url: object = await answer_of(self._refresher.authorization_url(self._grant, attempt))
        if not isinstance(url, str) or not _URL.fullmatch(url):
            raise _mistake("authorization_url returned no http or https address")
        return url

    async def _exchange(self, attempt: Attempt, answer: Mapping[str, str]) -> SignInResult:
        if not isinstance(self._refresher, SignsIn):
            raise SignInRefused(self.browser_obstacle)
        return self._checked(
            await answer_of(self._refresher.exchange(self._grant, attempt, answer))
        )

    async def _poll(self, attempt: DeviceAttempt) -> SignInResult:
        if not isinstance(self._refresher, SignsInOnDevice):
            raise SignInRefused(self.device_obstacle)
        return self._checked(await answer_of(self._refresher.poll_device(self._grant, attempt)))

    def _check_answer(self, answer: Mapping[str, str]) -> None:
        """Accept it: a plug-in judges its provider's answers in `exchange`."""

    def _checked(self, signed_in: SignInResult) -> SignInResult:
        """Raise unless the tokens last; a plug-in may keep what makes them last itself."""
        if not isinstance(signed_in, SignInResult):
            raise _mistake(f"a sign-in ended in {type(signed_in).__name__}, no SignInResult")
        check_response(signed_in.issued)
        if signed_in.issued.refresh_token or self.account.refresher_info.kept_in:
            return signed_in
        raise SignInRefused(
            f"{self.name} issued no refresh token, so the mailbox could send for an hour only: "
            "this is a mistake of the plug-in or of its provider"
        )


def _mistake(what: str) -> TokenEndpointRefused:
    return TokenEndpointRefused(f"{what}: this is a mistake of the plug-in")
