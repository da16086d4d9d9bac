"""Sign-ins under way: requests that wait for a person, codes that wait for their client.

I1: an authorization code is good once, for a short time, and for the client, redirect URI and code
verifier that it was issued to; a second use ends the grant of the first (RFC 6749 §4.1.2).
I2: whatever waits is bounded in number and in time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from xoauth2_proxy.sandbox.oauth.errors import OAuthError

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.oauth.clients import Client
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings

MAX_WAITING = 10_000  # of each kind; the oldest makes room
_PERSON_SECONDS = 600.0
_SLOWER_SECONDS = 5.0  # RFC 8628 §3.5
_KEPT = 2.0  # times its lifetime: a code that has ended is told from one that never was
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4.1
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, so no words

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationRequest:
    """What a client asks a person for."""

    client: Client
    issuer: str
    scope: str = ""
    login_hint: str = ""
    redirect_uri: str = ""  # "": a device waits instead
    state: str = field(default="", repr=False)
    nonce: str = field(default="", repr=False)
    code_challenge: str = field(default="", repr=False)


@dataclass(slots=True)
class _Device:
    request: AuthorizationRequest
    user_code: str = field(repr=False)
    ends_at: float
    interval_seconds: float
    asked_at: float = float("-inf")
    mailbox: str = ""  # "": no one has allowed it yet
    is_refused: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """A person on the way through the pages; `mailbox` is "" until they have signed in."""

    request: AuthorizationRequest
    mailbox: str = ""
    device: _Device | None = None


@dataclass(slots=True)
class _Code:
    request: AuthorizationRequest
    mailbox: str
    ends_at: float
    grant: str = ""  # that it was exchanged for; "": not yet


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a person has allowed a client."""

    request: AuthorizationRequest
    mailbox: str


class Waiting(Generic[_T]):
    """Values by a key that cannot be guessed, for a time."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._values: dict[str, tuple[float, _T]] = {}  # until when; the oldest first

    def __len__(self) -> int:
        return len(self._values)

    def add(self, value: _T) -> str:
        """Keep a value; return its key."""
        now = self._clock()
        for key, (ends_at, _) in list(self._values.items()):
            if ends_at > now and len(self._values) < MAX_WAITING:
                break
            del self._values[key]
        key = secrets.token_urlsafe(24)
        self._values[key] = now + self._seconds, value
        return key

    def get(self, key: str) -> _T | None:
        """Return a value; None if there is none, or no longer."""
        ends_at, value = self._values.get(key, (0.0, None))
        return value if ends_at > self._clock() else None

    def pop(self, key: str) -> _T | None:
        """Return a value and forget it; None if there is none, or no longer."""
        value = self.get(key)
        self._values.pop(key, None)
        return value

    def values(self) -> list[_T]:
        """Return all values that have not ended."""
        now = self._clock()
        return [value for ends_at, value in self._values.values() if ends_at > now]


class Attempts:
    """The sign-ins under way at one authorization server."""

    def __init__(
        self, settings: TokenEndpointSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._people: Waiting[Attempt] = Waiting(_PERSON_SECONDS, clock)
        self._codes: Waiting[_Code] = Waiting(_KEPT * settings.code_seconds, clock)
        self._devices: Waiting[_Device] = Waiting(_KEPT * settings.device_code_seconds, clock)

    # A person at the pages.

    def begin(self, attempt: Attempt) -> str:
        """Keep an attempt until the person answers; return the key for the page's form."""
        return self._people.add(attempt)

    def answered(self, key: str) -> Attempt | None:
        """Return the attempt that a form answers; each is answered once. None: there is none."""
        return self._people.pop(key)

    def code_for(self, attempt: Attempt) -> str:
        """Return the authorization code of a person who has signed in and allowed it."""
        ends_at = self._clock() + self._settings.code_seconds
        return self._codes.add(_Code(attempt.request, attempt.mailbox, ends_at))

    # The client.

    def mailbox_of_code(self, code: str) -> str:
        """Return the mailbox of an authorization code or a device code; "" if there is none."""
        found = self._codes.get(code) or self._devices.get(code)
        return found.mailbox if found is not None else ""

    def redeem(self, code: str, client_id: str, redirect_uri: str, verifier: str) -> Allowed:
        """Return what the code was issued for. RFC 6749 §4.1.3, RFC 7636 §4.6.

        Raises:
            CodeReused: it was used before.
            OAuthError: it is not good.
        """
        found = self._codes.get(code)
        if found is None or found.request.client.client_id != client_id:
            raise OAuthError("invalid_grant", "The code is not one that this client was given.")
        if found.grant:
            raise CodeReused(found.grant)
        if found.ends_at <= self._clock():
            raise OAuthError("invalid_grant", "The code has expired.")
        if found.request.redirect_uri != redirect_uri:
            raise OAuthError("invalid_grant", "redirect_uri is not that of the sign-in.")
        check_verifier(found.request.code_challenge, verifier)
        return Allowed(found.request, found.mailbox)

    def redeemed(self, code: str, grant: str) -> None:
        """Remember the grant that the code was exchanged for; it is not good again."""
        found = self._codes.get(code)
        if found is not None:
            found.grant = grant

    # A device.

    def begin_device(self, request: AuthorizationRequest) -> tuple[str, str]:
        """Return a device code and a user code. RFC 8628 §3.2."""
        letters = [secrets.choice(_LETTERS) for _ in range(8)]
        user_code = f"{''.join(letters[:4])}-{''.join(letters[4:])}"
        settings = self._settings
        ends_at = self._clock() + settings.device_code_seconds
        device = _Device(request, user_code, ends_at, settings.device_interval_seconds)
        return self._devices.add(device), user_code

    def device_with(self, user_code: str) -> Attempt | None:
        """Return the attempt of the device that shows this code; None if there is none."""
        typed = _plain(user_code)
        for device in self._devices.values():
            is_open = device.ends_at > self._clock() and not device.mailbox
            if is_open and not device.is_refused and _plain(device.user_code) == typed:
                return Attempt(device.request, device=device)
        return None

    def poll(self, device_code: str, client_id: str) -> Allowed:
        """Return what the person has allowed the device, once. RFC 8628 §3.4.

        Raises `OAuthError`: with a code of §3.5 until then.
        """
        device = self._devices.get(device_code)
        if device is None or device.request.client.client_id != client_id:
            raise OAuthError("invalid_grant", "The device code is not one of this client's.")
        now = self._clock()
        is_early = now < device.asked_at + device.interval_seconds
        device.asked_at = now
        if device.is_refused:
            raise OAuthError("access_denied", "The person has refused.")
        if device.ends_at <= now:
            raise OAuthError("expired_token", "The device code has expired.")
        if is_early:
            device.interval_seconds += _SLOWER_SECONDS
            raise OAuthError("slow_down", f"Ask every {device.interval_seconds:g} seconds.")
        if not device.mailbox:
            raise OAuthError("authorization_pending", "The person has not answered yet.")
        self._devices.pop(device_code)
        return Allowed(device.request, device.mailbox)


class CodeReused(OAuthError):
    """An authorization code came for the second time."""

    def __init__(self, grant: str) -> None:
        super().__init__("invalid_grant", "The code was used before; its grant is revoked.")
        self.grant = grant


def answer_device(attempt: Attempt, *, is_allowed: bool) -> None:
    """Let the device know what the person has answered."""
    assert attempt.device is not None  # noqa: S101 - the caller has checked
    attempt.device.mailbox = attempt.mailbox if is_allowed else ""
    attempt.device.is_refused = not is_allowed


def check_challenge(challenge: str, method: str, *, is_required: bool) -> None:
    """Raise `OAuthError` unless the challenge of a request is good. RFC 7636 §4.4.1."""
    if not challenge:
        if is_required:
            raise OAuthError("invalid_request", "code_challenge is required (PKCE).")
        return
    if method != "S256":
        raise OAuthError("invalid_request", "code_challenge_method must be S256.")
    if not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "code_challenge is not a SHA-256 digest in base64url.")


def check_verifier(challenge: str, verifier: str) -> None:
    """Raise `OAuthError` unless the verifier is the one of the challenge. RFC 7636 §4.6."""
    if not challenge:
        if verifier:  # RFC 9700 §2.1.1: someone has removed the challenge
            raise OAuthError("invalid_grant", "The sign-in had no code_challenge.")
        return
    digest = hashlib.sha256(verifier.encode()).digest()
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=")
    if not _VERIFIER.fullmatch(verifier) or not hmac.compare_digest(expected, challenge.encode()):
        raise OAuthError("invalid_grant", "code_verifier is not that of the code_challenge.")


def _plain(user_code: str) -> str:
    return "".join(letter for letter in user_code.upper() if letter.isalnum())
