"""Reads the configuration file, checks it as a whole and assembles what the proxy starts with.

All problems are told at once, each with its JSON path. A disabled account's shape is checked, but
its secrets and files need not exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy.config.account import AccountReader, Premises
from xoauth2_proxy.config.document import Json, read_document
from xoauth2_proxy.config.model import (
    WORD,
    WORD_RULE,
    AdminSection,
    FileSection,
    ListenerSection,
    ProviderSection,
    RelaySection,
)
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.providers import (
    Provider,
    built_in_providers,
    changed_provider,
    check_new_provider,
    check_use,
)
from xoauth2_proxy.config.settings import (
    AdminConfig,
    Config,
    ListenerConfig,
    Overrides,
    RelayConfig,
)
from xoauth2_proxy.config.structure import structured, unknown_key
from xoauth2_proxy.config.surroundings import (
    Surroundings,
    check_authorities,
    check_file,
    check_key_pair,
    is_loopback,
)
from xoauth2_proxy.mock_tokens import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SANDBOX_PASSWORD = "secret"  # noqa: S105 - opens nothing but the sandbox


def load_config(
    path: Path | None,
    overrides: Overrides,
    *,
    state_dir: Path,
    known_refreshers: Collection[str],
    environ: Mapping[str, str],
) -> Config:
    """Return the configuration in the file at `path`, changed by `overrides`.

    Without a file, `overrides.sandbox` stands for the sandbox's own mailboxes.

    Raises:
        ConfigError: with every problem of the file and of the command line, and no secret.
    """
    problems = Problems()
    document = _document(path, overrides, problems)
    directory = path.absolute().parent if path else Path.cwd()
    loading = _Loading(document, overrides, Surroundings(directory, environ), problems)
    config = loading.config(state_dir, known_refreshers)
    problems.raise_if_any()
    return config


def _document(path: Path | None, overrides: Overrides, problems: Problems) -> dict[str, Json]:
    if path is None:
        if not overrides.sandbox:
            problems.fail(
                "--config",
                "no configuration was given; write --config accounts.json, "
                "or --sandbox to try the proxy without one",
            )
        return {
            "accounts": [
                {"email": mailbox, "provider": "mock", "password": SANDBOX_PASSWORD}
                for mailbox in MOCK_MAILBOXES
            ]
        }
    document = read_document(path, "accounts", problems)
    if isinstance(document, list):
        return {"accounts": document}
    if not isinstance(document, dict):
        problems.fail(str(path), "must hold an object with accounts, or an array of accounts")
    return document


@dataclass
class _Loading:
    document: dict[str, Json]
    overrides: Overrides
    surroundings: Surroundings
    problems: Problems
    warnings: list[str] = field(default_factory=list)

    def config(self, state_dir: Path, known_refreshers: Collection[str]) -> Config:
        for key in self.document:
            if key not in FileSection.model_fields:
                self.problems.add(join("", key), unknown_key(key, FileSection.model_fields))
        listener = self._listener()
        premises = Premises(
            surroundings=self.surroundings,
            providers=self._providers(built_in_providers(state_dir)),
            known_refreshers=known_refreshers,
            is_listener_on_loopback=listener is None or is_loopback(listener.host),
        )
        reader = self._accounts(premises)
        return Config(
            accounts=tuple(reader.accounts),
            disabled_accounts=reader.disabled,
            listener=listener or ListenerConfig(),
            admin=self._admin(),
            relay=self._relay(),
            sandbox_accounts=frozenset(reader.sandbox_accounts),
            warnings=(*self.warnings, *reader.warnings()),
        )

    def _accounts(self, premises: Premises) -> AccountReader:
        reader = AccountReader(premises, self.problems)
        accounts = self.document.get("accounts")
        if "accounts" not in self.document:
            self.problems.add("accounts", "is required")
        elif not isinstance(accounts, list):
            self.problems.add("accounts", "must be an array")
        else:
            for number, value in enumerate(accounts):
                reader.read(value, join("accounts", number))
            if not reader.enabled:
                self.problems.add("accounts", "no account is enabled")
        return reader

    def _providers(self, built_in: dict[str, Provider]) -> dict[str, Provider | None]:
        providers: dict[str, Provider | None] = dict(built_in)
        entries = self.document.get("providers", {})
        if not isinstance(entries, dict):
            self.problems.add("providers", "must be an object")
            return providers
        for name, value in entries.items():
            problems = Problems()
            providers[name] = self._provider(built_in.get(name), name, value, problems)
            self.problems.take(problems)
        return providers

    def _provider(
        self, base: Provider | None, name: str, value: Json, problems: Problems
    ) -> Provider | None:
        path = join("providers", name)
        if not WORD.fullmatch(name):
            problems.add(path, f"the name {WORD_RULE}")
        section = structured(ProviderSection, value, path, problems)
        if section is None:
            return None
        if base is None:
            check_new_provider(section, path, problems)
        provider = changed_provider(base, name, section, self.surroundings.directory)
        check_use(provider, provider.upstream, provider.limits, path, problems)
        if section.upstream and section.upstream.ca_file and provider.upstream.ca_file:
            check_authorities(
                provider.upstream.ca_file, join(path, "upstream", "ca_file"), problems
            )
        return None if problems else provider

    def _listener(self) -> ListenerConfig | None:
        section = structured(
            ListenerSection, self.document.get("listener", {}), "listener", self.problems
        )
        if section is None:
            return None
        given = self.overrides
        insecure = given.allow_insecure_auth
        listener = ListenerConfig(
            host=section.host if given.host is None else given.host,
            port=section.port if given.port is None else given.port,
            tls_cert=self._tls_file(given.tls_cert, section.tls_cert, "tls_cert"),
            tls_key=self._tls_file(given.tls_key, section.tls_key, "tls_key"),
            allow_insecure_auth=section.allow_insecure_auth if insecure is None else insecure,
            proxies=tuple(section.proxies),
            max_connections=section.max_connections,
            idle_seconds=section.idle_seconds,
        )
        self._check_listener(listener)
        return listener

    def _check_listener(self, listener: ListenerConfig) -> None:
        if (listener.tls_cert is None) != (listener.tls_key is None):
            missing, present = (
                ("tls_cert", "tls_key") if listener.tls_cert is None else ("tls_key", "tls_cert")
            )
            self.problems.add(f"listener.{missing}", f"is required beside {present}")
        elif listener.tls_cert is not None and listener.tls_key is not None:
            check_key_pair(listener.tls_cert, listener.tls_key, "listener.tls_cert", self.problems)
        if listener.allow_insecure_auth:
            self.warnings.append(
                f"allow_insecure_auth: clients of {listener.host} may send passwords and tokens "
                "without TLS, for anyone on the way to read"
            )
        elif not is_loopback(listener.host) and not (listener.tls_cert or listener.tls_key):
            self.problems.add(
                "listener.host" if self.overrides.host is None else "--host",
                f"nobody could log in on {listener.host}, which is not loopback, without TLS: give "
                "tls_cert and tls_key (--tls-cert, --tls-key), or allow_insecure_auth "
                "(--allow-insecure-auth)",
            )

    def _tls_file(self, given: Path | None, written: str | None, key: str) -> Path | None:
        if given is not None:
            check_file(given, f"--{key.replace('_', '-')}", self.problems)
            return given.absolute()
        if written is None:
            return None
        file = self.surroundings.directory / written
        check_file(file, f"listener.{key}", self.problems)
        return file

    def _admin(self) -> AdminConfig:
        section = structured(AdminSection, self.document.get("admin", {}), "admin", self.problems)
        if section is None:
            return AdminConfig()
        given = self.overrides
        host = section.host if given.admin_host is None else given.admin_host
        token = ""
        if section.token is not None:
            token = self.surroundings.secret(section.token, "admin.token", self.problems)
        elif not is_loopback(host):
            self.problems.add("admin.token", f"is required on {host}, which is not loopback")
        port = section.port if given.admin_port is None else given.admin_port
        return AdminConfig(host=host, port=port, token=token)

    def _relay(self) -> RelayConfig:
        section = structured(RelaySection, self.document.get("relay", {}), "relay", self.problems)
        return RelayConfig(**section.model_dump()) if section else RelayConfig()
