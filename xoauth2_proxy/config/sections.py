"""Reads the objects of the file that are no mailboxes: listener, admin, relay, store, alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.config.environment import check_file, check_key_pair, is_loopback
from xoauth2_proxy.config.model import (
    AdminSection,
    AlertsSection,
    ListenerSection,
    RelaySection,
    StoreSection,
)
from xoauth2_proxy.config.settings import (
    AdminConfig,
    AlertsConfig,
    ListenerConfig,
    RelayConfig,
    StoreConfig,
    StoreKind,
)
from xoauth2_proxy.config.values import fault_of_url
from xoauth2_proxy.oauth.stores.encryption import Seal

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.config.load_context import Reading

_MIN_TOKEN_CHARACTERS = 16  # as for store.key
_REDIS_SCHEMES = ("redis", "rediss", "unix")


def listener_config(reading: Reading) -> ListenerConfig | None:
    """Return where clients connect; None: the section is wrong."""
    section = reading.section(ListenerSection, "listener")
    if section is None:
        return None
    given = reading.overrides
    insecure = given.allow_insecure_auth
    listener = ListenerConfig(
        host=section.host if given.host is None else given.host,
        port=section.port if given.port is None else given.port,
        tls_cert=_tls_file(reading, given.tls_cert, section.tls_cert, "tls_cert"),
        tls_key=_tls_file(reading, given.tls_key, section.tls_key, "tls_key"),
        allow_insecure_auth=section.allow_insecure_auth if insecure is None else insecure,
        proxies=tuple(section.proxies),
        max_connections=section.max_connections,
        idle_seconds=section.idle_seconds,
    )
    _check_listener(reading, listener)
    return listener


def _check_listener(reading: Reading, listener: ListenerConfig) -> None:
    problems = reading.problems
    if (listener.tls_cert is None) != (listener.tls_key is None):
        missing, present = (
            ("tls_cert", "tls_key") if listener.tls_cert is None else ("tls_key", "tls_cert")
        )
        problems.add(f"listener.{missing}", f"is required beside {present}")
    elif listener.tls_cert is not None and listener.tls_key is not None:
        check_key_pair(listener.tls_cert, listener.tls_key, "listener.tls_cert", problems)
    if listener.allow_insecure_auth:
        reading.warnings.append(
            f"allow_insecure_auth: clients of {listener.host} may send passwords and tokens "
            "without TLS, for anyone on the way to read"
        )
    elif not is_loopback(listener.host) and not (listener.tls_cert or listener.tls_key):
        problems.add(
            "listener.host" if reading.overrides.host is None else "--host",
            f"nobody could log in on {listener.host}, which is not loopback, without TLS: give "
            "tls_cert and tls_key (--tls-cert, --tls-key), or allow_insecure_auth "
            "(--allow-insecure-auth)",
        )


def _tls_file(reading: Reading, given: Path | None, written: str | None, key: str) -> Path | None:
    if given is not None:
        check_file(given, f"--{key.replace('_', '-')}", reading.problems)
        return given.absolute()
    if written is None:
        return None
    file = reading.surroundings.directory / written
    check_file(file, f"listener.{key}", reading.problems)
    return file


def admin_config(reading: Reading) -> AdminConfig:
    """Return where health and metrics are asked for."""
    section = reading.section(AdminSection, "admin")
    if section is None:
        return AdminConfig()
    given = reading.overrides
    host = section.host if given.admin_host is None else given.admin_host
    token = ""
    if section.token is not None:
        token = reading.surroundings.secret(section.token, "admin.token", reading.problems)
    elif not is_loopback(host):
        reading.problems.add("admin.token", f"is required on {host}, which is not loopback")
    if 0 < len(token) < _MIN_TOKEN_CHARACTERS:
        reading.warnings.append(
            f"admin.token: has fewer than {_MIN_TOKEN_CHARACTERS} characters and can be guessed"
        )
    port = section.port if given.admin_port is None else given.admin_port
    return AdminConfig(host=host, port=port, token=token, public_url=section.public_url or "")


def relay_config(reading: Reading) -> RelayConfig:
    """Return what one message may be."""
    section = reading.section(RelaySection, "relay")
    return RelayConfig(**section.model_dump()) if section else RelayConfig()


def store_config(reading: Reading) -> StoreConfig:
    """Return where grants are kept."""
    default = StoreConfig(directory=reading.state_dir.absolute() / "tokens")
    section = reading.section(StoreSection, "store")
    if section is None:
        return default
    problems = reading.problems
    if section.directory is not None and section.kind is not StoreKind.FILE:
        problems.add("store.directory", f"is for kind file, not {section.kind}")
    if section.keyring and section.key is not None:
        problems.add("store.keyring", "contradicts key; remove one of the two")
    store = StoreConfig(
        kind=section.kind,
        directory=reading.surroundings.directory / (section.directory or default.directory),
        url=_redis_url(reading, section),
        key=_store_key(reading, section),
        is_key_in_keyring=section.keyring,
    )
    parts = urlsplit(store.url)
    if parts.scheme == "redis" and not is_loopback(parts.hostname or "") and not _is_sealed(store):
        reading.warnings.append(
            f"store.url: tokens go to {parts.hostname} without TLS and without encryption, for "
            "anyone on the way to read; write rediss://, or give store.key"
        )
    return store


def _is_sealed(store: StoreConfig) -> bool:
    return bool(store.key) or store.is_key_in_keyring


def _redis_url(reading: Reading, section: StoreSection) -> str:
    problems = reading.problems
    if section.kind is not StoreKind.REDIS:
        if section.url is not None:
            problems.add("store.url", f"is for kind redis, not {section.kind}")
        return ""
    if section.url is None:
        problems.add("store.url", "is required for kind redis")
        return ""
    url = reading.surroundings.secret(section.url, "store.url", problems)
    if url and not _is_redis_url(url):
        problems.add("store.url", "must be a rediss://, redis:// or unix:// URL")
        return ""
    return url


def _is_redis_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not url.isprintable() or parts.scheme not in _REDIS_SCHEMES:
        return False
    return bool(parts.path) if parts.scheme == "unix" else bool(host)


def _store_key(reading: Reading, section: StoreSection) -> str:
    if section.key is None:
        return ""
    key = reading.surroundings.secret(section.key, "store.key", reading.problems)
    try:
        if key and not Seal(key):
            reading.problems.add("store.key", "holds no key")
    except ValueError as error:
        reading.problems.add("store.key", str(error))
    return key


def alerts_config(reading: Reading) -> AlertsConfig:
    """Return who is told when a mailbox needs a person."""
    section = reading.section(AlertsSection, "alerts")
    if section is None:
        return AlertsConfig()
    webhook = ""
    if section.webhook is not None:
        webhook = reading.surroundings.secret(section.webhook, "alerts.webhook", reading.problems)
        if webhook and (fault := fault_of_url(webhook)):
            reading.problems.add("alerts.webhook", fault)
    return AlertsConfig(warn_days=section.warn_days, webhook=webhook)
