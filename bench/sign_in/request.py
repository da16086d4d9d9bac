"""The request for users who sign in. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STAGGER_SECONDS = 0.05
AT_ONCE, PAGES_AT_ONCE = 10, 4  # by plain HTTP, and in a browser
_SCOPES = ("openid", "email", "offline_access")  # OpenID Connect Core §5.4 and §11
_SANDBOX_SCOPES = ("smtp", "offline_access")


class SignInMethod(StrEnum):
    """How a run's users get their grants."""

    BROWSER = "browser"
    CODE = "code"
    MINT = "mint"


class BrowserName(StrEnum):
    """A browser that Playwright can drive."""

    CHROMIUM = "chromium"
    FIREFOX = "firefox"
    WEBKIT = "webkit"


class UpstreamTls(StrEnum):
    """How the proxy connects to the mail server, in the words of its configuration."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An authorization server other than the sandbox, and the mail server that takes its tokens."""

    issuer: str
    upstream_host: str
    upstream_port: int
    upstream_tls: UpstreamTls = UpstreamTls.STARTTLS


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInRequest:
    """How the users of a run sign in, and where."""

    method: SignInMethod
    provider: Provider | None = None  # None: the sandbox of the target
    client_id: str = ""  # "": a client is registered
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()  # (): those that a refresh token needs
    user_password: str = field(default="", repr=False)  # "": each user has one of their own
    stagger_seconds: float = STAGGER_SECONDS  # between two beginnings
    at_once: int = AT_ONCE
    callback_port: int = 0  # 0: any free one
    browser: BrowserName = BrowserName.CHROMIUM
    is_headed: bool = False
    allow_remote: bool = False
    state_dir: Path  # where the registered client is kept

    @property
    def asked_scopes(self) -> tuple[str, ...]:
        """The scopes that users are asked to allow."""
        return self.scopes or (_SANDBOX_SCOPES if self.provider is None else _SCOPES)
