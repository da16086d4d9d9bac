"""Reads the configuration file, checks it as a whole and assembles what the proxy starts with.

All problems are reported together, each with its JSON path. A disabled account's shape is checked,
but its secrets and files need not exist. The same holds for a provider that no enabled account
uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy import strict_json
from xoauth2_proxy.config.account_loader import AccountLoader, is_disabled
from xoauth2_proxy.config.config import SECTIONS, Config
from xoauth2_proxy.config.credential_loader import with_made_credentials
from xoauth2_proxy.config.listener_section import faults_of_all, share_address
from xoauth2_proxy.config.problems import Problem, raise_if_any
from xoauth2_proxy.config.provider_loader import load_providers
from xoauth2_proxy.config.secret import holds_secrets
from xoauth2_proxy.config.section import validate
from xoauth2_proxy.config.sections import FileSection
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.files import fault_of_readers, read_at_most
from xoauth2_proxy.mailboxes.interface import ProviderInfo
from xoauth2_proxy.mailboxes.runtime_accounts import accounts_directory, open_runtime_accounts
from xoauth2_proxy.mailboxes.runtime_credentials import (
    credentials_directory,
    open_runtime_credentials,
)
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.overrides import Overrides
    from xoauth2_proxy.mailboxes.runtime_accounts import RuntimeAccounts
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials
    from xoauth2_proxy.strict_json import Json

SANDBOX_PASSWORD = "secret"  # noqa: S105 - opens nothing but the sandbox
_MAX_FILE_BYTES = 64 * 1024 * 1024  # some 100,000 accounts of 600 bytes


def load(
    path: Path | None,
    overrides: Overrides,
    environment: Environment,
    refreshers: Mapping[str, RefresherInfo],
    without: Collection[str] = frozenset(),
) -> tuple[Config, AccountLoader]:
    """Return the configuration, and the loader, for further accounts that must agree with it.

    `overrides` change what the file at `path` says. Without a file, `overrides.sandbox` supplies
    the sandbox's own mailboxes. The accounts that were added at run time follow those of the file,
    except those whose keys are in `without`.

    Raises:
        ConfigError: with every problem of the file and of the command line, and no secret.
    """
    document, problems = _document(path, overrides)
    settings = _settings(document, overrides, environment, problems)
    accounts, entries = document.get("accounts"), document.get("providers")
    providers, found = load_providers(
        entries if isinstance(entries, dict) else {}, environment, refreshers
    )
    problems += found
    loader = AccountLoader(settings, providers, environment)
    accounts = accounts if isinstance(accounts, list) else []
    for number, account in enumerate(accounts):
        problems += loader.load(account, strict_json.json_path("accounts", number))
    warnings: list[str] = []
    added = made = None
    try:
        added, made = _opened(settings, environment)
    except ValueError as error:
        problems.append(("store.keyring", str(error)))
    if added is not None:
        warnings += loader.load_runtime(added, without)
    if accounts and all(map(is_disabled, accounts)) and not loader.runtime_keys:
        problems.append(("accounts", "no account is enabled"))
    if not accounts and not loader.accounts:
        warnings.append("there is no account yet: no one can log in")
    raise_if_any(problems)
    in_force, credentials = tuple(loader.accounts), frozenset[str]()
    if made is not None:
        in_force, credentials, left_out = with_made_credentials(in_force, loader.disabled, made)
        warnings += left_out
    config = Config(
        accounts=in_force,
        disabled=tuple(loader.disabled),
        providers=tuple(
            ProviderInfo(one.name, one.refresher_info, one.client_of({}))
            for one in providers.values()
            if one is not None
        ),
        listeners=tuple(settings.listening.values()),
        listener_paths=tuple(settings.listening),
        **{key: getattr(settings, key) for key in SECTIONS},
        runtime_accounts=frozenset(loader.runtime_keys),
        runtime_credentials=credentials,
        sandbox_accounts=frozenset(loader.sandbox_accounts),
        warnings=(
            *_readable_by_all(path, document, environment.secret_files),
            *(
                warning
                for path, listener in settings.listening.items()
                for warning in listener.warnings(path)
            ),
            *settings.admin.warnings(),
            *warnings,
            *loader.warnings(),
        ),
    )
    return config, loader


def _opened(
    settings: FileSection, environment: Environment
) -> tuple[RuntimeAccounts | None, RuntimeCredentials | None]:
    """Return the accounts and the credentials that were added at run time, if there are any.

    Raises `ValueError`: the keyring has no key for them.
    """
    state_dir = environment.state_dir
    has_accounts = accounts_directory(state_dir).exists()
    has_credentials = credentials_directory(state_dir).exists()
    # If nothing was added, the keyring is not asked for its key: it may prompt a person.
    if not (has_accounts or has_credentials):
        return None, None
    cipher = settings.store.cipher()
    return (
        open_runtime_accounts(state_dir, cipher) if has_accounts else None,
        open_runtime_credentials(state_dir, cipher) if has_credentials else None,
    )


def _document(path: Path | None, overrides: Overrides) -> tuple[dict[str, Json], list[Problem]]:
    """Return the document, and a problem for each key that is written twice."""
    if path is None:
        if not overrides.sandbox:
            fault = "no configuration was given; give --config accounts.json, or --sandbox to try "
            raise ConfigError([("--config", f"{fault}the proxy without one")])
        return {
            "accounts": [
                {"email": mailbox, "provider": "mock", "password": SANDBOX_PASSWORD}
                for mailbox in MOCK_MAILBOXES
            ]
        }, []
    problems: list[Problem] = []
    try:
        document, problems = strict_json.parse(read_at_most(path, _MAX_FILE_BYTES), "accounts")
        if isinstance(document, list):
            document = {"accounts": document}
        if not isinstance(document, dict):
            raise ValueError("must hold an object with accounts, or an array of accounts")
    except ValueError as error:
        raise_if_any([*problems, (str(path), str(error))])
        raise
    return document, problems


def _settings(
    document: dict[str, Json],
    overrides: Overrides,
    environment: Environment,
    problems: list[Problem],
) -> FileSection:
    """Return the settings, all but accounts and providers, with the command line's overrides.

    Problems are appended to `problems`; an invalid section gets its defaults.
    """
    written: dict[str, object] = {**{key: {} for key in SECTIONS}, **document}
    if isinstance(written.get("accounts"), list):
        written["accounts"] = []
    if isinstance(written.get("providers"), dict):
        written["providers"] = {}
    if "listeners" not in written:
        written.setdefault("listener", {})
    elif "listener" in written:
        problems.append(("listeners", "stands beside listener; write one of the two"))
    overridden, options = _overridden(written, overrides, problems)
    if options:  # values that an option overrides must be valid too
        problems += validate(FileSection, written, "")[1]
    settings, found = validate(FileSection, overridden, "", environment, {"accounts": []})
    problems += [(options.get(path, path), fault) for path, fault in found]
    assert settings is not None  # noqa: S101 - invalid sections were replaced by defaults
    problems += _conflicts(settings, options)
    return settings


def _overridden(
    written: dict[str, object], overrides: Overrides, problems: list[Problem]
) -> tuple[dict[str, object], dict[str, str]]:
    """Return what is written with the command line's values, and the options by JSON path.

    Options of a listener that the file has several of are appended to `problems`.
    """
    overridden, options = dict(written), {}
    listeners = written.get("listeners")
    for option, section, key, value in overrides.given():
        if section != "listener" or not isinstance(listeners, list):
            options[strict_json.json_path(section, key)] = option
            if isinstance(values := overridden.get(section), dict):
                overridden[section] = values | {key: value}
        elif len(listeners) != 1:
            problems.append((option, "is for one listener, and the file has several: edit them"))
        elif isinstance(listeners[0], dict):
            options[strict_json.json_path("listeners", 0, key)] = option
            overridden["listeners"] = listeners = [listeners[0] | {key: value}]
    return overridden, options


def _conflicts(settings: FileSection, options: Mapping[str, str]) -> Iterator[Problem]:
    """Yield the addresses and names that are used twice. `options` are by the path they set."""
    for place, key, fault in faults_of_all(settings.listeners):
        yield strict_json.json_path("listeners", place, key), fault
    given = settings.model_fields_set  # what was wrong was left out
    if "admin" not in given or not given & {"listener", "listeners"}:
        return
    admin = settings.admin
    for path, listener in settings.listening.items():
        if listener.port == admin.port != 0 and share_address(listener.host, (admin.host,)):
            own, other = (options.get(key, key) for key in ("admin.port", f"{path}.port"))
            yield own, f"is {admin.port}, which is {other} too; give each its own"


def _readable_by_all(
    path: Path | None, document: dict[str, Json], secret_files: Collection[Path]
) -> Iterator[str]:
    """Yield a warning for each file with secrets that every user of this machine may read.

    No refusal: containers mount secrets with mode 0444, for the only user there is.
    """
    own = [path] if path is not None and holds_secrets(document) else []
    yield from filter(None, map(fault_of_readers, [*own, *sorted(secret_files)]))
