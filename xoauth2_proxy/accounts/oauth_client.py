"""Defines an account's OAuth settings: client, grant type and endpoints. RFC 6749 §2.

Plain values from the configuration, which `oauth` uses.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path


MICROSOFT_AUTHORITY = "https://login.microsoftonline.com"  # unless another is configured
# Tenants that admit people of any organisation; "" is the same as common.
# learn.microsoft.com/entra/identity-platform/v2-protocols
SHARED_TENANTS = frozenset({"", "common", "consumers", "organizations"})


class GrantType(StrEnum):
    """The OAuth grant with which access tokens are requested."""

    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - RFC 6749 §6: a user signed in once
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
    scopes: tuple[str, ...] = ()  # for signing in, and for grants that need them
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # additional ones
    issuer: str = ""  # OpenID Connect Discovery: the issuer with the metadata
    token_endpoint: str = ""  # instead of the discovered or built-in one
    authorization_endpoint: str = ""  # for providers without discovery
    authority: str = ""  # Microsoft Entra: the login host, as https://login.microsoftonline.com
    tenant: str = ""  # Microsoft Entra: an id, a domain, common, organizations or consumers
    ca_file: Path | None = None  # replaces the system's authorities for all endpoints
    certificate: Path | None = None  # Microsoft Entra: PEM, certificate and private key
    service_account: Path | None = None  # Google: the key file (JSON)
    command: tuple[str, ...] = ()  # program and arguments that print a token
    # The keys of the refresher's own, as the model that a plug-in declares (`RefresherInfo`).
    options: Any = field(default=None, repr=False, hash=False)
    sign_in_as: str = ""  # the user who signs in, if not the mailbox itself
    secret_expires_on: date | None = None  # of client_secret or certificate
    refresh_token_days: int = 0  # lifetime from issue; 0: unlimited or unknown
    idle_days: int = 0  # lifetime of an unused one; 0: unlimited or unknown
    refresh_window_seconds: float = 600.0  # how long before its expiry an access token is renewed

    @property
    def token_host(self) -> str:
        """The configured host for token requests; "" for a built-in one."""
        url = self.token_endpoint or self.authority or self.issuer
        return urlsplit(url).netloc

    @property
    def can_sign_in(self) -> bool:
        """Whether a person can sign in as this client."""
        return bool(self.client_id) and self.grant_type is GrantType.REFRESH_TOKEN

    @property
    def is_empty(self) -> bool:
        """Whether neither a client nor its credentials are configured."""
        return not (self.client_id or self.refresh_token or self.service_account)


def fingerprint(secret: str) -> str:
    """Return a fingerprint that distinguishes secrets without revealing them; "" for none."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16] if secret else ""
