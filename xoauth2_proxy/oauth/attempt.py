"""A sign-in that has begun, and what it ends in. RFC 6749 §4.1, 7636, 8628. Plain values."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import TokenResponse


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that has begun: the person opens `url`."""

    url: str = field(default="", repr=False)
    state: str = field(repr=False)
    redirect_uri: str
    code_verifier: str = field(repr=False)
    nonce: str = field(repr=False)  # for the ID token, if the server issues one

    @property
    def code_challenge(self) -> str:
        """The challenge of the code verifier, by the method S256. RFC 7636 §4.2."""
        digest = hashlib.sha256(self.code_verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAttempt:
    """A sign-in that the person completes on another device."""

    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str = field(default="", repr=False)  # with the code; "": none
    expires_in_seconds: float
    interval_seconds: float  # between two polls
    device_code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInResult:
    """The result of a sign-in. `identity` and `subject` are "" if the provider does not say."""

    issued: TokenResponse
    identity: str  # the e-mail address or user name of the person who signed in
    subject: str  # the provider's stable id of that person
    # Whether the provider vouches for the identity. False: the administrator of any tenant may have
    # written it, so it proves nothing.
    is_vouched: bool = False
