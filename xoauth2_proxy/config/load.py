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
from xoauth2_proxy.config.problems import Problem, raise_if_any
from xoauth2_proxy.config.provider_loader import load_providers
from xoauth2_proxy.config.secret import holds_secrets
from xoauth2_proxy.config.section import validate
from xoauth2_proxy.config.sections import FileSection
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.files import fault_of_readers, read_at_most
from xoauth2_proxy.mailboxes.interface import ProviderInfo
from xoauth2_proxy.mailboxes.runtime_accounts import accounts_directory, open_runtime_accounts
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.overrides import Overrides
    from xoauth2_proxy.strict_json import Json

SANDBOX_PASSWORD = "secret"  # noqa: S105 - opens nothing but the sandbox
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to compare with
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
    try:
        warnings += _load_added(loader, settings, environment, without)
    except ValueError as error:
        problems.append(("store.keyring", str(error)))
    if accounts and all(map(is_disabled, accounts)) and not loader.runtime_keys:
        problems.append(("accounts", "no account is enabled"))
    if not accounts and not loader.accounts:
        warnings.append("there is no account yet: no one can log in")
    raise_if_any(problems)
    config = Config(
        accounts=tuple(loader.accounts),
        disabled=tuple(loader.disabled),
        providers=tuple(
            ProviderInfo(one.name, one.refresher_info, one.client_of({}))
            for one in providers.values()
            if one is not None
        ),
        **{key: getattr(settings, key) for key in SECTIONS},
        runtime_accounts=frozenset(loader.runtime_keys),
        sandbox_accounts=frozenset(loader.sandbox_accounts),
        warnings=(
            *_readable_by_all(path, document, environment.secret_files),
            *settings.listener.warnings(),
            *settings.admin.warnings(),
            *warnings,
            *loader.warnings(),
        ),
    )
    return config, loader


def _load_added(
    loader: AccountLoader, settings: FileSection, environment: Environment, without: Collection[str]
) -> list[str]:
    """Load the accounts that were added at run time; return a warning for each left out.

    Raises `ValueError`: the keyring has no key for them.
    """
    # Without added accounts, the keyring is not asked for its key: it may prompt a person.
    if not accounts_directory(environment.state_dir).exists():
        return []
    added = open_runtime_accounts(environment.state_dir, settings.store.cipher())
    return loader.load_runtime(added, without)


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
    overridden, options = dict(written), {}
    for option, section, key, value in overrides.given():
        options[strict_json.json_path(section, key)] = option
        if isinstance(values := overridden[section], dict):
            overridden[section] = values | {key: value}
    if options:  # values that an option overrides must be valid too
        problems += validate(FileSection, written, "")[1]
    settings, found = validate(FileSection, overridden, "", environment, {"accounts": []})
    problems += [(options.get(path, path), fault) for path, fault in found]
    assert settings is not None  # noqa: S101 - invalid sections were replaced by defaults
    listener, admin = settings.listener, settings.admin
    hosts = {one.host.lower().replace("localhost", "127.0.0.1") for one in (listener, admin)}
    if (
        {"listener", "admin"} <= settings.model_fields_set  # neither was left out
        and listener.port == admin.port != 0
        and (len(hosts) == 1 or hosts & _EVERY_ADDRESS)
    ):
        own, other = (options.get(path, path) for path in ("admin.port", "listener.port"))
        problems.append((own, f"is {admin.port}, which is {other} too; give each its own"))
    return settings


def _readable_by_all(
    path: Path | None, document: dict[str, Json], secret_files: Collection[Path]
) -> Iterator[str]:
    """Yield a warning for each file with secrets that every user of this machine may read.

    No refusal: containers mount secrets with mode 0444, for the only user there is.
    """
    own = [path] if path is not None and holds_secrets(document) else []
    yield from filter(None, map(fault_of_readers, [*own, *sorted(secret_files)]))
