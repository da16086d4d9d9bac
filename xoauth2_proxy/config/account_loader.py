"""Reads who the relay is for: the providers, the file's accounts, and those added while it ran.

What is wrong in the file is a problem. An added account that is wrong is left out with a warning:
it was right when it was added, and must not keep the relay from starting. What such an account may
not say (`admission`) is asked of every one, also of those that the operator put there by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from xoauth2_proxy.config.account_reader import AccountReader, Premises
from xoauth2_proxy.config.built_in_providers import blank_provider, built_in_providers
from xoauth2_proxy.config.environment import check_authorities, is_loopback
from xoauth2_proxy.config.model import AdminSection, ProviderSection
from xoauth2_proxy.config.oauth_rules import check_fit
from xoauth2_proxy.config.posted_account_rules import check_reach
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.providers import (
    Provider,
    changed_provider,
    check_new_provider,
    check_use,
)
from xoauth2_proxy.config.runtime_accounts import account_key, accounts_directory, added_accounts
from xoauth2_proxy.config.validation import structured
from xoauth2_proxy.config.values import WORD, WORD_RULE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from xoauth2_proxy.config.json_file import Json
    from xoauth2_proxy.config.load_context import Reading
    from xoauth2_proxy.config.settings import ListenerConfig, StoreConfig


@dataclass(frozen=True, slots=True)
class Roster:
    """The accounts that were read, and what they were read with."""

    reader: AccountReader
    added: frozenset[str]  # keys of the accounts that are not the file's
    providers: Mapping[str, Provider | None]
    is_guarded: bool  # the file has a token for the admin server


def read_roster(
    reading: Reading, listener: ListenerConfig | None, store: StoreConfig, without: Collection[str]
) -> Roster:
    """Return all accounts but for added ones whose keys are in `without`.

    `listener` is None if its section is wrong.
    """
    providers = _providers(reading)
    premises = Premises(
        surroundings=reading.surroundings,
        providers=providers,
        is_listener_on_loopback=listener is None or is_loopback(listener.host),
    )
    reader = AccountReader(premises, reading.problems)
    accounts = reading.document.get("accounts")
    if "accounts" not in reading.document:
        reading.problems.add("accounts", "is required")
    elif not isinstance(accounts, list):
        reading.problems.add("accounts", "must be an array")
    else:
        for number, value in enumerate(accounts):
            reader.read(value, join("accounts", number))
    is_guarded = _is_guarded(reading)
    judge = partial(check_reach, path="", providers=providers, is_guarded=is_guarded)
    added = _read_added(reading, reader, store, without, judge)
    if isinstance(accounts, list) and not reader.enabled:
        if accounts and not added:
            reading.problems.add("accounts", "no account is enabled")
        elif not accounts:
            reading.warnings.append("there is no account yet: nobody can log in")
    return Roster(reader, added, providers, is_guarded)


def _is_guarded(reading: Reading) -> bool:
    section = structured(AdminSection, reading.document.get("admin", {}), "admin", Problems())
    return section is not None and section.token is not None


def _read_added(
    reading: Reading,
    reader: AccountReader,
    store: StoreConfig,
    without: Collection[str],
    judge: Callable[..., None],
) -> frozenset[str]:
    if not accounts_directory(reading.state_dir).exists():
        return frozenset()  # and no key is asked of a keyring
    try:
        found = added_accounts(reading.state_dir, store).read()
    except ValueError as error:
        if not reading.problems:  # among which may be the key itself
            reading.problems.add("store.keyring", str(error))
        return frozenset()
    left_out = [f"{file}: {why}" for file, why in found.unreadable]
    keys: set[str] = set()
    for file, document in found.documents:
        if account_key(document) in without:
            continue
        key, problems = "", Problems()
        judge(document, problems=problems)
        if not problems:
            key, problems = reader.read_added(document, file)
        if problems:
            left_out += [f"{file}: {where}: {what}" for where, what in problems.listed()]
        else:
            keys.add(key)
    reading.warnings.extend(f"an account that was added is left out: {one}" for one in left_out)
    return frozenset(keys)


def _providers(reading: Reading) -> dict[str, Provider | None]:
    built_in = built_in_providers(reading.state_dir)
    providers: dict[str, Provider | None] = dict(built_in)
    entries = reading.document.get("providers", {})
    if not isinstance(entries, dict):
        reading.problems.add("providers", "must be an object")
        return providers
    for name, value in entries.items():
        problems = Problems()
        providers[name] = _provider(reading, built_in.get(name), name, value, problems)
        reading.problems.take(problems)
    return providers


def _provider(
    reading: Reading, base: Provider | None, name: str, value: Json, problems: Problems
) -> Provider | None:
    path = join("providers", name)
    if not WORD.fullmatch(name):
        problems.add(path, f"the name {WORD_RULE}")
    section = structured(ProviderSection, value, path, problems)
    if section is None:
        return None
    known = reading.known_refreshers
    if section.refresher is not None and section.refresher not in known:
        problems.add(
            join(path, "refresher"),
            f"there is no refresher {section.refresher}; there are {', '.join(sorted(known))}",
        )
    if base is None:
        check_new_provider(section, path, problems)
        base = blank_provider(name, section.refresher or "")
    provider = changed_provider(base, section, reading.surroundings.directory)
    check_use(provider, provider.upstream, provider.limits, path, problems)
    check_fit(section, provider.name, provider.refresher, path, problems)
    if section.upstream and section.upstream.ca_file and provider.upstream.ca_file:
        check_authorities(provider.upstream.ca_file, join(path, "upstream", "ca_file"), problems)
    return None if problems else provider
