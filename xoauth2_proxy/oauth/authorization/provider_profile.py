"""What is particular to one provider when somebody signs in, and what is asked of each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account

_OFFLINE = "offline_access"  # OpenID Connect Core §11
_MICROSOFT_AUTHORITY = "https://login.microsoftonline.com"
# learn.microsoft.com/entra/identity-platform/v2-protocols: these admit people of any organisation.
_TENANTS_OF_MANY = frozenset({"", "common", "consumers", "organizations"})
_ANY_TENANT = "{tenantid}"  # in the issuer that metadata of many tenants name
# Parameters that say for whom a token shall be: they belong into every request (RFC 8707 §2).
_TARGETS = ("resource", "audience")


@dataclass(frozen=True, slots=True)
class Profile:
    """An account's provider, with what its metadata say once they are known."""

    account: Account
    metadata: Mapping[str, Any]

    @property
    def is_google(self) -> bool:
        """Whether Google's own rules hold."""
        return self.account.refresher == "gmail"

    @property
    def is_microsoft(self) -> bool:
        """Whether Microsoft's own rules hold."""
        return self.account.refresher == "outlook"

    @property
    def issuer(self) -> str:
        """Where the metadata are found; "" for a provider that publishes none."""
        client = self.account.oauth
        if client.issuer or not self.is_microsoft:
            return client.issuer
        return f"{client.authority or _MICROSOFT_AUTHORITY}/{client.tenant or 'common'}/v2.0"

    @property
    def name(self) -> str:
        """What the provider is called in a text for people."""
        issuer = urlsplit(self.issuer or self.account.oauth.token_endpoint)
        return issuer.netloc or self.account.provider

    @property
    def is_of_many(self) -> bool:
        """Whether organisations that nobody here knows name their people themselves.

        In Entra ID their administrators write `email` as they please
        (https://learn.microsoft.com/entra/identity-platform/migrate-off-email-claim-authorization).
        """
        if _ANY_TENANT in str(self.metadata.get("issuer", "")):
            return True
        return self.is_microsoft and self.account.oauth.tenant.lower() in _TENANTS_OF_MANY

    @property
    def has_openid(self) -> bool:
        """Whether ID tokens can be had and checked."""
        return bool(self.metadata.get("jwks_uri"))

    @property
    def can_use_device(self) -> bool:
        """Whether the device flow can give a right to mail.

        Google's cannot: it grants a closed list of scopes, and that of mail is not among them
        (https://developers.google.com/identity/protocols/oauth2/limited-input-device, 2026-11).
        """
        return not self.is_google and bool(self.metadata.get("device_authorization_endpoint"))

    @property
    def scope(self) -> str:
        """The scopes to ask for. A provider without OpenID Connect may refuse what is not its own.

        Google has no `offline_access`: it asks for `access_type` instead.
        """
        scopes = list(self.account.oauth.scopes)
        if self.has_openid:
            scopes += ["openid", "email"]
            if self._has_offline_access and not self.is_google:
                scopes.append(_OFFLINE)
        return " ".join(dict.fromkeys(scopes))

    @property
    def wishes(self) -> dict[str, str]:
        """What the authorization request says beside the scope."""
        client = self.account.oauth
        wishes = {"login_hint": client.sign_in_as or self.account.email} | self.targets
        if self.is_google:
            # Without both, Google gives a refresh token at the first consent only.
            wishes |= {"access_type": "offline", "prompt": "consent"}
        elif self._has_offline_access and not self.is_microsoft:
            wishes |= {"prompt": "consent"}  # without it, `offline_access` is to be ignored
        return wishes

    @property
    def targets(self) -> dict[str, str]:
        """The parameters of the configuration that every request carries."""
        return {name: value for name, value in self.account.oauth.parameters if name in _TARGETS}

    @property
    def authentication_method(self) -> str:
        """How the client shows the token endpoint who it is. RFC 6749 §2.3."""
        if not self.account.oauth.client_secret:
            return "none"
        # Google's and Microsoft's own libraries send the secret in the body. So does the refresher
        # where the endpoint is configured, for then no metadata say otherwise.
        if self.is_google or self.is_microsoft or self.account.oauth.token_endpoint:
            return "client_secret_post"
        offered = self.metadata.get("token_endpoint_auth_methods_supported")
        if not isinstance(offered, list) or "client_secret_basic" in offered:
            return "client_secret_basic"  # OpenID Connect Discovery 1.0 §3: where nothing is said
        return "client_secret_post"

    def redirect_uri(self, port: int) -> str:
        """Return the address of a listener on this machine, in the form the provider allows.

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
