"""A provider's particulars for signing in: metadata, scopes and parameters. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xoauth2_proxy.accounts.oauth_client import MICROSOFT_AUTHORITY, SHARED_TENANTS
from xoauth2_proxy.oauth.authlib_client import POST, authentication_method

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account

_OFFLINE = "offline_access"  # OpenID Connect Core §11
ANY_TENANT = "{tenantid}"  # placeholder in the issuer of Microsoft's multi-tenant metadata
# Parameters that name a token's audience: they go into every request (RFC 8707 §2).
_TARGETS = ("resource", "audience")


@dataclass(frozen=True, slots=True)
class ProviderProfile:
    """An account's provider and its metadata ({} until it is fetched)."""

    account: Account
    metadata: Mapping[str, Any]

    @property
    def is_google(self) -> bool:
        """Whether Google's rules apply."""
        return self.account.refresher == "gmail"

    @property
    def is_microsoft(self) -> bool:
        """Whether Microsoft's rules apply."""
        return self.account.refresher == "outlook"

    @property
    def issuer(self) -> str:
        """Where the metadata is found; "" for a provider that publishes none."""
        client = self.account.oauth
        if client.issuer or not self.is_microsoft:
            return client.issuer
        return f"{client.authority or MICROSOFT_AUTHORITY}/{client.tenant or 'common'}/v2.0"

    @property
    def name(self) -> str:
        """The provider's name in messages."""
        issuer = urlsplit(self.issuer or self.account.oauth.token_endpoint)
        return issuer.netloc or self.account.provider

    @property
    def is_multi_tenant(self) -> bool:
        """Whether unknown organisations can sign in, which name their people themselves.

        In Entra ID their administrators write `email` as they please
        (https://learn.microsoft.com/entra/identity-platform/migrate-off-email-claim-authorization).
        """
        if ANY_TENANT in str(self.metadata.get("issuer", "")):
            return True
        return self.is_microsoft and self.account.oauth.tenant.lower() in SHARED_TENANTS

    @property
    def has_openid(self) -> bool:
        """Whether ID tokens are issued and can be checked."""
        return bool(self.metadata.get("jwks_uri"))

    @property
    def can_use_device(self) -> bool:
        """Whether the device flow can grant access to mail.

        Google's cannot: it grants a closed list of scopes, and that of mail is not among them
        (https://developers.google.com/identity/protocols/oauth2/limited-input-device, 2026-11).
        """
        return not self.is_google and bool(self.metadata.get("device_authorization_endpoint"))

    @property
    def scope(self) -> str:
        """The scopes to request. A provider without OpenID Connect may refuse unknown scopes.

        Google has no `offline_access`: it asks for `access_type` instead.
        """
        scopes = list(self.account.oauth.scopes)
        if self.has_openid:
            scopes += ["openid", "email"]
            if self._has_offline_access and not self.is_google:
                scopes.append(_OFFLINE)
        return " ".join(dict.fromkeys(scopes))

    @property
    def authorization_parameters(self) -> dict[str, str]:
        """The parameters of the authorization request besides the scope."""
        client = self.account.oauth
        parameters = {"login_hint": client.sign_in_as or self.account.email} | self.targets
        if self.is_google:
            # Without both, Google gives a refresh token at the first consent only.
            parameters |= {"access_type": "offline", "prompt": "consent"}
        elif self._has_offline_access and not self.is_microsoft:
            parameters |= {"prompt": "consent"}  # without it, `offline_access` is to be ignored
        return parameters

    @property
    def targets(self) -> dict[str, str]:
        """The configured parameters that go into every request."""
        return {name: value for name, value in self.account.oauth.parameters if name in _TARGETS}

    @property
    def authentication_method(self) -> str:
        """How the client authenticates at the token endpoint. RFC 6749 §2.3."""
        client = self.account.oauth
        # Google's and Microsoft's own libraries send the secret in the body. So does the refresher
        # if the endpoint is configured, since then no metadata says otherwise.
        if client.client_secret and (self.is_google or self.is_microsoft or client.token_endpoint):
            return POST
        return authentication_method(client, self.metadata)

    def redirect_uri(self, port: int) -> str:
        """Return the redirect URI of a listener on this machine, as the provider allows it.

        RFC 8252 §7.3 wants the number; Microsoft leaves the port open for the name only
        (https://learn.microsoft.com/entra/identity-platform/reply-url, 2026-11), and compares the
        rest with what is registered: `http://localhost`, as its own library sends it.
        """
        return f"http://localhost:{port}" if self.is_microsoft else f"http://127.0.0.1:{port}/"

    @property
    def _has_offline_access(self) -> bool:
        supported = self.metadata.get("scopes_supported")
        listed = supported if isinstance(supported, list) else []
        return self.is_microsoft or _OFFLINE in (*self.account.oauth.scopes, *listed)
