"""What a loaded configuration is: plain values, checked, with every secret resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.oauth_client import OAuthClient


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """Where mail clients connect."""

    host: str = "127.0.0.1"  # loopback, so that a first start exposes nothing
    port: int = 2525  # the usual unprivileged stand-in for 587; 0: any free port
    tls_cert: Path | None = None  # PEM certificate chain; None: STARTTLS is not offered
    tls_key: Path | None = None  # PEM private key; given together with `tls_cert`
    allow_insecure_auth: bool = False  # AUTH without TLS although the address is not loopback
    proxies: tuple[str, ...] = ()  # addresses whose connections begin with a PROXY header
    max_connections: int = 1000  # fits a soft limit of 1024 file descriptors, barely
    idle_seconds: float = 300.0  # RFC 5321 §4.5.3.2.7: a server waits at least 5 minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """Where health and metrics are asked for."""

    host: str = "127.0.0.1"
    port: int = 9090  # 0: any free port
    token: str = field(default="", repr=False)  # bearer token (RFC 6750); "": none is asked for
    public_url: str = ""  # where browsers reach it; "": where it listens


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """What one message may be, and how long a stop may take."""

    # 35 MiB: Gmail announces SIZE 35882577, Exchange Online's default MaxSendSize is 35 MB.
    max_message_bytes: int = 36_700_160
    buffer_bytes: int = 262_144  # most messages are smaller and take one round trip
    max_recipients: int = 100  # Gmail's limit by SMTP; RFC 5321 §4.5.3.1.8: at least 100
    drain_seconds: float = 30.0  # transactions in flight at a stop; most take under a second


class StoreKind(StrEnum):
    """Where grants outlive the process."""

    FILE = "file"
    MEMORY = "memory"  # they do not
    REDIS = "redis"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where grants are kept, and whether they are encrypted there."""

    kind: StoreKind = StoreKind.FILE
    directory: Path  # of the file store
    url: str = field(default="", repr=False)  # redis://… or rediss://…; it may hold a password
    key: str = field(default="", repr=False)  # encrypts what is kept; "": it is not encrypted
    is_key_in_keyring: bool = False  # the key is made and kept in the operating system's keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsConfig:
    """Who is told when a mailbox needs a person, and how long before."""

    warn_days: int = 14  # two working weeks: long enough for a holiday
    webhook: str = field(default="", repr=False)  # URL; it may hold a secret. "": none


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """A provider that accounts can name, and what their OAuth client is unless they change it."""

    name: str
    refresher: str
    oauth: OAuthClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything the proxy is started with."""

    accounts: tuple[Account, ...]  # the enabled ones, of the file and of those added since
    disabled_accounts: int
    providers: tuple[ProviderConfig, ...]  # the built-in ones and the file's
    listener: ListenerConfig
    admin: AdminConfig
    relay: RelayConfig
    store: StoreConfig
    alerts: AlertsConfig
    added: frozenset[str]  # keys of the accounts that were added while running
    sandbox_accounts: frozenset[str]  # keys of mock accounts whose upstream nobody wrote
    warnings: tuple[str, ...]  # for the operator's eyes at the start


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; None where it says nothing. It beats the file."""

    host: str | None = None
    port: int | None = None
    admin_host: str | None = None
    admin_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_insecure_auth: bool | None = None
    sandbox: bool = False
