"""Judges accounts that are not the file's: when they are posted, and again whenever they are read.

Who may add mailboxes is not thereby the owner of this machine, nor of the clients that the operator
has registered: such an account names no file, variable or program, and where it uses a provider's
client, it does not say where that client's secrets and tokens go, nor for what it is used. It is
judged beside the file as it is now, for the operator may have registered a client since.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.config.model import AccountSection
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.secret import SecretReference
from xoauth2_proxy.config.validation import malformed_keys, structured

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.config.model import ProviderSection
    from xoauth2_proxy.config.providers import Provider
    from xoauth2_proxy.config.source import ConfigSource

_PLACES = ("ca_file", "certificate", "service_account", "command")
_CLIENT = ("client_id", "client_secret", "certificate", "service_account", "command")
_DIRECTIONS = (
    *("authority", "authorization_url", "grant", "issuer", "oauth_token_url", "parameters"),
    *("scopes", "tenant", "upstream"),
)
# What a program may be given as a word or a file's name without being led elsewhere.
_PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9._+@-]+", re.ASCII)


def check_account(
    document: object,
    source: ConfigSource,
    *,
    known_refreshers: Collection[str],
    environ: Mapping[str, str],
) -> Account:
    """Return the account that `document` makes beside those there are now; blocks.

    Raises:
        ConfigError: with JSON paths that begin in the account, or in the configuration file if
            that has become wrong itself.
    """
    (account,) = check_accounts(
        [("", document)], source, known_refreshers=known_refreshers, environ=environ
    )
    return account


def check_accounts(
    documents: Iterable[tuple[str, object]],
    source: ConfigSource,
    *,
    known_refreshers: Collection[str],
    environ: Mapping[str, str],
    replaced: Collection[str] = frozenset(),
    has_token: bool = True,
) -> list[Account]:
    """Return the accounts that the documents make, in their order; blocks.

    They are judged beside each other and beside those there are now, but for `replaced`, the keys
    of added ones. With each document comes its JSON path. `has_token` is False where anybody on
    this machine can ask, because the admin server that runs was started without a token.

    Raises:
        ConfigError: with every problem, or with those of the configuration file.
    """
    roster = source.roster(known_refreshers, environ, replaced)
    there = len(roster.reader.accounts)
    is_guarded = has_token and roster.is_guarded
    problems = Problems()
    for path, document in documents:
        found = Problems()
        if isinstance(document, dict) and document.get("enabled") is False:
            found.add(join(path, "enabled"), "must be true, or left out")
        check_reach(document, path, roster.providers, found, is_guarded=is_guarded)
        if not found:  # else no file or variable of its choice is looked at
            found = roster.reader.read_added(document, "the request", path)[1]
        problems.take(found)
    problems.raise_if_any()
    return roster.reader.accounts[there:]


def check_reach(
    document: object,
    path: str,
    providers: Mapping[str, Provider | None],
    problems: Problems,
    *,
    is_guarded: bool,
) -> None:
    """Note what an account that is not the file's may not say; `path` is its JSON path.

    `is_guarded` says whether the admin server asks for a token.
    """
    if not isinstance(document, dict):
        problems.add(path or "account", "must be an object")
        return
    # What is left of a malformed account is looked into as well, so it is judged here too.
    malformed = malformed_keys(AccountSection, document)
    rest = {key: value for key, value in document.items() if key not in malformed}
    stand_ins = {"email": "anyone@example.com", "provider": "none"}
    section = structured(AccountSection, stand_ins | rest, path, Problems())
    if section is None:
        return
    provider = providers.get(section.provider)
    faults = [*_overreaching(section), *_misdirected(section)]
    if provider is not None:
        faults += _unfit_for_programs(section, provider)
        if provider.entry is not None:
            faults += _diverting(section, provider.entry)
            if not is_guarded:
                faults += _open_to_all(provider.entry)
    for key, problem in faults:
        problems.add(join(path, *key.split(".")), problem)


def _overreaching(section: AccountSection) -> Iterator[tuple[str, str]]:
    for key in _PLACES:
        if getattr(section, key) is not None:
            yield key, "is for the operator's file; write it into an entry of `providers`"
    if section.upstream is not None and section.upstream.ca_file is not None:
        yield "upstream.ca_file", "is for the operator's file"
    for key in AccountSection.model_fields:
        secret = getattr(section, key)
        if isinstance(secret, SecretReference) and not secret.text:
            yield key, "must be the text itself, no variable and no file"


def _misdirected(section: AccountSection) -> Iterator[tuple[str, str]]:
    """Find a code that one server gave out and another would be sent."""
    begin, end = section.authorization_url, section.oauth_token_url
    if begin and end and urlsplit(begin).hostname != urlsplit(end).hostname:
        yield (
            "oauth_token_url",
            "must be of the same host as authorization_url; write others into an entry of "
            "`providers`",
        )


def _unfit_for_programs(section: AccountSection, provider: Provider) -> Iterator[tuple[str, str]]:
    email = section.email
    if provider.refresher == "command" and (
        not _PLAIN_ADDRESS.fullmatch(email) or ".." in email or email.startswith("-")
    ):
        yield (
            "email",
            f"has characters that the program of {provider.name} might misread; write the account "
            "into the operator's file",
        )


def _diverting(section: AccountSection, entry: ProviderSection) -> Iterator[tuple[str, str]]:
    if not any(getattr(entry, key) for key in _CLIENT):
        return
    for key in _DIRECTIONS:
        if getattr(section, key) is not None:
            yield key, f"cannot be changed here: {section.provider} has a client of its own"


def _open_to_all(entry: ProviderSection) -> Iterator[tuple[str, str]]:
    """Find a client that opens any mailbox of its organisation to whoever adds it."""
    if entry.service_account is not None or entry.grant not in {None, GrantType.REFRESH_TOKEN}:
        yield (
            "provider",
            "opens every mailbox of its organisation to who may add one: set admin.token and "
            "restart, or write the account into the operator's file",
        )
