"""The file's settings other than accounts: each key with its bounds, default and rules.

The JSON Schema is made from these models and those of `account_sections`, so a key is described
there and nowhere else.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, ValidationInfo, field_validator

from xoauth2_proxy.config.account_sections import AccountSection, ProviderSection
from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.secret import Secret
from xoauth2_proxy.config.section import Section, optional, setting
from xoauth2_proxy.config.values import FilePath, Host, IpAddress, ListenPort, SecretFile, Url
from xoauth2_proxy.credential_files import (
    fault_of_certificate,
    fault_of_file,
    fault_of_key_pair,
)
from xoauth2_proxy.network import fault_of_url, is_loopback
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.oauth.stores.encryption import GrantCipher
from xoauth2_proxy.oauth.stores.factory import open_cipher
from xoauth2_proxy.oauth.stores.redis_url import redis_location

if TYPE_CHECKING:
    from xoauth2_proxy.config.environment import Environment

_MIN_TOKEN_CHARACTERS = 16  # as for store.key
_NO_MODULE = "needs the Python package {0}, which is not installed; run: pip install {0}"


class ListenerSection(Section):
    """Where mail clients connect."""

    # Loopback, so that a first start exposes nothing; 2525 is the usual unprivileged 587.
    host: Host = setting("127.0.0.1", "Address to listen on.")
    port: ListenPort = setting(2525, "Port to listen on; 0: any free one.")
    tls_cert: FilePath | None = optional(
        "PEM certificate chain for STARTTLS; relative to this file."
    )
    tls_key: SecretFile | None = optional("PEM private key of tls_cert; relative to this file.")
    allow_insecure_auth: bool = setting(
        False, "Offer AUTH without TLS on an address that is not loopback."
    )
    proxies: Annotated[tuple[IpAddress, ...], Field(strict=False)] = setting(
        (),
        "Load balancers, by IP address, whose connections begin with a PROXY header "
        "(version 1 or 2) that names the client.",
    )
    # 1000 fits a soft limit of 1024 file descriptors, barely.
    max_connections: int = setting(
        1000, "Clients at one time; one more is told 421.", ge=1, le=100_000
    )
    # RFC 5321 §4.5.3.2.7: a server waits at least 5 minutes.
    idle_seconds: float = setting(
        300.0, "How long a client may be silent, or take until it has logged in.", gt=0, le=3600
    )

    def faults(self) -> Iterator[Fault]:
        """Yield TLS files that cannot be used, and a listener on which no client could log in."""
        files = {"tls_cert": self.tls_cert, "tls_key": self.tls_key}
        unreadable = {key: fault_of_file(file) for key, file in files.items() if file}
        yield from ((key, fault) for key, fault in unreadable.items() if fault)
        if self.tls_cert and not self.tls_key:
            yield "tls_key", "is required with tls_cert"
        elif self.tls_key and not self.tls_cert:
            yield "tls_cert", "is required with tls_key"
        elif self.tls_cert and self.tls_key:
            is_readable = not any(unreadable.values())
            if is_readable and (fault := fault_of_key_pair(self.tls_cert, self.tls_key)):
                yield "tls_cert", fault
        elif not self.allow_insecure_auth and not is_loopback(self.host):
            yield (
                "host",
                f"clients could not log in: {self.host} is not loopback, and there is no TLS; give "
                "tls_cert and tls_key (--tls-cert, --tls-key), or allow_insecure_auth "
                "(--allow-insecure-auth)",
            )

    def warnings(self) -> Iterator[str]:
        """Yield passwords that others could read, and a certificate that clients refuse."""
        if self.allow_insecure_auth:
            yield (
                f"listener.allow_insecure_auth: clients of {self.host} may send passwords and "
                "tokens without TLS, for anyone on the way to read"
            )
        if self.tls_cert is not None and (fault := fault_of_certificate(self.tls_cert)):
            yield f"listener.tls_cert: the certificate in {self.tls_cert} {fault}"


class AdminSection(Section):
    """The admin server."""

    host: Host = setting("127.0.0.1", "Address to listen on.")
    port: ListenPort = setting(9090, "Port to listen on; 0: any free one.")
    token: Secret = setting(
        "", "Bearer token to ask for; required where host is not loopback.", repr=False
    )
    public_url: Url = setting(
        "",
        "Where browsers reach the admin pages, if that is not where they are served: "
        "behind a proxy that adds TLS, as https://relay.example.com.",
    )
    serves_tokens: bool = setting(
        False, "Give access tokens to programs that send the token: GET /accounts/{email}/token."
    )

    def faults(self) -> Iterator[Fault]:
        """Yield an admin server that anyone on the network or this machine could use."""
        if self.serves_tokens and not self.token:
            yield "serves_tokens", "gives tokens to whoever sends admin.token; write one"
        if not self.token and not is_loopback(self.host):
            yield "token", f"is required on {self.host}, which is not loopback"

    def warnings(self) -> Iterator[str]:
        """Yield a token that can be guessed."""
        if 0 < len(self.token) < _MIN_TOKEN_CHARACTERS:
            yield (
                f"admin.token: has fewer than {_MIN_TOKEN_CHARACTERS} characters and can be guessed"
            )


class RelaySection(Section):
    """What one message may be, and how long a stop may take."""

    # From what every server must take (RFC 5321 §4.5.3.1.7) to Exchange Online's largest SIZE.
    # 35 MiB: Gmail announces SIZE 35882577, Exchange Online's default MaxSendSize is 35 MB.
    max_message_bytes: int = setting(
        36_700_160, "Largest message, announced as SIZE.", ge=65_536, le=157_286_400
    )
    # Most messages are smaller than 256 KiB and take one round trip.
    buffer_bytes: int = setting(
        262_144,
        "How much of a message is held; the rest is sent on while it arrives.",
        ge=4096,
        le=16_777_216,
    )
    # Gmail's limit by SMTP; RFC 5321 §4.5.3.1.8: at least 100. Exchange Online: 1000 at most.
    max_recipients: int = setting(100, "Recipients of one message.", ge=1, le=1000)
    # Most transactions take under a second.
    drain_seconds: float = setting(
        30.0, "How long transactions in flight may take at a stop.", ge=0, le=3600
    )


class StoreSection(Section):
    """Where refresh tokens are kept."""

    kind: Annotated[StoreKind, Field(strict=False)] = setting(
        StoreKind.FILE,
        "file: a directory; memory: nowhere, a restart forgets them; redis: a server, "
        "for several machines.",
    )
    directory: FilePath = setting(
        Path(),
        "Directory of the file store, relative to this file; by default tokens, in "
        "the state directory.",
        validate_default=True,
    )
    url: Secret = setting("", "Redis server: rediss://, redis:// or unix:// URL.", repr=False)
    key: Secret = setting(
        "",
        "Encrypts what is kept: 16 characters at least, best from a random generator.",
        repr=False,
    )
    keyring: bool = setting(
        False, "Encrypt with a key that is made and kept in the operating system's keyring."
    )

    @field_validator("directory", mode="wrap")
    @classmethod
    def _default_directory(
        cls, value: object, read: Callable[[object], Path], info: ValidationInfo
    ) -> Path:
        if value != Path():
            return read(value)
        environment: Environment | None = info.context
        return environment.state_dir.absolute() / "tokens" if environment else Path()

    def faults(self) -> Iterator[Fault]:
        """Yield keys of another kind of store, and what the store lacks."""
        if "directory" in self.model_fields_set and self.kind is not StoreKind.FILE:
            yield "directory", f"is for kind file, not {self.kind}"
        if self.keyring and self.key:
            yield "keyring", "contradicts key; remove one of the two"
        elif self.keyring and find_spec("keyring") is None:
            yield "keyring", _NO_MODULE.format("keyring")
        try:
            if self.key and not GrantCipher(self.key):
                yield "key", "holds no key"
        except ValueError as error:
            yield "key", str(error)
        yield from self._faults_of_redis()

    def cipher(self) -> GrantCipher:
        """Return what encrypts grants and added accounts.

        Raises:
            ValueError: the key cannot be had from the keyring.
        """
        return open_cipher(self.directory, self.key, is_key_in_keyring=self.keyring)

    def _faults_of_redis(self) -> Iterator[Fault]:
        if self.kind is not StoreKind.REDIS:
            if self.url:
                yield "url", f"is for kind redis, not {self.kind}"
        elif not self.url:
            yield "url", "is required for kind redis"
        else:
            if find_spec("redis") is None:
                yield "kind", _NO_MODULE.format("redis")
            try:
                redis_location(self.url, is_encrypted=bool(self.key or self.keyring))
            except ValueError as error:
                yield "url", str(error)


class AlertsSection(Section):
    """Who is told when a mailbox needs a person."""

    # Two working weeks: long enough for a holiday.
    warn_days: int = setting(
        14, "How many days before a sign-in or a client secret ends.", ge=0, le=365
    )
    webhook: Secret = setting("", "URL that is posted each warning as JSON.", repr=False)

    def faults(self) -> Iterator[Fault]:
        """Yield a URL to which warnings cannot be sent."""
        if self.webhook and (fault := fault_of_url(self.webhook)):
            yield "webhook", fault


class FileSection(Section):
    """The whole file. A bare list of accounts is read as well."""

    accounts: list[AccountSection] = Field(description="The mailboxes.")
    providers: dict[str, ProviderSection] = setting(
        {}, "Providers by name: your own, or changes to the built-in ones."
    )
    relay: RelaySection = RelaySection.model_construct()
    listener: ListenerSection = ListenerSection.model_construct()
    admin: AdminSection = AdminSection.model_construct()
    store: StoreSection = StoreSection.model_construct()
    alerts: AlertsSection = AlertsSection.model_construct()

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        return value  # null is no object either
