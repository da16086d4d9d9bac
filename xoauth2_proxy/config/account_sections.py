"""The accounts and providers of the file: each key with its bounds, description and rules.

What an account leaves out comes from its provider (`accounts.providers`).
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.config.credential_section import CredentialSection
from xoauth2_proxy.config.from_section import FromSection
from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.secret import Password, Secret
from xoauth2_proxy.config.section import Section, optional, setting
from xoauth2_proxy.config.values import (
    Address,
    AuthoritiesFile,
    Authority,
    ClientCertificateFile,
    Command,
    Date,
    Host,
    Issuer,
    Parameter,
    Scopes,
    Seconds,
    Senders,
    ServiceAccountFile,
    Url,
    Word,
)
from xoauth2_proxy.credential_files import certificate_end

_NO_COUNTERPART = "has no counterpart in this proxy; remove it"
_MAX_CREDENTIALS = 10_000
_CLIENT_FIELDS = {field.name for field in fields(OAuthClient)}
# The client's fields that are called otherwise than the file's keys.
_FIELD_NAMES = {
    "grant": "grant_type",
    "oauth_token_url": "token_endpoint",
    "authorization_url": "authorization_endpoint",
    "client_secret_expires": "secret_expires_on",
}


class UpstreamSection(Section):
    """The provider's submission server. What is left out is the provider's."""

    host: Host | None = optional("Host name or IP address.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = optional("TCP port.")
    tls: Annotated[TlsMode, Field(strict=False)] | None = optional(
        "starttls: STARTTLS is required; implicit: TLS from the first octet; "
        "none: no TLS, to loopback only."
    )
    ca_file: AuthoritiesFile | None = optional(
        "PEM file of the certificate authorities to trust instead of the system's; "
        "relative to the configuration file."
    )


class LimitsSection(Section):
    """How much of the provider one mailbox may take. What is left out is the provider's."""

    max_connections: Annotated[int, Field(ge=1, le=1000)] | None = optional(
        "Connections to the provider at one time."
    )
    max_messages_per_connection: Annotated[int, Field(ge=1, le=1_000_000)] | None = optional(
        "Messages after which a connection is closed."
    )
    max_connection_age_seconds: Seconds | None = optional(
        "Age at which a connection takes no further message."
    )
    idle_seconds: Seconds | None = optional("Time after which an unused connection is closed.")
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] | None = optional(
        "How long a message may wait for its turn or a free connection; 0: not at all."
    )
    messages_per_minute: Annotated[float, Field(ge=0, le=100_000)] | None = optional(
        "Messages a minute, smoothed; 0: no limit."
    )
    max_message_bytes: Annotated[int, Field(ge=0, le=157_286_400)] | None = optional(
        "Largest message that the provider takes, if that is less than relay.max_message_bytes; "
        "0: unknown."
    )


class OAuthSection(Section):
    """How the relay presents itself to the authorization server."""

    client_id: Secret | None = optional("OAuth client id (RFC 6749 §2.2).", repr=False)
    client_secret: Secret | None = optional("OAuth client secret (RFC 6749 §2.3).", repr=False)
    grant: Annotated[GrantType, Field(strict=False)] | None = optional(
        "With what right tokens are asked for. refresh_token, the default: a person "
        "signs in once; client_credentials: the application itself (outlook, oidc); "
        "service_account: Google's domain-wide delegation."
    )
    scopes: Scopes | None = optional("OAuth scopes to ask for, instead of the provider's.")
    # Not in the repr, since operators do write secrets there.
    parameters: dict[Parameter, Annotated[str, Field(max_length=10_000)]] | None = optional(
        "More parameters for token requests, as audience or resource. No secrets.", repr=False
    )
    oauth_token_url: Url | None = optional(
        "Token endpoint, instead of the built-in or discovered one."
    )
    authorization_url: Url | None = optional(
        "Where people sign in, for providers without discovery."
    )
    issuer: Issuer | None = optional("OpenID Connect issuer; its metadata name the endpoints.")
    authority: Authority | None = optional(
        "Microsoft Entra: the login host, as https://login.microsoftonline.us."
    )
    tenant: Word | None = optional(
        "Microsoft Entra tenant: an id, a domain, common, organizations or consumers."
    )
    ca_file: AuthoritiesFile | None = optional(
        "PEM file of the certificate authorities to trust for OAuth instead of the "
        "system's; relative to the configuration file."
    )
    certificate: ClientCertificateFile | None = optional(
        "Microsoft Entra: PEM file with the client's certificate and its private key, "
        "instead of client_secret; relative to the configuration file."
    )
    service_account: ServiceAccountFile | None = optional(
        "Google: the service account's key file (JSON); relative to the configuration file."
    )
    command: Command | None = optional(
        "Program and arguments that print an access token, for the refresher command; "
        "{mailbox} in an argument stands for the address. Others can see arguments: no secrets."
    )
    options: dict[str, Any] | None = optional(
        "The keys that a plug-in's refresher declares; an account's are added to its provider's.",
        repr=False,
    )
    client_secret_expires: Date | None = optional(
        "Last day of client_secret or certificate, to be warned in time; by default "
        "the certificate says it."
    )
    refresh_token_days: Annotated[int, Field(ge=0, le=36_500)] | None = optional(
        "Days from sign-in after which the provider ends a refresh token, to be warned "
        "in time, as 7 for a Google project in testing; 0: unlimited or unknown."
    )
    # 50 minutes at most: most access tokens live for an hour.
    refresh_window_seconds: Annotated[float, Field(ge=60, le=3000)] | None = optional(
        "How long before its end an access token is renewed."
    )

    def faults(self) -> Iterator[Fault]:
        """Yield a second way for the client to prove who it is."""
        if self.certificate is not None and self.client_secret is not None:
            yield "certificate", "contradicts client_secret; remove one"

    def client_fields(self) -> dict[str, Any]:
        """Return the fields of an `OAuthClient` that are written here; blocks."""
        written: dict[str, Any] = {}
        for key in type(self).model_fields:
            name, value = _FIELD_NAMES.get(key, key), getattr(self, key)
            if name in _CLIENT_FIELDS and value is not None:
                written[name] = tuple(value.items()) if key == "parameters" else value
        if self.certificate is not None and "secret_expires_on" not in written:
            with suppress(ValueError):  # it was replaced since it was checked
                written["secret_expires_on"] = certificate_end(self.certificate)
        return written


class ProviderSection(OAuthSection):
    """A provider of your own, or changes to a built-in one. Its OAuth keys are its accounts'."""

    refresher: Word | None = optional(
        "What gets access tokens: gmail, outlook, oidc, command, mock or a plug-in. "
        "Required for a new name."
    )
    upstream: UpstreamSection | None = optional(
        "Its submission server. Required, with host and port, for a new name."
    )
    limits: LimitsSection | None = optional("Its limits per mailbox.")


class AccountSection(OAuthSection):
    """One mailbox that may be used through the relay."""

    # The keys of the system this one replaces.
    former_keys: ClassVar[Mapping[str, str]] = {
        "oauth_endpoint": "write it as upstream.host and upstream.port",
        "ip_address": _NO_COUNTERPART,
        "vmta_name": _NO_COUNTERPART,
        "max_concurrent_messages": "write limits.max_connections",
        "max_messages_per_hour": "write limits.messages_per_minute, or remove it",
        "connection_settings": "write limits.max_connections, limits.max_messages_per_connection, "
        "limits.max_connection_age_seconds and limits.idle_seconds",
        "rate_limiting": "write limits.messages_per_minute",
        "retry": _NO_COUNTERPART,
        "circuit_breaker": _NO_COUNTERPART,
    }

    email: Address = Field(
        description="The mailbox, which is also the login; letter case does not matter."
    )
    provider: Word = Field(
        description="gmail, outlook, another built-in provider or a name under `providers`."
    )
    account_id: Annotated[str, Field(min_length=1, max_length=200)] | None = optional(
        "A name of your own for the account; shown in messages about it."
    )
    enabled: bool = setting(
        True, "false: the account cannot be used and its secrets are not looked for."
    )
    password: Password | None = optional(
        "What the mail client must present: clear text, ${VARIABLE}, a file, "
        "or an argon2 hash. Not the provider's password.",
        repr=False,
    )
    allow_any_password: bool = setting(
        False, "Accept every password; only while the listener is on loopback."
    )
    client_tokens: bool = setting(
        True,
        "Whether clients may log in with access tokens of their own (XOAUTH2, OAUTHBEARER); the "
        "provider is asked about each new one.",
    )
    credentials: Annotated[
        tuple[CredentialSection, ...], Field(strict=False, max_length=_MAX_CREDENTIALS)
    ] = setting((), "Further logins to this mailbox, one for each device or program.")
    senders: Senders = setting(
        (),
        "Senders that clients may use, in MAIL and in the header's From: addresses, *@domain, or "
        "*. By default any that the provider allows.",
    )
    from_: FromSection | None = optional(
        "What becomes of other senders, and the name in From.", alias="from"
    )
    upstream: UpstreamSection | None = optional("Changes to the provider's submission server.")
    limits: LimitsSection | None = optional("Changes to the provider's limits.")
    refresh_token: Secret | None = optional(
        "A refresh token that was got elsewhere (RFC 6749 §1.5); without one, a person signs in.",
        repr=False,
    )
    sign_in_as: Annotated[str, Field(min_length=1, max_length=254)] | None = optional(
        "Who signs in where that is not the mailbox's own address, as for a shared mailbox."
    )
    recipients: Literal["deferred", "verified"] = setting(
        "deferred",
        "deferred: recipients are judged together with the message, which costs least; "
        "verified: each RCPT is answered by the provider, for MTAs in front.",
    )
    allow_remote_mock: bool = setting(False, "Let a mock account's upstream be another machine.")

    def faults(self) -> Iterator[Fault]:
        """Yield a missing password, and one that contradicts `allow_any_password`."""
        yield from super().faults()
        is_reachable = self.allow_any_password or bool(self.credentials)
        if self.password is None and not is_reachable:
            yield (
                "password",
                "is required: what the mail client must present, a secret of your own choice "
                "(not the provider's password)",
            )
        elif self.password is not None and self.allow_any_password:
            yield "allow_any_password", "contradicts the password; remove one of the two"
