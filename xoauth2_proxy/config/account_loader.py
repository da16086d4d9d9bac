"""Turns the accounts of the file, and those added while the relay ran, into ones that can be used.

What is wrong with one account never hides what is wrong with another. What is wrong in the file is
a problem. An added account that is wrong is left out with a warning: it was right when it was
added, and must not keep the relay from starting.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pydantic import TypeAdapter, ValidationError

from xoauth2_proxy.accounts.accounts import Account, login_key
from xoauth2_proxy.config.account_sections import AccountSection
from xoauth2_proxy.config.oauth_rules import contradictions, misfits, missing_keys, noteworthy
from xoauth2_proxy.config.posted_account_rules import faults_of_posted
from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.config.provider_loader import unknown_provider
from xoauth2_proxy.config.providers import MOCK, Provider, is_written, with_changes
from xoauth2_proxy.config.runtime_accounts import account_key
from xoauth2_proxy.config.validation import validate_remainder
from xoauth2_proxy.config.values import Address
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from xoauth2_proxy.accounts.accounts import Limits, Upstream
    from xoauth2_proxy.accounts.oauth_client import OAuthClient
    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.load_context import LoadContext
    from xoauth2_proxy.config.runtime_accounts import RuntimeAccounts

_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)
_LONGEST_LABEL = 200  # characters, as for the key
_STAND_INS = {"email": "anyone@example.com", "password": "any"}


class _AccountAsWritten(NamedTuple):
    section: AccountSection  # without its keys that are wrong
    provider: Provider | None
    is_whole: bool  # no key was wrong


class AccountLoader:
    """Loads accounts one after the other, and keeps the sum of what it loaded."""

    def __init__(
        self,
        context: LoadContext,
        providers: Mapping[str, Provider | None],
        *,
        is_listener_on_loopback: bool,
        is_guarded: bool,
    ) -> None:
        """`is_guarded` says whether the admin server asks for a token.

        A provider that is None is wrong, which was told already.
        """
        self.accounts: list[Account] = []
        self.enabled = 0
        self.disabled = 0
        self.sandbox_accounts: set[str] = set()
        self.runtime_keys: set[str] = set()  # of accounts that were added
        self.is_guarded = is_guarded
        self._context = context
        self._providers = providers
        self._is_listener_on_loopback = is_listener_on_loopback
        self._taken: dict[tuple[str, str], str] = {}  # (key, value) -> where it is written
        self._notes: Counter[str] = Counter()  # what is noteworthy, with the number of accounts

    def load(self, value: object, path: str) -> None:
        """Load an account of the file; it joins `accounts` if it is enabled and right."""
        problems = Problems()
        self._claim(value, path, problems)
        written = self._as_written(value, path, problems, self._context.environment)
        if written:
            self._join(written, path, problems, self._context.problems)
        self._count(is_enabled=written is None or written.section.enabled)
        self._context.problems.take(problems, _label(value))

    def load_posted(
        self, value: object, place: str, path: str = "", *, is_guarded: bool
    ) -> tuple[str, Problems]:
        """Load an account that is not the file's; return its key, and what is wrong with it.

        It joins the others only if nothing is wrong. `place` is where it is, for messages; `path`
        is its JSON path there.
        """
        problems = Problems()
        if not isinstance(value, dict):
            problems.add(path or "account", "must be an object")
            return "", problems
        self._claim(value, path, problems, f" in {place}")
        environment = replace(self._context.environment, is_posted=True)
        written = self._as_written(value, path, problems, environment)
        if written is None:
            return "", problems
        section, provider, _ = written
        faults = [*faults_of_posted(section, provider, is_guarded=is_guarded)]
        problems.add_faults(path, faults)
        if not faults:
            self._join(written, path, problems, problems)
        if problems:
            return "", problems
        self._count(is_enabled=section.enabled)
        return login_key(section.email), problems

    def load_runtime(self, accounts: RuntimeAccounts, without: Collection[str]) -> None:
        """Load the accounts that were added, but for those whose keys are in `without`."""
        found = accounts.read()
        left_out = [f"{file}: {why}" for file, why in found.unreadable]
        for file, document in found.documents:
            if account_key(document) in without:
                continue
            key, problems = self.load_posted(document, file, is_guarded=self.is_guarded)
            if problems:
                left_out += [f"{file}: {where}: {what}" for where, what in problems.listed()]
            else:
                self.runtime_keys.add(key)
        self._context.warnings.extend(
            f"an account that was added is left out: {one}" for one in left_out
        )

    def warnings(self) -> Iterator[str]:
        """Yield what the operator should know although nothing is wrong."""
        for note, count in self._notes.items():
            yield f"{count} account(s) of provider {note}"

    def _count(self, *, is_enabled: bool) -> None:
        self.enabled += is_enabled
        self.disabled += not is_enabled

    def _as_written(
        self, value: object, path: str, problems: Problems, environment: Environment
    ) -> _AccountAsWritten | None:
        """Return the account as far as it can be judged; a disabled one is judged by its shape."""
        is_off = isinstance(value, dict) and value.get("enabled") is False
        faults = Problems()
        section = validate_remainder(
            AccountSection, value, path, faults, None if is_off else environment, _STAND_INS
        )
        problems.take(faults)
        if section is None:
            return None
        provider = self._providers.get(section.provider)
        if section.provider not in self._providers:
            unknown = unknown_provider(section.provider, self._providers)
            problems.add(json_path(path, "provider"), unknown)
        return _AccountAsWritten(section, provider, not faults)

    def _claim(self, value: object, path: str, problems: Problems, place: str = "") -> None:
        """Note a mailbox or an `account_id` that another account has already."""
        if not isinstance(value, dict):
            return
        for key in ("email", "account_id"):
            written = value.get(key)
            if not isinstance(written, str) or not written:
                continue
            where = json_path(path, key) + place
            name = login_key(written) if key == "email" else written
            first = self._taken.setdefault((key, name), where)
            if first == where:
                continue
            fault = f"is the same as {first}"
            if place:
                there = "" if " in " in first else " in the configuration file"
                fault += f"{there}; one of the two must go"
            problems.add(json_path(path, key), fault)

    def _join(
        self, written: _AccountAsWritten, path: str, problems: Problems, shared: Problems
    ) -> None:
        """Let the account join the others if it is enabled and right.

        `shared` is where the problems of its provider go, which are told once.
        """
        section, provider, is_whole = written
        if section.allow_any_password and section.enabled and not self._is_listener_on_loopback:
            problems.add(
                json_path(path, "allow_any_password"), "is for a listener on loopback only"
            )
        if provider is None:
            return
        upstream = with_changes(provider.upstream, section.upstream)
        limits = with_changes(provider.limits, section.limits)
        problems.add_faults(path, provider.faults_of_use(upstream, limits))
        problems.add_faults(path, _faults_of_upstream(section, provider, upstream, is_whole))
        faults = [*misfits(section, provider)]
        if section.enabled and not provider.missing:
            client = provider.client_of(section.client_fields())
            faults += contradictions(client, section)
            if is_whole and not faults:
                faults += missing_keys(client, provider)
            problems.add_faults(path, faults)
            if not problems:
                self._add(section, provider, upstream, limits, client)
        else:
            problems.add_faults(path, faults)
            if section.enabled:
                shared.take(provider.missing)

    def _add(
        self,
        section: AccountSection,
        provider: Provider,
        upstream: Upstream,
        limits: Limits,
        client: OAuthClient,
    ) -> None:
        account = Account(
            email=section.email,
            provider=section.provider,
            refresher=provider.refresher,
            upstream=upstream,
            limits=limits,
            verifies=section.recipients == "verified",
            password=section.password,
            oauth=client,
        )
        self.accounts.append(account)
        self._notes.update(f"{provider.name} {note}" for note in noteworthy(client, provider))
        is_placed = is_written(section.upstream) or provider.is_upstream_written
        if provider.refresher == MOCK and not is_placed:
            self.sandbox_accounts.add(account.key)


def _faults_of_upstream(
    section: AccountSection, provider: Provider, upstream: Upstream, is_whole: bool
) -> Iterator[tuple[str, str]]:
    if not upstream.host and is_whole:
        yield "upstream.host", f"is required, here or in {provider.name}"
    is_mock = provider.refresher == MOCK
    if is_mock and not is_loopback(upstream.host) and not section.allow_remote_mock:
        has_host = section.upstream is not None and section.upstream.host is not None
        yield (
            "upstream.host" if has_host else "provider",
            f"a mock account may not use another machine, {upstream.host}, "
            'unless it has "allow_remote_mock": true',
        )


def _label(value: object) -> str:
    """Return what an account of the file is recognised by, as far as it is right."""
    written = value if isinstance(value, dict) else {}
    names = []
    with suppress(ValidationError):
        names.append(_ADDRESS.validate_python(written.get("email"), strict=True))
    if isinstance(label := written.get("account_id"), str) and label:
        names.append(f"account_id {label[:_LONGEST_LABEL]}")
    return f" ({', '.join(names)})" if names else ""
