"""The shape of the configuration file: every key, its type, its bounds and its description.

The JSON Schema is made from these models, so a key is described here (the OAuth ones in
`oauth_keys`) and nowhere else. What a key means together with others is checked in
`xoauth2_proxy.config.load`.
"""

from typing import Annotated, Literal

from pydantic import Field

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.config.secret import Secret
from xoauth2_proxy.config.settings import (
    AdminConfig,
    AlertsConfig,
    ListenerConfig,
    RelayConfig,
    StoreKind,
)
from xoauth2_proxy.config.values import (
    Address,
    FilePath,
    Host,
    IpAddress,
    ListenPort,
    Seconds,
    Section,
    Url,
    Word,
)

_LISTENER = ListenerConfig()
_ADMIN = AdminConfig()
_RELAY = RelayConfig()
_ALERTS = AlertsConfig()


class UpstreamSection(Section):
    """The provider's submission server. What is left out is the provider's."""

    host: Host | None = Field(default=None, description="Host name or IP address.")
    port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="TCP port."
    )
    tls: Annotated[TlsMode, Field(strict=False)] | None = Field(
        default=None,
        description="starttls: STARTTLS is required; implicit: TLS from the first octet; "
        "none: no TLS, to loopback only.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM file of the certificate authorities to trust instead of the system's; "
        "relative to the configuration file.",
    )


class LimitsSection(Section):
    """How much of the provider one mailbox may take. What is left out is the provider's."""

    max_connections: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="Connections to the provider at one time."
    )
    max_messages_per_connection: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Messages after which a connection is closed."
    )
    max_connection_age_seconds: Seconds | None = Field(
        default=None, description="Age at which a connection takes no further message."
    )
    idle_seconds: Seconds | None = Field(
        default=None, description="Time after which an unused connection is closed."
    )
    wait_seconds: Annotated[float, Field(ge=0, le=3600)] | None = Field(
        default=None,
        description="How long a message may wait for its turn or a free connection; 0: not at all.",
    )
    messages_per_minute: Annotated[float, Field(ge=0, le=100_000)] | None = Field(
        default=None, description="Messages a minute, smoothed; 0: no limit."
    )


class ProviderSection(OAuthSection):
    """A provider of your own, or changes to a built-in one. Its OAuth keys are its accounts'."""

    refresher: Word | None = Field(
        default=None,
        description="What gets access tokens: gmail, outlook, oidc, command, mock or a plug-in. "
        "Required for a new name.",
    )
    upstream: UpstreamSection | None = Field(
        default=None,
        description="Its submission server. Required, with host and port, for a new name.",
    )
    limits: LimitsSection | None = Field(default=None, description="Its limits per mailbox.")


class AccountSection(OAuthSection):
    """One mailbox that may be used through the relay."""

    email: Address = Field(
        description="The mailbox, which is also the login; letter case does not matter."
    )
    provider: Word = Field(
        description="gmail, outlook, another built-in provider or a name under `providers`."
    )
    account_id: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        default=None, description="A name of your own for the account; shown in messages about it."
    )
    enabled: bool = Field(
        default=True,
        description="false: the account cannot be used and its secrets are not looked for.",
    )
    password: Secret | None = Field(
        default=None,
        description="What the mail client must present: clear text, ${VARIABLE}, a file, "
        "or an argon2 hash. Not the provider's password.",
    )
    allow_any_password: bool = Field(
        default=False, description="Accept every password; only while the listener is on loopback."
    )
    upstream: UpstreamSection | None = Field(
        default=None, description="Changes to the provider's submission server."
    )
    limits: LimitsSection | None = Field(
        default=None, description="Changes to the provider's limits."
    )
    refresh_token: Secret | None = Field(
        default=None,
        description="A refresh token that was got elsewhere (RFC 6749 §1.5); without one, a person "
        "signs in.",
    )
    sign_in_as: Annotated[str, Field(min_length=1, max_length=254)] | None = Field(
        default=None,
        description="Who signs in where that is not the mailbox's own address, as for a shared "
        "mailbox.",
    )
    recipients: Literal["deferred", "verified"] = Field(
        default="deferred",
        description="deferred: recipients are judged together with the message, which costs least; "
        "verified: each RCPT is answered by the provider, for MTAs in front.",
    )
    allow_remote_mock: bool = Field(
        default=False, description="Let a mock account's upstream be another machine."
    )


class ListenerSection(Section):
    """Where mail clients connect."""

    host: Host = Field(default=_LISTENER.host, description="Address to listen on.")
    port: ListenPort = Field(
        default=_LISTENER.port, description="Port to listen on; 0: any free one."
    )
    tls_cert: FilePath | None = Field(
        default=None, description="PEM certificate chain for STARTTLS; relative to this file."
    )
    tls_key: FilePath | None = Field(
        default=None, description="PEM private key of tls_cert; relative to this file."
    )
    allow_insecure_auth: bool = Field(
        default=_LISTENER.allow_insecure_auth,
        description="Offer AUTH without TLS on an address that is not loopback.",
    )
    proxies: list[IpAddress] = Field(
        default=[],
        description="Load balancers, by IP address, whose connections begin with a PROXY header "
        "(version 1 or 2) that names the client.",
    )
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=_LISTENER.max_connections, description="Clients at one time; one more is told 421."
    )
    idle_seconds: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=_LISTENER.idle_seconds, description="How long a client may be silent."
    )


class AdminSection(Section):
    """Where health and metrics are asked for."""

    host: Host = Field(default=_ADMIN.host, description="Address to listen on.")
    port: ListenPort = Field(default=_ADMIN.port, description="Port to listen on; 0: any free one.")
    token: Secret | None = Field(
        default=None, description="Bearer token to ask for; required where host is not loopback."
    )
    public_url: Url | None = Field(
        default=None,
        description="Where browsers reach the admin pages, if that is not where they are served: "
        "behind a proxy that adds TLS, as https://relay.example.com.",
    )


class RelaySection(Section):
    """What one message may be, and how long a stop may take."""

    # From what every server must take (RFC 5321 §4.5.3.1.7) to Exchange Online's largest SIZE.
    max_message_bytes: Annotated[int, Field(ge=65_536, le=157_286_400)] = Field(
        default=_RELAY.max_message_bytes, description="Largest message, announced as SIZE."
    )
    buffer_bytes: Annotated[int, Field(ge=4096, le=16_777_216)] = Field(
        default=_RELAY.buffer_bytes,
        description="How much of a message is held; the rest is sent on while it arrives.",
    )
    # Exchange Online lets an administrator set 1000 at most.
    max_recipients: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=_RELAY.max_recipients, description="Recipients of one message."
    )
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=_RELAY.drain_seconds,
        description="How long transactions in flight may take at a stop.",
    )


class StoreSection(Section):
    """Where refresh tokens are kept."""

    kind: Annotated[StoreKind, Field(strict=False)] = Field(
        default=StoreKind.FILE,
        description="file: a directory; memory: nowhere, a restart forgets them; redis: a server, "
        "for several machines.",
    )
    directory: FilePath | None = Field(
        default=None,
        description="Directory of the file store, relative to this file; by default tokens, in "
        "the state directory.",
    )
    url: Secret | None = Field(
        default=None, description="Redis server: rediss://, redis:// or unix:// URL."
    )
    key: Secret | None = Field(
        default=None,
        description="Encrypts what is kept: 16 characters at least, best from a random generator.",
    )
    keyring: bool = Field(
        default=False,
        description="Encrypt with a key that is made and kept in the operating system's keyring.",
    )


class AlertsSection(Section):
    """Who is told when a mailbox needs a person."""

    warn_days: Annotated[int, Field(ge=0, le=365)] = Field(
        default=_ALERTS.warn_days,
        description="How many days before a sign-in or a client secret ends.",
    )
    webhook: Secret | None = Field(
        default=None, description="URL that is posted each warning as JSON."
    )


class FileSection(Section):
    """The whole file. A bare list of accounts is read as well."""

    accounts: list[AccountSection] = Field(description="The mailboxes.")
    providers: dict[str, ProviderSection] = Field(
        default={}, description="Providers by name: your own, or changes to the built-in ones."
    )
    relay: RelaySection = RelaySection()
    listener: ListenerSection = ListenerSection()
    admin: AdminSection = AdminSection()
    store: StoreSection = StoreSection()
    alerts: AlertsSection = AlertsSection()
