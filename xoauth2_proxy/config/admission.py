"""Judges an account that is to be added while the relay runs, as the admin server was sent it.

Who may add mailboxes is not thereby the owner of this machine, nor of the clients that the operator
has registered: a posted account names no file, variable or program, and where it uses a provider's
client, it does not say where that client's secrets and tokens go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.config.model import AccountSection
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.secret import SecretReference
from xoauth2_proxy.config.structure import malformed_keys, structured

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.config.model import ProviderSection
    from xoauth2_proxy.config.roster import Roster
    from xoauth2_proxy.config.source import ConfigSource

_PLACES = ("ca_file", "certificate", "service_account", "command")
_CLIENT = ("client_id", "client_secret", "certificate", "service_account", "command")
_DIRECTIONS = (
    *("authority", "authorization_url", "issuer", "oauth_token_url", "parameters", "upstream"),
)


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
) -> list[Account]:
    """Return the accounts that the documents make, in their order; blocks.

    They are judged beside each other and beside those there are now, but for `replaced`, the keys
    of added ones. With each document comes its JSON path.

    Raises:
        ConfigError: with every problem, or with those of the configuration file.
    """
    roster = source.roster(known_refreshers, environ, replaced)
    there = len(roster.reader.accounts)
    problems = Problems()
    for path, document in documents:
        found = Problems()
        _check_reach(document, path, roster, found)
        if not found:  # else no file or variable of its choice is looked at
            found = roster.reader.read_added(document, "the request", path)[1]
        problems.take(found)
    problems.raise_if_any()
    return roster.reader.accounts[there:]


def _check_reach(document: object, path: str, roster: Roster, problems: Problems) -> None:
    if not isinstance(document, dict):
        problems.add(path or "account", "must be an object")
        return
    if document.get("enabled") is False:
        problems.add(join(path, "enabled"), "must be true, or left out")
    # What is left of a malformed account is looked into as well, so it is judged here too.
    malformed = malformed_keys(AccountSection, document)
    rest = {key: value for key, value in document.items() if key not in malformed}
    stand_ins = {"email": "anyone@example.com", "provider": "none"}
    section = structured(AccountSection, stand_ins | rest, path, Problems())
    if section is None:
        return
    for key, problem in _overreaching(section, roster.entry_of(section.provider)):
        problems.add(join(path, *key.split(".")), problem)


def _overreaching(
    section: AccountSection, entry: ProviderSection | None
) -> Iterator[tuple[str, str]]:
    for key in _PLACES:
        if getattr(section, key) is not None:
            yield key, "is for the operator's file; write it into an entry of `providers`"
    if section.upstream is not None and section.upstream.ca_file is not None:
        yield "upstream.ca_file", "is for the operator's file"
    for key in AccountSection.model_fields:
        secret = getattr(section, key)
        if isinstance(secret, SecretReference) and not secret.text:
            yield key, "must be the text itself, no variable and no file"
    if entry is None or not any(getattr(entry, key) for key in _CLIENT):
        return
    for key in _DIRECTIONS:
        if getattr(section, key) is not None:
            yield key, f"cannot be changed here: {section.provider} has a client of its own"
