"""A sign-in from its beginning to its end, as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import Issued


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A sign-in that has begun; the person follows `url`."""

    url: str = field(repr=False)
    state: str = field(repr=False)
    redirect_uri: str
    code_verifier: str = field(repr=False)
    nonce: str = field(repr=False)  # "": the server issues no ID token


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceAttempt:
    """A sign-in that the person goes through on another device."""

    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str = field(default="", repr=False)  # with the code; "": none
    expires_in_seconds: float
    interval_seconds: float  # between two questions whether it is done
    device_code: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """What came of it. `identity` and `subject` are "" where the provider does not tell."""

    issued: Issued
    identity: str  # the e-mail address or user name of who signed in, as the provider knows them
    subject: str  # the provider's own stable id of that person
    # Whether the provider answers for the identity. False: whoever runs one of its tenants may have
    # written it, so that it proves nothing.
    is_vouched: bool = False
