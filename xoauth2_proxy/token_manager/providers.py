"""The providers that a program can add: what each asks for, and what is wrong with it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from xoauth2_proxy.accounts.accounts import Account, TlsMode, Upstream
from xoauth2_proxy.accounts.built_in_providers import CAUTIOUS_LIMITS, built_in_providers
from xoauth2_proxy.accounts.oauth_client import SHARED_TENANTS, GrantType, OAuthClient
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.network import fault_of_url
from xoauth2_proxy.oauth.refreshers import Refresher

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    Fault = tuple[str, str]  # a parameter, and what is wrong with it

Scopes: TypeAlias = "str | Sequence[str]"  # separated by blanks, or one by one

_NO_SERVER = Upstream("", 587, TlsMode.STARTTLS)  # a program's own providers send no mail


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What every provider may be given."""

    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)  # of token requests
    ca_file: Path | str | None = None  # PEM; instead of the system's certificate authorities
    refresh_window_seconds: float = 600.0  # how long before its end a token is renewed

    def common_fields(self) -> dict[str, Any]:
        """Return the fields of an `OAuthClient` that these are."""
        return {
            "parameters": tuple(self.parameters.items()),
            "ca_file": _path(self.ca_file),
            "refresh_window_seconds": self.refresh_window_seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCredentials(_Common):
    """Any OAuth 2.0 server, asked for tokens of the application itself. RFC 6749 §4.4.

    Either `token_url` or `issuer`, whose metadata names the token endpoint. `parameters` are sent
    with each request, for example an audience.
    """

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str = ""
    issuer: str = ""
    scopes: Scopes = ()

    refresher = "oidc"

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong."""
        yield from _missing(client_id=self.client_id, client_secret=self.client_secret)
        yield from _faults_of_server(self.token_url, self.issuer)

    def client(self) -> OAuthClient:
        """Return the client that asks for tokens."""
        return OAuthClient(
            grant_type=GrantType.CLIENT_CREDENTIALS,
            client_id=self.client_id,
            client_secret=self.client_secret,
            token_endpoint=self.token_url,
            issuer=self.issuer,
            scopes=_listed(self.scopes),
            **self.common_fields(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn(_Common):
    """Any OAuth 2.0 server at which a person signed in, which gave a refresh token. RFC 6749 §6.

    A server may replace the refresh token with each use. Give the manager a directory, so that the
    newest one outlives the process.
    """

    client_id: str
    refresh_token: str = field(repr=False)
    client_secret: str = field(default="", repr=False)
    token_url: str = ""
    issuer: str = ""

    refresher = "oidc"

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong."""
        yield from _missing(client_id=self.client_id, refresh_token=self.refresh_token)
        yield from _faults_of_server(self.token_url, self.issuer)

    def client(self) -> OAuthClient:
        """Return the client that asks for tokens."""
        return OAuthClient(
            client_id=self.client_id,
            client_secret=self.client_secret,
            refresh_token=self.refresh_token,
            token_endpoint=self.token_url,
            issuer=self.issuer,
            **self.common_fields(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Microsoft(_Common):
    """Microsoft Entra: with a refresh token for a person, without one for the application itself.

    An application needs its organization as `tenant`, and a secret or a certificate. Its scope is
    that of Exchange Online's mail unless others are given.
    """

    client_id: str
    tenant: str = ""  # an id or a domain; "": for persons of any organization
    client_secret: str = field(default="", repr=False)
    certificate: Path | str | None = None  # PEM: certificate and private key
    refresh_token: str = field(default="", repr=False)
    scopes: Scopes = ()
    authority: str = ""  # the login host of another cloud, as https://login.microsoftonline.us

    refresher = "outlook"

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong."""
        yield from _missing(client_id=self.client_id)
        if self.authority and (fault := fault_of_url(self.authority)):
            yield "authority", fault
        if self.client_secret and self.certificate:
            yield "certificate", "contradicts client_secret; leave one of the two out"
        if self.refresh_token:
            return
        if not self.client_secret and not self.certificate:
            yield "client_secret", "is required, or certificate, or the refresh_token of a person"
        if self.tenant.lower() in SHARED_TENANTS:
            yield (
                "tenant",
                "must be the organization's id or domain, unless there is a refresh_token",
            )

    def client(self) -> OAuthClient:
        """Return the client that asks for tokens."""
        written: dict[str, Any] = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "certificate": _path(self.certificate),
            "refresh_token": self.refresh_token,
            **self.common_fields(),
        }
        optional = {"tenant": self.tenant, "authority": self.authority}
        written |= {key: value for key, value in optional.items() if value}
        if not self.refresh_token:
            written["grant_type"] = GrantType.CLIENT_CREDENTIALS
        if self.scopes:
            written["scopes"] = _listed(self.scopes)
        return built_in_providers(Path())["outlook"].client_of(written)


@dataclass(frozen=True, slots=True, kw_only=True)
class Google(_Common):
    """Google: the refresh token of a person, or a service account's key file.

    A service account acts as the mailbox that the provider is named after (domain-wide delegation).
    """

    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    service_account: Path | str | None = None  # the key file (JSON)
    scopes: Scopes = ()  # of a service account's token; "https://mail.google.com/" by default
    token_url: str = ""

    refresher = "gmail"

    def faults(self) -> Iterator[Fault]:
        """Yield what is wrong."""
        of_person = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_token,
        }
        if not self.service_account:
            yield from _missing(**of_person)
        for key, value in of_person.items():
            if self.service_account and value:
                yield key, "contradicts service_account; leave one of the two out"
        if self.token_url and (fault := fault_of_url(self.token_url)):
            yield "token_url", fault

    def client(self) -> OAuthClient:
        """Return the client that asks for tokens."""
        written: dict[str, Any] = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "refresh_token": self.refresh_token,
            "service_account": _path(self.service_account),
            "token_endpoint": self.token_url,
            **self.common_fields(),
        }
        if self.scopes:
            written["scopes"] = _listed(self.scopes)
        return built_in_providers(Path())["gmail"].client_of(written)


Provider: TypeAlias = ClientCredentials | SignedIn | Microsoft | Google | Refresher


def account_of(name: str, provider: Provider) -> tuple[Account, dict[str, Refresher]]:
    """Return the account that stands for the provider, and its refresher if that is not built in.

    Raises:
        ConfigError: with every problem; the paths are the provider's parameters.
    """
    faults: list[Fault] = []
    if not name.strip():
        faults.append(("name", "must not be empty"))
    if not isinstance(provider, ClientCredentials | SignedIn | Microsoft | Google):
        # A plain method would hold the event loop, and its result could not be awaited.
        if not inspect.iscoroutinefunction(getattr(provider, "refresh", None)):
            what = "must be ClientCredentials, SignedIn, Microsoft, Google or an object with "
            faults.append(("provider", f"{what}`async def refresh(self, grant)`"))
        _raise_if_any(faults)
        kind = type(provider).__name__
        refresher = f"{kind} of {name.strip().lower()}"  # no name that is built in or installed
        # A client id, so that its tokens are stored like others.
        client = OAuthClient(grant_type=GrantType.CLIENT_CREDENTIALS, client_id=kind)
        return _account(name, kind, refresher, client), {refresher: provider}
    _raise_if_any([*faults, *provider.faults()])
    return _account(name, provider.refresher, provider.refresher, provider.client()), {}


def _account(name: str, kind: str, refresher: str, client: OAuthClient) -> Account:
    return Account(
        email=name.strip(),
        provider=kind,
        refresher=refresher,
        upstream=_NO_SERVER,
        limits=CAUTIOUS_LIMITS,
        password=None,
        oauth=client,
    )


def _raise_if_any(faults: list[Fault]) -> None:
    if faults:
        raise ConfigError(faults)


def _missing(**written: str) -> Iterator[Fault]:
    return ((key, "is required") for key, value in written.items() if not value)


def _faults_of_server(token_url: str, issuer: str) -> Iterator[Fault]:
    if not token_url and not issuer:
        yield "token_url", "is required, or issuer"
    for key, url in {"token_url": token_url, "issuer": issuer}.items():
        if url and (fault := fault_of_url(url)):
            yield key, fault


def _listed(scopes: Scopes) -> tuple[str, ...]:
    return tuple(scopes.split()) if isinstance(scopes, str) else tuple(scopes)


def _path(file: Path | str | None) -> Path | None:
    return Path(file) if file else None
