"""Loads the accounts of the file, the accounts added at run time, and an account to be added.

The keys of an account are checked one by one, then with one another, with its provider and with the
other accounts. What is wrong with one account hides nothing that is wrong with another. In the file
it is a problem. An added account that is wrong is left out with a warning: it was right when it was
added, and must not keep the proxy from starting.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
from xoauth2_proxy.accounts.built_in_providers import unknown_provider
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.config.account_sections import AccountSection
from xoauth2_proxy.config.from_section import rewrite_faults
from xoauth2_proxy.config.oauth_rules import (
    client_warnings,
    keys_of_other_grants,
    missing_keys,
    unsupported_keys,
)
from xoauth2_proxy.config.plug_in_options import read_options
from xoauth2_proxy.config.posted_account_rules import faults_of_posted
from xoauth2_proxy.config.problems import Fault, Problem, beneath, shown
from xoauth2_proxy.config.provider_loader import is_written, with_changes
from xoauth2_proxy.config.section import validate
from xoauth2_proxy.mailboxes.runtime_accounts import account_key
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from xoauth2_proxy.accounts.providers import Provider
    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.sections import FileSection
    from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts

# In the place of keys that are wrong, so that the account's other keys can be checked.
_STAND_INS = {"email": "anyone@example.com", "password": "any"}


class AccountLoader:
    """Loads accounts one after the other; each must agree with those before it."""

    def __init__(
        self,
        settings: FileSection,
        providers: Mapping[str, Provider | None],
        environment: Environment,
    ) -> None:
        """A provider that is None has an entry that is wrong, which was told already."""
        self.accounts: list[Account] = []  # those that are right and enabled
        self.disabled: list[DisabledAccount] = []
        self.sandbox_accounts: set[str] = set()
        self.runtime_keys: set[str] = set()  # of accounts that were added
        self._settings = settings
        self._providers = providers
        self._environment = environment
        self._places: dict[tuple[str, str], str] = {}  # (key, value) -> where it is written first
        self._notes: Counter[str] = Counter()  # warnings, with the number of accounts

    def load(
        self, value: object, path: str, origin: str = "", *, has_token: bool = True
    ) -> list[Problem]:
        """Load the account at a JSON path; return what is wrong with it.

        `origin` names where it comes from, if that is not the configuration file. `has_token` is
        False if the admin server that runs asks for no token, whatever the file says by now.
        """
        if origin and not isinstance(value, dict):
            return [(path or "account", "must be an object")]
        environment = replace(self._environment, is_posted=bool(origin))
        lookup = None if is_disabled(value) else environment
        section, malformed = validate(AccountSection, value, path, lookup, _STAND_INS)
        problems = [*self._repetitions(value, path, origin), *malformed]
        missing: Sequence[Problem] = ()
        if section is not None:
            account, faults, missing = self._check(section, not malformed, origin, has_token)
            if account and lookup and not missing:
                account, found = _with_options(account, section.options, lookup)
                faults += found
            problems += beneath(path, faults)
            if account and not (problems or missing):
                self._add(account, section)
        if not origin:
            label = _label(value, path, malformed)
            problems = [(where, fault + label) for where, fault in problems]
        return [*missing, *problems]

    def load_runtime(self, accounts: RuntimeAccounts, without: Collection[str]) -> list[str]:
        """Load the accounts that were added, but for those whose keys are in `without`.

        Return a warning for each that is left out.
        """
        documents, left_out = accounts.read()
        for file, document in documents:
            key = account_key(document)
            if key in without:
                continue
            problems = self.load(document, "", file)
            left_out += [f"{file}: {path}: {fault}" for path, fault in shown(problems)]
            if not problems:
                self.runtime_keys.add(key)
        return [f"an account that was added is left out: {one}" for one in left_out]

    def warnings(self) -> Iterator[str]:
        """Yield what the operator should know although nothing is wrong."""
        for note, count in self._notes.items():
            yield f"{count} account(s) of provider {note}"

    def _check(
        self, section: AccountSection, is_whole: bool, origin: str, has_token: bool
    ) -> tuple[Account | None, list[Fault], Sequence[Problem]]:
        """Return the account, what does not go together in it, and what its provider lacks.

        `is_whole` says that each of its keys is right by itself.
        """
        provider = self._providers.get(section.provider)
        settings = self._settings
        faults: list[Fault] = []
        if section.provider not in self._providers:
            faults.append(("provider", unknown_provider(section.provider, self._providers)))
        if (
            section.allow_any_password
            and section.enabled
            and not all(one.is_on_loopback for one in settings.listening.values())
        ):
            faults.append(("allow_any_password", "is for listeners on loopback only"))
        if provider is None:
            return None, faults, ()
        is_guarded = has_token and bool(settings.admin.token)
        if origin and (refused := [*faults_of_posted(section, provider, is_guarded=is_guarded)]):
            return None, faults + refused, ()
        account = _account(section, provider)
        faults += _faults(section, provider, account, is_whole=is_whole)
        return account, faults, provider.missing if section.enabled else ()

    def _repetitions(self, value: object, path: str, origin: str) -> Iterator[Problem]:
        """Yield a problem for what is written in an account and in another one already.

        A mailbox and the login of a credential are both what a client types.
        """
        for kind, name, where in _identities(value, path):
            here = f"{where} in {origin}" if origin else where
            first = self._places.setdefault((kind, name), here)
            if first == here:
                continue
            fault = f"is the same as {first}"
            if origin:
                place = "" if " in " in first else " in the configuration file"
                fault += f"{place}; one of the two must go"
            yield where, fault

    def _add(self, account: Account, section: AccountSection) -> None:
        provider = self._providers[section.provider]
        if not section.enabled or provider is None:
            self.disabled.append(DisabledAccount(account.email, account.provider))
            return
        self.accounts.append(account)
        for note in client_warnings(account.oauth, provider):
            self._notes[f"{provider.name} {note}"] += 1
        is_placed = is_written(section.upstream) or provider.is_upstream_written
        if provider.is_left_to_sandbox(account.oauth) and not is_placed:
            self.sandbox_accounts.add(account.key)


def _identities(value: object, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield what must be unique in an account: of what kind it is, how it compares, and where."""
    if not isinstance(value, dict):
        return
    written = [(key, value.get(key), json_path(path, key)) for key in ("email", "account_id")]
    credentials = value.get("credentials")
    for number, one in enumerate(credentials if isinstance(credentials, list) else ()):
        if not isinstance(one, dict):
            continue
        name, place = one.get("name"), json_path(path, "credentials", number)
        written.append((f"name in {path}", name, json_path(place, "name")))
        if "login" in one or "password" in one:
            key = "login" if "login" in one else "name"
            written.append(("email", one.get(key), json_path(place, key)))
    for kind, name, where in written:
        if isinstance(name, str) and name:
            yield kind, login_key(name) if kind == "email" else name, where


def is_disabled(value: object) -> bool:
    """Whether what is written is an account that is disabled."""
    return isinstance(value, dict) and value.get("enabled") is False


def _account(section: AccountSection, provider: Provider) -> Account:
    """Return the account; if it is disabled or its client's secrets are missing, without them."""
    is_usable = section.enabled and not provider.missing
    return Account(
        email=section.email,
        provider=section.provider,
        refresher=provider.refresher,
        plug_in=provider.plug_in,
        upstream=with_changes(provider.upstream, section.upstream),
        limits=with_changes(provider.limits, section.limits),
        verifies=section.recipients == "verified",
        password=section.password,
        allow_any_password=section.allow_any_password,
        client_tokens=section.client_tokens,
        credentials=tuple(one.credential() for one in section.credentials),
        senders=section.senders,
        from_rule=None if section.from_ is None else section.from_.rule(),
        oauth=provider.client_of(section.client_fields()) if is_usable else OAuthClient(),
    )


def _with_options(
    account: Account, own: Mapping[str, object] | None, environment: Environment
) -> tuple[Account, list[Problem]]:
    """Return the account with the options that its refresher declares, and what is wrong.

    Those of its provider are the operator's, who may name files and variables.
    """
    info, client = account.refresher_info, account.oauth
    _, problems = read_options(own, info, environment, is_whole=False)
    if not problems:
        operators = replace(environment, is_posted=False)
        options, problems = read_options(client.options, info, operators)
        account = replace(account, oauth=replace(client, options=options))
    return account, problems


def _faults(
    section: AccountSection, provider: Provider, account: Account, *, is_whole: bool
) -> Iterator[Fault]:
    """Yield what does not go together; `is_whole` says that no key of the account was wrong."""
    yield from provider.faults_of_use(account.upstream, account.limits)
    host = account.upstream.host
    if not host and is_whole:
        yield "upstream.host", f"is required, here or in {provider.name}"
    if provider.refresher == MOCK and not is_loopback(host) and not section.allow_remote_mock:
        has_host = section.upstream is not None and section.upstream.host is not None
        yield (
            "upstream.host" if has_host else "provider",
            f"a mock account may not use another machine, {host}, "
            'unless it has "allow_remote_mock": true',
        )
    yield from rewrite_faults(account)
    faults = [*unsupported_keys(section, provider)]
    if section.enabled and not provider.missing:
        faults += keys_of_other_grants(account.oauth, section)
        if is_whole and not faults:
            faults += missing_keys(account.oauth, provider)
    yield from faults


def _label(value: object, path: str, malformed: list[Problem]) -> str:
    """Return what an account of the file is recognised by, as far as it is right."""
    wrong = {where for where, _ in malformed}
    names = [
        words + str(value[key])
        for key, words in (("email", ""), ("account_id", "account_id "))
        if isinstance(value, dict) and key in value and json_path(path, key) not in wrong
    ]
    return f" ({', '.join(names)})" if names else ""
