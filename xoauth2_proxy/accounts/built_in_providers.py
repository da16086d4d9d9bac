"""The providers this version knows by name: their servers, limits and OAuth endpoints.

A provider is here only if its endpoints and its SMTP scope are known. Zoho is not: its pages name
scopes for IMAP and POP only. Yahoo, AOL and Fastmail give client ids for mail by approval.
"""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import Limits, TlsMode, Upstream
from xoauth2_proxy.accounts.oauth_client import MICROSOFT_AUTHORITY, OAuthClient
from xoauth2_proxy.accounts.providers import SANDBOX, SANDBOX_CLIENT_ID, Provider
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.accounts.sandbox_addresses import SandboxAddresses, last_known

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# How long a message waits for a connection: half of Outlook's default timeout of one minute, which
# leaves time for a 4yz reply.
_WAIT_SECONDS = 30.0

# For a provider whose limits are unknown: modest enough for any server.
CAUTIOUS_LIMITS = Limits(
    max_connections=5,  # Postfix's initial_destination_concurrency
    max_messages_per_connection=100,  # as for Gmail
    max_connection_age_seconds=600.0,
    idle_seconds=60.0,  # a fifth of what RFC 5321 §4.5.3.2.7 makes a server wait
    wait_seconds=_WAIT_SECONDS,
)

_GMAIL = Provider(
    name="gmail",
    refresher="gmail",
    upstream=Upstream("smtp.gmail.com", 587, TlsMode.STARTTLS),
    limits=Limits(
        max_connections=10,  # no published limit; ten are known to work
        max_messages_per_connection=100,  # no published limit
        max_connection_age_seconds=600.0,  # sessions of ten minutes are known to work
        idle_seconds=240.0,  # within the 5 minutes of RFC 5321 §4.5.3.2.7
        wait_seconds=_WAIT_SECONDS,
        max_message_bytes=35_882_577,  # the SIZE that smtp.gmail.com announces
    ),
    built_in_client=OAuthClient(
        scopes=("https://mail.google.com/",),  # the only one that opens SMTP
        issuer="https://accounts.google.com",  # for signing in
        idle_days=180,  # "six months": developers.google.com/identity/protocols/oauth2
    ),
)

_OUTLOOK = Provider(
    name="outlook",
    refresher="outlook",
    upstream=Upstream("smtp.office365.com", 587, TlsMode.STARTTLS),
    limits=Limits(
        max_connections=2,  # one below the cap, for a person's own mail client
        max_messages_per_connection=100,  # no published limit
        max_connection_age_seconds=900.0,  # closed by the server after some 20 minutes
        idle_seconds=60.0,  # an idle session holds one of three
        wait_seconds=_WAIT_SECONDS,
        messages_per_minute=30.0,  # Exchange Online; what is more is delayed or refused
    ),
    connections_allowed=3,  # Exchange Online: a fourth is answered 432 4.3.2
    built_in_client=OAuthClient(
        scopes=("https://outlook.office.com/SMTP.Send", "offline_access"),
        authority=MICROSOFT_AUTHORITY,
        tenant="common",
        idle_days=90,  # learn.microsoft.com/entra/identity-platform/refresh-tokens
    ),
    application_scopes=("https://outlook.office365.com/.default",),
)

# What people call the providers that are built in under another name.
_OTHER_NAMES = {
    **dict.fromkeys(("office365", "office", "o365", "m365", "microsoft", "exchange"), "outlook"),
    **dict.fromkeys(("microsoft365", "exchange-online", "entra", "azure"), "outlook"),
    **dict.fromkeys(("hotmail", "live", "msn", "outlook.com"), "outlook-personal"),
    **dict.fromkeys(("google", "googlemail", "gsuite", "workspace"), "gmail"),
    **dict.fromkeys(("google-workspace", "gmail.com"), "gmail"),
}


def built_in_providers(state_dir: Path) -> dict[str, Provider]:
    """Return the built-in providers by name.

    Those of the sandbox trust its authority, and look for it where it was started last.
    """
    addresses = last_known(state_dir) or SandboxAddresses()
    mock = Provider(
        name="mock",
        refresher=MOCK,
        upstream=Upstream(
            addresses.host,
            addresses.smtp_port,
            TlsMode.STARTTLS,
            state_dir.absolute() / "sandbox" / "ca.pem",
        ),
        limits=Limits(  # the sandbox: so wide that no benchmark measures them
            max_connections=50,
            max_messages_per_connection=1000,
            max_connection_age_seconds=3600.0,
            idle_seconds=240.0,
            wait_seconds=_WAIT_SECONDS,
        ),
    )
    sandbox = replace(
        mock,
        name=SANDBOX,
        refresher="oidc",
        built_in_client=OAuthClient(
            client_id=SANDBOX_CLIENT_ID,
            issuer=addresses.http_url,
            scopes=("smtp", "offline_access"),
        ),
    )
    known = (_GMAIL, *_microsoft(), *_others(), blank_provider("oidc", "oidc"), mock, sandbox)
    return {provider.name: provider for provider in known}


def blank_provider(name: str, refresher: str) -> Provider:
    """Return a provider without a server; its OAuth settings are what its refresher usually needs.

    Port and TLS are those of submission (RFC 6409 §3.1).
    """
    like = {one.refresher: one for one in (_GMAIL, _OUTLOOK)}.get(refresher)
    oauth = like.built_in_client if like else OAuthClient()
    if refresher == "oidc":
        # OpenID Connect Core 1.0 §5.4 and §11: who signed in, and a refresh token.
        oauth = OAuthClient(scopes=("openid", "email", "offline_access"))
    return Provider(
        name=name,
        refresher=refresher,
        upstream=Upstream("", 587, TlsMode.STARTTLS),
        limits=CAUTIOUS_LIMITS,
        built_in_client=oauth,
        application_scopes=like.application_scopes if like else (),
    )


def unknown_provider(name: str, known: Iterable[str]) -> str:
    """Return the words for a provider that is not one of `known`."""
    names = sorted(known)
    likely = _OTHER_NAMES.get(name.lower().replace(" ", ""))
    near = [likely] if likely else difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no {name}; there are {', '.join(names)}{hint}"


def _microsoft() -> tuple[Provider, ...]:
    personal = replace(
        _OUTLOOK,
        name="outlook-personal",
        upstream=Upstream("smtp-mail.outlook.com", 587, TlsMode.STARTTLS),
        connections_allowed=None,
        built_in_client=replace(_OUTLOOK.built_in_client, tenant="consumers"),
    )
    return (
        _OUTLOOK,
        personal,
        # GCC (without High) is served by the worldwide cloud.
        _national_cloud(
            "outlook-gcc-high",
            "smtp.office365.us",
            "https://login.microsoftonline.us",
            "https://outlook.office365.us",
        ),
        _national_cloud(
            "outlook-china",
            "smtp.partner.outlook.cn",
            "https://login.partner.microsoftonline.cn",
            "https://partner.outlook.cn",
        ),
    )


def _national_cloud(name: str, host: str, authority: str, resource: str) -> Provider:
    scopes = (f"{resource}/SMTP.Send", "offline_access")
    return replace(
        _OUTLOOK,
        name=name,
        upstream=Upstream(host, 587, TlsMode.STARTTLS),
        built_in_client=replace(
            _OUTLOOK.built_in_client, scopes=scopes, authority=authority, tenant="organizations"
        ),
        application_scopes=(f"{resource}/.default",),
    )


def _others() -> tuple[Provider, ...]:
    return (
        _with_endpoints(
            "yahoo",
            "smtp.mail.yahoo.com",
            "https://api.login.yahoo.com/oauth2/request_auth",
            "https://api.login.yahoo.com/oauth2/get_token",
            "mail-w",
        ),
        _with_endpoints(
            "aol",
            "smtp.aol.com",
            "https://api.login.aol.com/oauth2/request_auth",
            "https://api.login.aol.com/oauth2/get_token",
            "mail-w",
        ),
        _with_endpoints(
            "fastmail",
            "smtp.fastmail.com",
            "https://api.fastmail.com/oauth/authorize",
            "https://api.fastmail.com/oauth/refresh",
            "https://www.fastmail.com/dev/protocol-smtp",
        ),
        _with_endpoints(
            "yandex",
            "smtp.yandex.com",
            "https://oauth.yandex.com/authorize",
            "https://oauth.yandex.com/token",
            "mail:smtp",
        ),
        _with_endpoints(
            "mailru",
            "smtp.mail.ru",
            "https://o2.mail.ru/login",
            "https://o2.mail.ru/token",
            "mail.imap",  # one scope for all of its mail protocols
        ),
        _with_endpoints(
            "comcast",
            "smtp.comcast.net",
            "https://oauth.xfinity.com/oauth/authorize",
            "https://oauth.xfinity.com/oauth/token",
            "https://email.comcast.net/ profile openid",
        ),
    )


def _with_endpoints(
    name: str, host: str, authorization_endpoint: str, token_endpoint: str, scopes: str
) -> Provider:
    """Return a provider whose endpoints are written here: it has no discovery to rely on."""
    return Provider(
        name=name,
        refresher="oidc",
        upstream=Upstream(host, 465, TlsMode.IMPLICIT),  # RFC 8314 §3.3
        limits=CAUTIOUS_LIMITS,
        built_in_client=OAuthClient(
            scopes=tuple(scopes.split()),
            authorization_endpoint=authorization_endpoint,
            token_endpoint=token_endpoint,
        ),
    )
