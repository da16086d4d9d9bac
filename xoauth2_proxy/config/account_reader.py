"""Turns the accounts of the file into accounts that can be used, one after the other.

What is wrong with one account never hides what is wrong with another.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from xoauth2_proxy.accounts.accounts import Account, Limits, LocalPassword, Upstream, login_key
from xoauth2_proxy.config.environment import Surroundings, check_authorities, is_loopback
from xoauth2_proxy.config.model import AccountSection
from xoauth2_proxy.config.oauth_overlay import OAuthReader
from xoauth2_proxy.config.oauth_rules import SPEAKING, check_client, check_fit
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.providers import (
    MOCK,
    Provider,
    changed_limits,
    changed_upstream,
    check_use,
)
from xoauth2_proxy.config.secret import local_password
from xoauth2_proxy.config.settings import ProviderConfig
from xoauth2_proxy.config.validation import malformed_keys, structured

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.oauth_client import OAuthClient


@dataclass(frozen=True, slots=True, kw_only=True)
class Premises:
    """What the accounts are checked against."""

    surroundings: Surroundings
    providers: Mapping[str, Provider | None]  # None: its entry is wrong, and that was said already
    is_listener_on_loopback: bool


@dataclass(frozen=True, slots=True)
class _Case:
    """One account under examination."""

    path: str  # of the account; "": it has a file of its own
    problems: Problems  # its own
    shared: Problems  # where its provider's problems go
    is_whole: bool = True  # no key was left out because it was malformed

    def add(self, keys: tuple[str, ...], problem: str) -> None:
        self.problems.add(join(self.path, *keys), problem)


class AccountReader:
    """Reads accounts and keeps the sum of what it read."""

    def __init__(self, premises: Premises, problems: Problems) -> None:
        self.accounts: list[Account] = []
        self.enabled = 0
        self.disabled = 0
        self.sandbox_accounts: set[str] = set()
        self._premises = premises
        self._oauth = OAuthReader(premises.surroundings)
        self._problems = problems
        self._taken: dict[tuple[str, str], str] = {}  # (key, value) -> where it is written
        self._passing_through: Counter[str] = Counter()

    def read(self, value: object, path: str) -> None:
        """Read one account; it joins `accounts` if it is enabled and nothing is wrong with it."""
        case = _Case(path, Problems(), self._problems)
        self._claim(value, case)
        section = self._read(value, case)
        self._count(section)
        label = section.account_id if section else None
        self._problems.take(case.problems, f" (account_id {label})" if label else "")

    def read_added(self, value: object, place: str, path: str = "") -> tuple[str, Problems]:
        """Read an account that is not the file's; return its key, and what is wrong with it.

        It joins the others only if nothing is wrong. `place` is where it is, for messages; `path`
        is its JSON path there.
        """
        problems = Problems()
        case = _Case(path, problems, problems)
        self._claim(value, case, f" in {place}")
        section = self._read(value, case)
        if section is None or problems:
            return "", problems
        self._count(section)
        return login_key(section.email), problems

    def warnings(self) -> list[str]:
        """Return what the operator should know although nothing is wrong."""
        return [
            f"{count} account(s) of provider {provider} have no OAuth client: clients must bring "
            "their own token (XOAUTH2 or OAUTHBEARER)"
            for provider, count in self._passing_through.items()
        ]

    def providers(self) -> tuple[ProviderConfig, ...]:
        """Return what accounts of each provider begin with; a wrong provider is left out."""
        return tuple(
            ProviderConfig(one.name, one.refresher, self._oauth.of_provider(one))
            for one in self._premises.providers.values()
            if one is not None
        )

    def _count(self, section: AccountSection | None) -> None:
        if section is None or section.enabled:
            self.enabled += 1
        else:
            self.disabled += 1

    def _read(self, value: object, case: _Case) -> AccountSection | None:
        section = structured(AccountSection, value, case.path, case.problems)
        if section is not None:
            self._assemble(section, case)
        elif isinstance(value, dict):
            self._check_the_rest(value, case)
        return section

    def _check_the_rest(self, value: dict[str, object], case: _Case) -> None:
        """Find what is wrong with an account beside its malformed keys, so that all is told."""
        malformed = malformed_keys(AccountSection, value)
        stand_ins = {"email": "anyone@example.com", "password": "any"}
        rest = {key: one for key, one in value.items() if key not in malformed}
        rest |= {key: stand_in for key, stand_in in stand_ins.items() if key in malformed}
        with suppress(ValidationError):
            incomplete = _Case(case.path, case.problems, case.shared, is_whole=False)
            self._assemble(AccountSection.model_validate(rest), incomplete)

    def _claim(self, value: object, case: _Case, place: str = "") -> None:
        if not isinstance(value, dict):
            return
        for key in ("email", "account_id"):
            written = value.get(key)
            if not isinstance(written, str) or not written:
                continue
            where = join(case.path, key) + place
            name = login_key(written) if key == "email" else written
            first = self._taken.setdefault((key, name), where)
            if first == where:
                continue
            if place:
                there = "" if " in " in first else " in the configuration file"
                case.add((key,), f"is the same as {first}{there}; one of the two must go")
            else:
                case.add((key,), f"is the same as {first}")

    def _assemble(self, section: AccountSection, case: _Case) -> None:
        provider = self._provider(section, case)
        used = self._used(provider, section, case) if provider else None
        misfits = Problems()
        if provider:
            check_fit(section, provider.name, provider.refresher, case.path, misfits)
            case.problems.take(misfits)
        if not section.enabled:
            return
        password = self._password(section, case)
        is_judged = case.is_whole and not misfits
        oauth = self._client(provider, section, case, is_judged) if provider else None
        if case.problems or provider is None or used is None or oauth is None:
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
        if oauth.is_empty and provider.refresher in SPEAKING:
            self._passing_through[provider.name] += 1
        is_written = bool(section.upstream and section.upstream.model_fields_set)
        if provider.refresher == MOCK and not is_written and not provider.is_upstream_written:
            self.sandbox_accounts.add(account.key)

    def _provider(self, section: AccountSection, case: _Case) -> Provider | None:
        providers = self._premises.providers
        if section.provider not in providers:
            case.add(
                ("provider",),
                f"there is no {section.provider}; there are {', '.join(sorted(providers))}",
            )
        return providers.get(section.provider)

    def _used(
        self, provider: Provider, section: AccountSection, case: _Case
    ) -> tuple[Upstream, Limits]:
        directory = self._premises.surroundings.directory
        upstream = changed_upstream(provider.upstream, section.upstream, directory)
        limits = changed_limits(provider.limits, section.limits)
        check_use(provider, upstream, limits, case.path, case.problems)
        written = section.upstream
        if section.enabled and written and written.ca_file is not None and upstream.ca_file:
            where = join(case.path, "upstream", "ca_file")
            check_authorities(upstream.ca_file, where, case.problems)
        if not upstream.host and case.is_whole:
            case.add(("upstream", "host"), f"is required, here or in {provider.name}")
        is_mock = provider.refresher == MOCK
        if is_mock and not is_loopback(upstream.host) and not section.allow_remote_mock:
            has_host = written is not None and written.host is not None
            case.add(
                ("upstream", "host") if has_host else ("provider",),
                f"a mock account may not use another machine, {upstream.host}, "
                'unless it has "allow_remote_mock": true',
            )
        return upstream, limits

    def _password(self, section: AccountSection, case: _Case) -> LocalPassword | None:
        if section.allow_any_password and not self._premises.is_listener_on_loopback:
            case.add(("allow_any_password",), "is for a listener on loopback only")
        if section.password is None:
            if not section.allow_any_password:
                case.add(
                    ("password",), 'is required; without one, write "allow_any_password": true'
                )
            return None
        if section.allow_any_password:
            case.add(("allow_any_password",), "contradicts the password; remove one of the two")
        where = join(case.path, "password")
        secret = self._premises.surroundings.secret(section.password, where, case.problems)
        try:
            return local_password(secret)
        except ValueError as error:
            case.problems.add(where, str(error))
            return None

    def _client(
        self, provider: Provider, section: AccountSection, case: _Case, is_judged: bool
    ) -> OAuthClient | None:
        entry = self._oauth.of_entry(provider, case.shared)
        if entry is None:
            return None
        found = Problems()
        client = self._oauth.client(provider, entry, section, case.path, found)
        if is_judged and not found:
            check_client(client, provider, case.path, found)
        case.problems.take(found)
        return client
