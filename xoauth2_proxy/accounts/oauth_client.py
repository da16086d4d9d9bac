"""How the relay presents itself to a provider's authorization server. RFC 6749 §2.

Plain values from the configuration; who uses them is in `oauth`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path


class GrantType(StrEnum):
    """With what right access tokens are asked for."""

    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - RFC 6749 §6: a person signed in once
    CLIENT_CREDENTIALS = "client_credentials"  # RFC 6749 §4.4: the application itself
    SERVICE_ACCOUNT = "service_account"  # RFC 7523: Google's domain-wide delegation


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """An account's OAuth settings; "", () and None where not configured.

    URLs are https, or http to loopback.
    """

    grant_type: GrantType = GrantType.REFRESH_TOKEN
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    # As configured; the store may hold a newer one.
    refresh_token: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ()  # for signing in, and for grants that name them
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # more of the request
    issuer: str = ""  # OpenID Connect Discovery: where its metadata is found
    token_endpoint: str = ""  # instead of the discovered or built-in one
    authorization_endpoint: str = ""  # for providers without discovery
    authority: str = ""  # Microsoft Entra: the login host, as https://login.microsoftonline.com
    tenant: str = ""  # Microsoft Entra: an id, a domain, common, organizations or consumers
    ca_file: Path | None = None  # trusted instead of the system's authorities, for all of these
    certificate: Path | None = None  # Microsoft Entra: PEM, certificate and private key
    service_account: Path | None = None  # Google: the key file (JSON)
    command: tuple[str, ...] = ()  # program and arguments that print a token
    sign_in_as: str = ""  # who signs in, where that is not the mailbox's address
    secret_expires_on: date | None = None  # of client_secret or certificate
    refresh_token_days: int = 0  # life of a refresh token from its issue; 0: unlimited or unknown
    idle_days: int = 0  # life of a refresh token that is not used; 0: unlimited or unknown
    refresh_window_seconds: float = 600.0  # how long before its end an access token is renewed

    @property
    def token_host(self) -> str:
        """The host that is asked for tokens, as far as it is configured; "" for a built-in one."""
        url = self.token_endpoint or self.authority or self.issuer
        return urlsplit(url).netloc

    @property
    def can_sign_in(self) -> bool:
        """Whether a person can sign in through the relay."""
        return bool(self.client_id) and self.grant_type is GrantType.REFRESH_TOKEN

    @property
    def is_empty(self) -> bool:
        """Whether nothing here could get a token: the mailbox is for clients with their own."""
        return not (self.client_id or self.refresh_token or self.service_account or self.command)


def fingerprint(secret: str) -> str:
    """Return what tells secrets apart without telling them; "" for none."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""
