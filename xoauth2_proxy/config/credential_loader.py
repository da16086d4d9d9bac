"""Loads the credentials that were made at run time, and one to be made.

They join the accounts that are in force. One that is wrong by now, because the file has changed, is
left out with a warning: it was right when it was made, and must not keep the proxy from starting.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.config.credential_section import CredentialSection
from xoauth2_proxy.config.environment import Environment
from xoauth2_proxy.config.from_section import rewrite_fault
from xoauth2_proxy.config.problems import beneath, raise_if_any, shown
from xoauth2_proxy.config.section import validate
from xoauth2_proxy.mailboxes.runtime_credentials import MAILBOX, credential_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.config.problems import Problem
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials

# Whoever makes a credential does not own this machine: it names no file and no variable.
_NOWHERE = Environment(directory=Path(), state_dir=Path(), environ={}, is_posted=True)


def with_made_credentials(
    accounts: Iterable[Account], disabled: Iterable[DisabledAccount], files: RuntimeCredentials
) -> tuple[tuple[Account, ...], frozenset[str], list[str]]:
    """Return the accounts with the credentials that were made, their keys, and warnings.

    Each warning is about a credential that is left out. It blocks.
    """
    by_key = {account.key: account for account in accounts}
    resting = {account.key for account in disabled}
    logins = {*by_key, *resting, *(one.key for a in by_key.values() for one in a.credentials)}
    made: set[str] = set()
    documents, left_out = files.read()
    for file, document in documents:
        mailbox = login_key(str(document.get(MAILBOX, "")))
        account = by_key.get(mailbox)
        if account is None:
            if mailbox not in resting:
                left_out.append(f"{file}: there is no mailbox {mailbox}; remove the file")
            continue
        credential, problems = _read(document, account, logins.__contains__)
        if credential is None:
            left_out += [f"{file}: {path}: {fault}" for path, fault in shown(problems)]
            continue
        by_key[mailbox] = replace(account, credentials=(*account.credentials, credential))
        logins.add(credential.key)
        made.add(credential_key(mailbox, credential.name))
    warnings = [f"a credential that was made is left out: {one}" for one in left_out]
    return tuple(by_key.values()), frozenset(made), warnings


def check_credential(
    document: Mapping[str, object],
    account: Account,
    accounts: Mapping[str, Account],
    disabled: Iterable[DisabledAccount],
) -> Credential:
    """Return the new credential that the document describes for an account of those in force.

    The addresses of `disabled` accounts are logins as well.
    Raises `ConfigError` with every problem.
    """

    own = {*accounts, *(one.key for one in disabled)}

    def is_taken(login: str) -> bool:
        return login in own or any(
            one.key == login for other in accounts.values() for one in other.credentials
        )

    credential, problems = _read(document, account, is_taken)
    if credential is not None and credential.is_expired(time.time()):
        problems.append(("expires", "is over already; give a later date, or leave it out"))
    raise_if_any(problems)
    assert credential is not None  # noqa: S101 - nothing was wrong with it
    return credential


def _read(
    document: Mapping[str, object], account: Account, is_taken: Callable[[str], bool]
) -> tuple[Credential | None, list[Problem]]:
    keys = {key: value for key, value in document.items() if key != MAILBOX}
    section, problems = validate(CredentialSection, keys, "", _NOWHERE)
    if section is None:
        return None, problems
    credential = section.credential()
    if credential.name in _names(account):
        problems.append(("name", f"is the name of another credential of {account.email}"))
    elif credential.login and is_taken(credential.key):
        where = "login" if section.login else "name"
        problems.append((where, f"{credential.login} is a login already; give another login"))
    problems += beneath("", rewrite_fault(account, credential))
    return (None, problems) if problems else (credential, [])


def _names(account: Account) -> Collection[str]:
    return {one.name for one in account.credentials}
