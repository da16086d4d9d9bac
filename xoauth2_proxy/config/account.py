"""Turns the accounts of the file into accounts that can be used, one after the other.

What is wrong with one account never hides what is wrong with another.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from xoauth2_proxy.accounts import Account, Limits, LocalPassword, OAuthClient, Upstream, login_key
from xoauth2_proxy.config.model import AccountSection
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.providers import (
    MOCK,
    Provider,
    changed_limits,
    changed_upstream,
    check_use,
)
from xoauth2_proxy.config.secret import local_password
from xoauth2_proxy.config.structure import malformed_keys, structured
from xoauth2_proxy.config.surroundings import Surroundings, check_authorities, is_loopback

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from xoauth2_proxy.config.document import Json

_OAUTH_KEYS = ("client_id", "client_secret", "refresh_token", "tenant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises:
    """What the accounts are checked against."""

    surroundings: Surroundings
    providers: Mapping[str, Provider | None]  # None: its entry is wrong, and that was said already
    known_refreshers: Collection[str]
    is_listener_on_loopback: bool


class AccountReader:
    """Reads accounts and keeps the sum of what it read."""

    def __init__(self, premises: Premises, problems: Problems) -> None:
        self.accounts: list[Account] = []
        self.enabled = 0
        self.disabled = 0
        self.sandbox_accounts: set[str] = set()
        self._premises = premises
        self._problems = problems
        self._taken: dict[tuple[str, str], str] = {}  # (key, value) -> the path that has it
        self._passing_through: Counter[str] = Counter()

    def read(self, value: Json, path: str) -> None:
        """Read one account; it joins `accounts` if it is enabled and nothing is wrong with it."""
        problems = Problems()
        section = structured(AccountSection, value, path, problems)
        self._claim(value, path, problems)
        if section is None or section.enabled:
            self.enabled += 1
        else:
            self.disabled += 1
        if section is not None:
            self._assemble(section, path, problems)
        elif isinstance(value, dict):
            self._check_the_rest(value, path, problems)
        label = section.account_id if section else None
        self._problems.take(problems, f" (account_id {label})" if label else "")

    def _check_the_rest(self, value: dict[str, Json], path: str, problems: Problems) -> None:
        """Find what is wrong with an account beside its malformed keys, so that all is told."""
        malformed = malformed_keys(AccountSection, value)
        stand_ins = {"email": "anyone@example.com", "password": "any"}
        rest = {key: one for key, one in value.items() if key not in malformed}
        rest |= {key: stand_in for key, stand_in in stand_ins.items() if key in malformed}
        with suppress(ValidationError):
            self._assemble(AccountSection.model_validate(rest), path, problems)

    def warnings(self) -> list[str]:
        """Return what the operator should know although nothing is wrong."""
        return [
            f"{count} account(s) of provider {provider}: this version cannot refresh their "
            "tokens, so clients must bring their own (XOAUTH2 or OAUTHBEARER)"
            for provider, count in self._passing_through.items()
        ]

    def _claim(self, value: Json, path: str, problems: Problems) -> None:
        if not isinstance(value, dict):
            return
        for key in ("email", "account_id"):
            written = value.get(key)
            if not isinstance(written, str) or not written:
                continue
            where = join(path, key)
            name = login_key(written) if key == "email" else written
            first = self._taken.setdefault((key, name), where)
            if first != where:
                problems.add(where, f"is the same as {first}")

    def _assemble(self, section: AccountSection, path: str, problems: Problems) -> None:
        provider = self._provider(section, path, problems)
        used = self._used(provider, section, path, problems) if provider else None
        if not section.enabled:
            return
        password = self._password(section, path, problems)
        oauth = self._oauth(section, provider, path, problems)
        if problems or provider is None or used is None:
            return
        upstream, limits = used
        account = Account(
            email=section.email,
            provider=section.provider,
            refresher=provider.refresher,
            upstream=upstream,
            limits=limits,
            verifies=section.recipients == "verified",
            password=password,
            oauth=oauth,
        )
        self.accounts.append(account)
        is_written = bool(section.upstream and section.upstream.model_fields_set)
        if provider.refresher == MOCK and not is_written and not provider.is_upstream_written:
            self.sandbox_accounts.add(account.key)

    def _provider(self, section: AccountSection, path: str, problems: Problems) -> Provider | None:
        providers = self._premises.providers
        if section.provider not in providers:
            problems.add(
                join(path, "provider"),
                f"there is no {section.provider}; there are {', '.join(sorted(providers))}",
            )
        return providers.get(section.provider)

    def _used(
        self, provider: Provider, section: AccountSection, path: str, problems: Problems
    ) -> tuple[Upstream, Limits]:
        directory = self._premises.surroundings.directory
        upstream = changed_upstream(provider.upstream, section.upstream, directory)
        limits = changed_limits(provider.limits, section.limits)
        check_use(provider, upstream, limits, path, problems)
        written = section.upstream
        if section.enabled and written and written.ca_file is not None and upstream.ca_file:
            check_authorities(upstream.ca_file, join(path, "upstream", "ca_file"), problems)
        is_mock = provider.refresher == MOCK
        if is_mock and not is_loopback(upstream.host) and not section.allow_remote_mock:
            has_host = written is not None and written.host is not None
            problems.add(
                join(path, *(("upstream", "host") if has_host else ("provider",))),
                f"a mock account may not use another machine, {upstream.host}, "
                'unless it has "allow_remote_mock": true',
            )
        return upstream, limits

    def _password(
        self, section: AccountSection, path: str, problems: Problems
    ) -> LocalPassword | None:
        where = join(path, "allow_any_password")
        if section.allow_any_password and not self._premises.is_listener_on_loopback:
            problems.add(where, "is for a listener on loopback only")
        if section.password is None:
            if not section.allow_any_password:
                problems.add(
                    join(path, "password"),
                    'is required; without one, write "allow_any_password": true',
                )
            return None
        if section.allow_any_password:
            problems.add(where, "contradicts the password; remove one of the two")
        where = join(path, "password")
        secret = self._premises.surroundings.secret(section.password, where, problems)
        try:
            return local_password(secret)
        except ValueError as error:
            problems.add(where, str(error))
            return None

    def _oauth(
        self, section: AccountSection, provider: Provider | None, path: str, problems: Problems
    ) -> OAuthClient:
        written = {key: getattr(section, key) for key in _OAUTH_KEYS if getattr(section, key)}
        if provider is not None and provider.refresher not in self._premises.known_refreshers:
            if written:
                problems.add(
                    join(path, "provider"),
                    f"this version cannot refresh tokens for {section.provider} yet; it can relay "
                    "for clients that bring their own (XOAUTH2 or OAUTHBEARER): remove "
                    f'{", ".join(written)} to use it that way, or write "enabled": false',
                )
            else:
                self._passing_through[section.provider] += 1
            return OAuthClient()
        secret = self._premises.surroundings.secret
        return OAuthClient(
            **{
                key: value if isinstance(value, str) else secret(value, join(path, key), problems)
                for key, value in written.items()
            }
        )
