"""Rules for accounts that are not in the file: those being added, and those that were added.

A client that may add mailboxes owns neither this machine nor the OAuth clients that the operator
has registered. So its accounts name no file, variable or program (`Environment.is_posted`). If they
use a provider's client, they do not say where its secrets and tokens go, or what it is used for.
They are checked against the file as it is now: the operator may have registered a client since.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.accounts.providers import Provider
    from xoauth2_proxy.config.account_sections import AccountSection
    from xoauth2_proxy.config.problems import Fault

_DIRECTIONS = (
    *("authority", "authorization_url", "grant", "issuer", "oauth_token_url", "options"),
    *("parameters", "scopes", "tenant", "upstream"),
)
# What a program may be given as a word or a file's name without being led elsewhere.
_PLAIN_ADDRESS = re.compile(r"[A-Za-z0-9._+@-]+", re.ASCII)


def faults_of_posted(
    section: AccountSection, provider: Provider, *, is_guarded: bool
) -> Iterator[Fault]:
    """Yield the keys that a posted account may not have, and why.

    `is_guarded` says whether the admin server asks for a token.
    """
    begin, end = section.authorization_url, section.oauth_token_url
    if begin and end and urlsplit(begin).hostname != urlsplit(end).hostname:
        # A code that one server gave out would be sent to another.
        yield (
            "oauth_token_url",
            "must be of the same host as authorization_url; write others into an entry of "
            "`providers`",
        )
    if section.credentials:
        yield "credentials", "are added one by one, once the account exists"
    email = section.email
    if provider.refresher == "command" and (
        not _PLAIN_ADDRESS.fullmatch(email) or ".." in email or email.startswith("-")
    ):
        yield (
            "email",
            f"has characters that the program of {provider.name} might misread; write the account "
            "into the operator's file",
        )
    if provider.has_own_client:
        for key in _DIRECTIONS:
            if getattr(section, key) is not None:
                yield key, f"cannot be changed here: {provider.name} has a client of its own"
    if provider.opens_every_mailbox and not is_guarded:
        # Any client that can add a mailbox would open all of the organization's.
        yield (
            "provider",
            "opens every mailbox of its organisation to who may add one: set admin.token and "
            "restart, or write the account into the operator's file",
        )
