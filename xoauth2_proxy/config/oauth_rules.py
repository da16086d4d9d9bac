"""Which OAuth keys go with which refresher, and what a client must have to get tokens.

Nothing is demanded of the mock refresher or of a plug-in: what they need is their own matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.config.problems import Problems, join

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.config.model import AccountSection
    from xoauth2_proxy.config.providers import Provider

# Refreshers that speak OAuth themselves, for clients that the operator has registered.
SPEAKING = frozenset({"gmail", "outlook", "oidc"})
_COMMAND = "command"
_JUDGED = SPEAKING | {_COMMAND}

_FITTING = dict.fromkeys((*OAuthSection.model_fields, "refresh_token", "sign_in_as"), SPEAKING) | {
    "authority": frozenset({"outlook"}),
    "certificate": frozenset({"outlook"}),
    "tenant": frozenset({"outlook"}),
    "service_account": frozenset({"gmail"}),
    "command": frozenset({_COMMAND}),
    "refresh_window_seconds": _JUDGED,
}
_GRANTS = {
    GrantType.REFRESH_TOKEN: SPEAKING,
    GrantType.CLIENT_CREDENTIALS: frozenset({"outlook", "oidc"}),
    GrantType.SERVICE_ACCOUNT: frozenset({"gmail"}),
}
# learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: these name no one.
_TENANTS_OF_MANY = frozenset({"common", "consumers", "organizations"})


def check_fit(
    section: OAuthSection, provider: str, refresher: str, path: str, problems: Problems
) -> None:
    """Note the keys of `section` that the refresher could not use."""
    if refresher not in _JUDGED:
        return
    for key, fitting in _FITTING.items():
        value = getattr(section, key, None)
        if value is None:
            continue
        what = ""
        if isinstance(value, GrantType):
            what, fitting = f"{value} ", _GRANTS[value] & fitting
        if refresher not in fitting:
            problems.add(
                join(path, key),
                f"{what}is not for {provider}, whose refresher is {refresher}; it is for "
                f"{' and '.join(sorted(fitting))}",
            )
    url = section.oauth_token_url
    if refresher == "outlook" and url and not urlsplit(url).path.strip("/"):
        problems.add(
            join(path, "oauth_token_url"), "must have a path, as /common/oauth2/v2.0/token"
        )
    elif refresher == "outlook" and url and not url.startswith("https:"):
        problems.add(join(path, "oauth_token_url"), f"must begin with https:// for {provider}")


def check_grant_keys(
    client: OAuthClient, section: AccountSection, path: str, problems: Problems
) -> None:
    """Note what the account says of another grant than its own."""
    if client.grant_type is GrantType.REFRESH_TOKEN:
        if section.service_account is not None:
            problems.add(join(path, "service_account"), "contradicts the grant refresh_token")
        return
    for key in ("refresh_token", "sign_in_as"):
        if getattr(section, key) is not None:
            problems.add(
                join(path, key),
                f"contradicts the grant {client.grant_type}, for which nobody signs in",
            )


def check_client(client: OAuthClient, provider: Provider, path: str, problems: Problems) -> None:
    """Note what the client lacks to get tokens, unless it is not meant to get any."""
    if provider.refresher == _COMMAND:
        missing = _missing_of_command(client, provider)
    elif provider.refresher not in SPEAKING:
        return
    elif client.grant_type is GrantType.SERVICE_ACCOUNT:
        missing = _missing_of_service_account(client)
    elif client.grant_type is GrantType.CLIENT_CREDENTIALS:
        missing = _missing_of_application(client, provider)
    else:
        missing = _missing_of_sign_in(client)
    for key, problem in (*missing, *_missing_endpoints(client, provider)):
        problems.add(join(path, key), problem)


_Missing = tuple[str, str]  # key, problem


def _missing_of_command(client: OAuthClient, provider: Provider) -> Iterator[_Missing]:
    if not client.command:
        yield "command", f"is required, here or in {provider.name}: its refresher is command"


def _missing_of_service_account(client: OAuthClient) -> Iterator[_Missing]:
    if client.service_account is None:
        yield "service_account", "is required for the grant service_account"


def _missing_of_application(client: OAuthClient, provider: Provider) -> Iterator[_Missing]:
    if not client.client_id:
        yield "client_id", "is required for the grant client_credentials"
    if not client.client_secret and client.certificate is None:
        ways = " or certificate" if provider.refresher == "outlook" else ""
        yield "client_secret", f"is required{ways} for the grant client_credentials"
    if provider.refresher == "outlook" and client.tenant in _TENANTS_OF_MANY:
        yield (
            "tenant",
            f"must be the organisation's id or domain for client_credentials, not {client.tenant}",
        )


def _missing_of_sign_in(client: OAuthClient) -> Iterator[_Missing]:
    if client.client_id:
        return
    for key in ("refresh_token", "client_secret", "certificate"):
        if getattr(client, key):
            yield "client_id", f"is required beside {key}"
            return


def _missing_endpoints(client: OAuthClient, provider: Provider) -> Iterator[_Missing]:
    if provider.refresher != "oidc" or client.is_empty or client.issuer:
        return
    if not client.token_endpoint:
        yield "issuer", f"is required for {provider.name}, or oauth_token_url"
    elif client.can_sign_in and not client.refresh_token and not client.authorization_endpoint:
        yield "authorization_url", "is required for signing in, or issuer, or a refresh_token"
