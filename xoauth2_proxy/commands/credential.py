"""`xoauth2-proxy credential`: by the proxy that runs, or in its files when none does.

Without `admin.token`, the running proxy makes no credentials for mailboxes of the configuration
file, since any user of the machine could ask. The user whose files these are may write them: the
command does that, and has the proxy read them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.commands.admin_api import AdminApi, NoAnswer, Refused
from xoauth2_proxy.commands.configured_account import (
    DONE,
    FAILED,
    WRONG_USAGE,
    Failed,
    configured_account,
)
from xoauth2_proxy.commands.suggestions import unknown
from xoauth2_proxy.config.credential_loader import check_credential
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.mailboxes.credential_changes import (
    ListedCredential,
    hashed,
    listed_credentials,
    with_key,
)
from xoauth2_proxy.mailboxes.runtime_credentials import credential_document, credential_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials

# What keys of a credential are called on the command line.
_WORDS = {"name": "NAME", "networks": "--network", "senders": "--sender"}
_VERSION = 1  # of the JSON documents


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialOptions:
    """Whose credentials, and which proxy is asked."""

    mailbox: str
    url: str = field(repr=False)  # it may contain a password
    token: str = field(repr=False)
    is_url_given: bool  # then nothing is done in files
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialFiles:
    """What a proxy has on this machine."""

    config: Config
    open_made: Callable[[], RuntimeCredentials]


async def add(
    options: CredentialOptions,
    keys: dict[str, Any],
    files: CredentialFiles | None,
    console: Console,
    *,
    has_password: bool,
) -> int:
    """Make a credential with these keys of the configuration, and print its password once."""
    api = AdminApi(options.url, options.token)
    try:
        if files is not None and not options.is_url_given and _is_for_files(options, files):
            made = await asyncio.to_thread(_add_in_files, options, keys, files, has_password)
            note = await _have_it_read(api)
        else:
            try:
                posted = keys if has_password else keys | {"no_password": True}
                made, note = await api.add_credential(options.mailbox, posted), ""
            except NoAnswer as error:
                here = _files_instead(api, options, files, error)
                made = await asyncio.to_thread(_add_in_files, options, keys, here, has_password)
                note = _no_proxy(api)
    except (Refused, Failed, ConfigError) as error:
        return _complain(error, console)
    _show_made(options, made, console)
    if note:
        console.tell(note)
    return DONE


async def revoke(
    options: CredentialOptions, name: str, files: CredentialFiles | None, console: Console
) -> int:
    """Revoke a credential that was made with `add` or on the admin page."""
    api, note = AdminApi(options.url, options.token), ""
    try:
        try:
            await api.revoke_credential(options.mailbox, name)
        except NoAnswer as error:
            here = _files_instead(api, options, files, error)
            await asyncio.to_thread(_revoke_in_files, options.mailbox, name, here)
            note = _no_proxy(api)
    except (Refused, Failed) as error:
        return _complain(error, console)
    if options.is_json:
        console.show_json({"version": _VERSION, "mailbox": options.mailbox, "revoked": name})
    else:
        console.say(f"Revoked: {name} of {options.mailbox}.")
    if note and not options.is_json:
        console.tell(note)
    return DONE


async def show(options: CredentialOptions, files: CredentialFiles | None, console: Console) -> int:
    """List a mailbox's credentials, as the files say; with --url, as the running proxy does."""
    try:
        if files is None or options.is_url_given:
            api = AdminApi(options.url, options.token)
            try:
                rows = await api.credentials(options.mailbox)
            except NoAnswer as error:
                raise Failed(f"the proxy could not be asked at {api.shown}: {error}") from None
        else:
            account = configured_account(options.mailbox, files.config)
            made = files.config.runtime_credentials
            rows = [one.to_json() for one in listed_credentials(account, made)]
    except (Refused, Failed) as error:
        return _complain(error, console)
    if options.is_json:
        document = {"version": _VERSION, "mailbox": options.mailbox, "credentials": rows}
        console.show_json(document)
        return DONE
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Name", "Login", "Proof", "State", "Source", "Networks"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [row["name"], row["login"] or "-", row["proof"], row["state"], row["source"]]
        networks = ", ".join(row["networks"]) or "any"
        table.add_row(*(Text(str(cell)) for cell in (*cells, networks)))
    if rows:
        console.out.print(table)
    console.say(f"{len(rows)} credential{'s'[: len(rows) != 1]}")
    return DONE


def _is_for_files(options: CredentialOptions, files: CredentialFiles) -> bool:
    """Whether a running proxy would refuse to do it, since it asks nobody for a token."""
    account = configured_account(options.mailbox, files.config)
    is_written = account.key not in files.config.runtime_accounts
    return not options.token and is_written and account.refresher != MOCK


def _add_in_files(
    options: CredentialOptions, keys: dict[str, Any], files: CredentialFiles, has_password: bool
) -> dict[str, Any]:
    account = configured_account(options.mailbox, files.config)
    document, key = with_key(keys) if has_password else (keys, "")
    accounts = {one.key: one for one in files.config.accounts}
    credential = check_credential(document, account, accounts, files.config.disabled)
    document, credential = hashed(document, credential)
    try:
        files.open_made().add(credential_document(account.key, document))
    except OSError as error:
        raise Failed(f"the credential cannot be saved: {error.strerror or error}") from None
    shown = ListedCredential(credential, "made").to_json()
    return shown | ({"password": key} if key else {})


def _revoke_in_files(mailbox: str, name: str, files: CredentialFiles) -> None:
    config = files.config
    account = configured_account(mailbox, config)
    key = credential_key(account.key, name)
    if key not in config.runtime_credentials:
        if any(one.name == name for one in account.credentials):
            raise Failed(
                f"the credential {name} is defined in the configuration file: remove it there, or "
                'write "enabled": false',
                WRONG_USAGE,
            )
        known = [one.name for one in account.credentials]
        raise Failed(unknown("credential", name, known), WRONG_USAGE)
    try:
        files.open_made().remove(key)
    except OSError as error:
        raise Failed(f"{name} cannot be revoked: {error.strerror or error}") from None


async def _have_it_read(api: AdminApi) -> str:
    """Have the proxy, if one runs, read the files; return what is to be told of that."""
    try:
        await api.reload()
    except NoAnswer as error:
        if error.is_absent:
            return _no_proxy(api)
        return f"The proxy could not be told: {error}; send it SIGHUP, or restart it"
    except Refused as error:
        return f"The proxy could not read its configuration again: {error}"
    return ""


def _files_instead(
    api: AdminApi, options: CredentialOptions, files: CredentialFiles | None, error: NoAnswer
) -> CredentialFiles:
    if files is None or options.is_url_given or not error.is_absent:
        raise Failed(f"the proxy could not be asked at {api.shown}: {error}; look at --url")
    return files


def _no_proxy(api: AdminApi) -> str:
    return (
        f"No proxy answered at {api.shown}, so this was done in its files; one that runs with "
        "another admin address takes it up when it is restarted."
    )


def _show_made(options: CredentialOptions, made: dict[str, Any], console: Console) -> None:
    if options.is_json:
        console.show_json({"version": _VERSION, "mailbox": options.mailbox, "credential": made})
        return
    console.say(f"Added: {made['name']} may send as {options.mailbox}.")
    if password := made.get("password"):
        console.say(f"User name: {made['login']}")
        console.say(f"Password:  {password}")
        console.tell("The password is shown only now; the proxy keeps a digest of it.")
    else:
        console.say(f"Without a login, from: {', '.join(made['networks'])}")


def _complain(error: Refused | Failed | ConfigError, console: Console) -> int:
    if isinstance(error, ConfigError):
        for path, problem in error.problems:
            option = path.partition("[")[0].replace("_", "-")
            console.complain(f"{_WORDS.get(option, f'--{option}')}: {problem}")
        return WRONG_USAGE
    console.complain(str(error))
    return error.code if isinstance(error, Failed) else FAILED
