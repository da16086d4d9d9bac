"""Access tokens of the sandbox provider: they look like a real provider's and are really signed.

Anyone who can read the signing key in the state directory can mint one; the sandbox accepts no
other. Nothing but the sandbox accepts them, so they are worth nothing outside this machine.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from xoauth2_proxy.files import written_beside

if TYPE_CHECKING:
    from pathlib import Path

MOCK_MAILBOXES = (
    "test.account1@gmail.com",
    "test.account2@gmail.com",
    "test.account1@outlook.com",
    "test.account2@outlook.com",
)

_KEY_BYTES = 32  # RFC 7518 §3.2: at least the digest's size
_ALGORITHM = "HS256"
_ISSUER = "xoauth2-proxy-sandbox"
_AUDIENCE = "smtp"
_GOOGLE_PREFIX = "ya29."
_MICROSOFT_PREFIX = "EwAoA8l6BAAURNvFLcaAUzrq"
_PREFIXES = dict.fromkeys(("gmail.com", "googlemail.com"), _GOOGLE_PREFIX) | dict.fromkeys(
    ("outlook.com", "hotmail.com", "live.com", "msn.com"), _MICROSOFT_PREFIX
)
_DECODING: Any = {
    "require": ["sub", "iat", "exp", "jti"],
    "verify_exp": False,  # checked here to the fraction of a second; PyJWT rounds down
    "verify_iat": False,
}


class MockTokenInvalid(ValueError):
    """The sandbox does not accept the token; `reason` says why, without quoting it."""

    def __init__(self, reason: Literal["malformed", "signature", "expired"]) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class MockClaims:
    """What a valid token says."""

    mailbox: str  # lower case
    issued_at: float  # seconds since the epoch
    expires_at: float  # seconds since the epoch
    token_id: str


class MockTokens:
    """Mints and verifies the sandbox's access tokens with one signing key."""

    __slots__ = ("_key", "_usual_prefix")

    def __init__(self, key: bytes, *, is_like_microsofts: bool = False) -> None:
        """`is_like_microsofts` says how tokens look of mailboxes whose domain is nobody's."""
        self._usual_prefix = _MICROSOFT_PREFIX if is_like_microsofts else _GOOGLE_PREFIX
        if len(key) < _KEY_BYTES:
            raise ValueError(f"the signing key needs at least {_KEY_BYTES} octets")
        self._key = key

    def mint(self, mailbox: str, *, ttl_seconds: float = 3600.0) -> str:
        """Return a new token for `mailbox`; no two are equal.

        A `ttl_seconds` of zero or less makes a token that has expired already.
        """
        import jwt  # not above: the configuration, which wants the names alone, needs none of it

        now = time.time()
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": mailbox.lower(),
            "iat": now,
            "exp": now + ttl_seconds,
            "jti": secrets.token_hex(8),
        }
        domain = mailbox.lower().rpartition("@")[2]
        prefix = _PREFIXES.get(domain, self._usual_prefix)
        return prefix + jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def verify(self, token: str) -> str:
        """Return the mailbox, in lower case, that the token opens.

        Raises:
            MockTokenInvalid: the token is malformed, not signed with this key, or expired.
        """
        return self.read(token).mailbox

    def read(self, token: str) -> MockClaims:
        """Return what a valid token says.

        Raises:
            MockTokenInvalid: the token is malformed, not signed with this key, or expired.
        """
        import jwt

        try:
            claims = jwt.decode(
                _without_prefix(token),
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options=_DECODING,
            )
            mailbox, token_id = str(claims["sub"]), str(claims["jti"])
            issued_at, expires_at = float(claims["iat"]), float(claims["exp"])
        except jwt.InvalidSignatureError:
            raise MockTokenInvalid("signature") from None
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise MockTokenInvalid("malformed") from None
        if expires_at <= time.time():
            raise MockTokenInvalid("expired")
        return MockClaims(mailbox.lower(), issued_at, expires_at, token_id)


def load_signing_key(state_dir: Path) -> bytes:
    """Return the signing key kept under `state_dir`, creating it at the first call.

    Processes that race to create it end with the same key.

    Raises:
        ValueError: the file is there and too short to be a key.
    """
    path = sandbox_directory(state_dir) / "signing-key"
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = _create_or_read(path, secrets.token_bytes(_KEY_BYTES))
    if len(key) < _KEY_BYTES:
        raise ValueError(f"{path} is too short to be a signing key; delete it to get a new one")
    return key


def sandbox_directory(state_dir: Path) -> Path:
    """Return the directory of the sandbox's own state, created for the owner only."""
    directory = state_dir / "sandbox"
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _create_or_read(path: Path, octets: bytes) -> bytes:
    with written_beside(path, octets, 0o600) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:  # another process was first: its key is the key
            return path.read_bytes()
    return octets


def _without_prefix(token: str) -> str:
    for prefix in (_GOOGLE_PREFIX, _MICROSOFT_PREFIX):
        if token.startswith(prefix):
            return token[len(prefix) :]
    raise MockTokenInvalid("malformed")
