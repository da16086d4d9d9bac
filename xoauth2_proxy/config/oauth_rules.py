"""Which OAuth keys each refresher accepts, and which a client needs to get tokens.

Keys of the mock refresher and of plug-ins are not checked; `plug_in_options` checks theirs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.accounts.oauth_client import SHARED_TENANTS, GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config.account_sections import OAuthSection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.accounts.providers import Provider
    from xoauth2_proxy.config.account_sections import AccountSection
    from xoauth2_proxy.config.problems import Fault

_OAUTH_REFRESHERS = frozenset(
    name for name, info in BUILT_IN_REFRESHERS.items() if info.needs_client
)
_COMMAND = "command"
_CHECKED_REFRESHERS = _OAUTH_REFRESHERS | {_COMMAND}

_REFRESHERS_OF_KEY = dict.fromkeys(
    (*OAuthSection.model_fields, "refresh_token", "sign_in_as"), _OAUTH_REFRESHERS
) | {
    "authority": frozenset({"outlook"}),
    "certificate": frozenset({"outlook"}),
    "tenant": frozenset({"outlook"}),
    "service_account": frozenset({"gmail"}),
    "command": frozenset({_COMMAND}),
    "refresh_window_seconds": _CHECKED_REFRESHERS,
}
_REFRESHERS_OF_GRANT = {
    GrantType.REFRESH_TOKEN: _OAUTH_REFRESHERS,
    GrantType.CLIENT_CREDENTIALS: frozenset({"outlook", "oidc"}),
    GrantType.SERVICE_ACCOUNT: frozenset({"gmail"}),
}
_CLIENT_SECRET_KEYS = ("client_secret", "certificate")  # of the client's identity


def unsupported_keys(section: OAuthSection, provider: Provider) -> Iterator[Fault]:
    """Yield a fault for each key of `section` that the provider's refresher does not support."""
    refresher, name = provider.refresher, provider.name
    if refresher not in _CHECKED_REFRESHERS:
        return
    for key, fitting in _REFRESHERS_OF_KEY.items():
        value = getattr(section, key, None)
        if value is None:
            continue
        what = ""
        if isinstance(value, GrantType):
            what, fitting = f"{value} ", _REFRESHERS_OF_GRANT[value] & fitting
        if refresher not in fitting:
            yield (
                key,
                f"{what}is not for {name}, whose refresher is {refresher}; it is for "
                f"{' and '.join(sorted(fitting))}",
            )
    url = section.oauth_token_url
    if refresher == "outlook" and url and not urlsplit(url).path.strip("/"):
        yield "oauth_token_url", "must have a path, such as /common/oauth2/v2.0/token"
    elif refresher == "outlook" and url and not url.startswith("https:"):
        yield "oauth_token_url", f"must begin with https:// for {name}"


def keys_of_other_grants(client: OAuthClient, section: AccountSection) -> Iterator[Fault]:
    """Yield a fault for each key that belongs to another grant than the account's."""
    if client.grant_type is GrantType.REFRESH_TOKEN:
        if section.service_account is not None:
            yield "service_account", "contradicts the grant refresh_token"
        return
    for key in ("refresh_token", "sign_in_as"):
        if getattr(section, key) is not None:
            yield key, f"contradicts the grant {client.grant_type}, which needs no sign-in"


def missing_keys(client: OAuthClient, provider: Provider) -> Iterator[Fault]:
    """Yield a fault for each key the client lacks, unless it is not meant to get tokens."""
    if provider.refresher == _COMMAND and not client.command:
        yield "command", f"is required, here or in {provider.name}: its refresher is command"
    if provider.refresher not in _OAUTH_REFRESHERS:
        return
    if client.grant_type is GrantType.CLIENT_CREDENTIALS:
        yield from _missing_of_application(client, provider)
    elif client.grant_type is GrantType.SERVICE_ACCOUNT:
        if client.service_account is None:
            yield "service_account", "is required for the grant service_account"
    elif not client.client_id:
        written = [key for key in ("refresh_token", *_CLIENT_SECRET_KEYS) if getattr(client, key)]
        if written:
            yield "client_id", f"is required with {written[0]}"
    if provider.refresher == "oidc" and not client.is_empty and not client.issuer:
        yield from _missing_endpoints(client, provider)


def client_warnings(client: OAuthClient, provider: Provider) -> Iterator[str]:
    """Yield what the operator should know of an account with this client, although it is right."""
    info = provider.refresher_info
    if info.fault:
        yield f"get no tokens: the refresher {info.name} of {info.origin} is disabled: {info.fault}"
    if client.is_empty:
        if provider.refresher in _OAUTH_REFRESHERS:
            yield (
                "have no OAuth client: clients must bring their own token (XOAUTH2 or OAUTHBEARER)"
            )
        return
    ended = client.secret_expires_on
    if ended is not None and ended < datetime.now(UTC).date():
        what = "certificate" if client.certificate else "client secret"
        yield f"have a {what} that expired on {ended}: create a new one at the provider"
    # developers.google.com/identity/protocols/oauth2/native-app: only mobile apps have none.
    is_google = provider.refresher == "gmail" and not client.token_endpoint
    if is_google and client.grant_type is GrantType.REFRESH_TOKEN and not client.client_secret:
        yield (
            "have no client_secret: Google gives tokens to a web or desktop client only with its "
            "secret"
        )


def _missing_of_application(client: OAuthClient, provider: Provider) -> Iterator[Fault]:
    if not client.client_id:
        yield "client_id", "is required for the grant client_credentials"
    if not client.client_secret and client.certificate is None:
        ways = ", unless there is a certificate" if provider.refresher == "outlook" else ""
        yield "client_secret", f"is required for the grant client_credentials{ways}"
    # learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: shared tenants
    # name no organisation.
    is_named = bool(client.token_endpoint) or client.tenant.lower() not in SHARED_TENANTS
    if provider.refresher == "outlook" and not is_named:
        fault = "must be the organisation's id or domain for client_credentials, not "
        yield "tenant", f"{fault}{client.tenant}"


def _missing_endpoints(client: OAuthClient, provider: Provider) -> Iterator[Fault]:
    if not client.token_endpoint:
        yield "issuer", f"is required for {provider.name}, or oauth_token_url"
    elif client.can_sign_in and not client.refresh_token and not client.authorization_endpoint:
        yield "authorization_url", "is required for signing in, or issuer, or a refresh_token"
