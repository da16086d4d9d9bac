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
from xoauth2_proxy.config.listener_section import ListenerSection
from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.secret import Secret
from xoauth2_proxy.config.section import Section, setting
from xoauth2_proxy.config.values import FilePath, Host, ListenPort, Url
from xoauth2_proxy.network import fault_of_url, is_loopback
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.oauth.stores.encryption import GrantCipher
from xoauth2_proxy.oauth.stores.factory import open_cipher
from xoauth2_proxy.oauth.stores.redis_url import redis_location
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from xoauth2_proxy.config.environment import Environment

LEAST_BUFFERS = 16  # messages that each process must be able to hold
_MIN_TOKEN_CHARACTERS = 16  # as for store.key
_NO_MODULE = "needs the Python package {0}, which is not installed; run: pip install {0}"


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
    # As many clients as a listener takes by default can fill their buffers at once.
    buffer_total_bytes: int = setting(
        268_435_456,
        "How much is held of all messages together; workers have equal parts of it. Slow clients "
        "are cut off when it is spent, and others told to try again.",
        ge=1_048_576,
        le=1_099_511_627_776,
    )
    # Exchange Online's default, 1000 at most; Gmail, which takes 100, refuses the others itself.
    max_recipients: int = setting(500, "Recipients of one message.", ge=1, le=1000)
    # One in 10 s is forgiven, so 30 mean 8,640 a day of one address at most.
    max_failed_logins: int = setting(
        30,
        "Failed logins of one address, or at one login, before more are turned away with 421; "
        "from a third on, refusals are delayed; one is forgiven every 10 seconds. 0: no limit.",
        ge=0,
        le=1_000_000,
    )
    # Most transactions take under a second.
    drain_seconds: float = setting(
        30.0, "How long transactions in flight may take at a stop.", ge=0, le=3600
    )

    def faults(self) -> Iterator[Fault]:
        """Yield a total that is too small for the single messages."""
        least = LEAST_BUFFERS * self.buffer_bytes
        if self.buffer_total_bytes < least:
            yield (
                "buffer_total_bytes",
                f"must be at least {LEAST_BUFFERS} times buffer_bytes, {least}; raise it, or lower "
                "buffer_bytes",
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
    listeners: Annotated[tuple[ListenerSection, ...], Field(strict=False)] = setting(
        (), "Any number of listeners, in the place of listener.", json_schema_extra={"minItems": 1}
    )
    admin: AdminSection = AdminSection.model_construct()
    store: StoreSection = StoreSection.model_construct()
    alerts: AlertsSection = AlertsSection.model_construct()

    def faults(self) -> Iterator[Fault]:
        """Yield an empty array of listeners."""
        if "listeners" in self.model_fields_set and not self.listeners:
            yield "listeners", "must hold at least one"

    @property
    def listening(self) -> dict[str, ListenerSection]:
        """The listeners, by their JSON paths."""
        if not self.listeners:
            return {"listener": self.listener}
        return {json_path("listeners", place): one for place, one in enumerate(self.listeners)}

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        return value  # null is no object either
