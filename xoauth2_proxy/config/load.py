"""Reads the configuration file, checks it as a whole and assembles what the proxy starts with.

All problems are told at once, each with its JSON path. A disabled account's shape is checked, but
its secrets and files need not exist; nor need those of a provider that no enabled account uses.
"""

from __future__ import annotations

import shlex
import stat
from typing import TYPE_CHECKING

from xoauth2_proxy import strict_json
from xoauth2_proxy.config.account_loader import AccountLoader
from xoauth2_proxy.config.config import Config, ProviderConfig
from xoauth2_proxy.config.load_context import LoadContext
from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.config.provider_loader import load_providers
from xoauth2_proxy.config.runtime_accounts import accounts_directory, open_runtime_accounts
from xoauth2_proxy.config.secret import holds_secrets
from xoauth2_proxy.config.sections import (
    AdminSection,
    AlertsSection,
    FileSection,
    ListenerSection,
    RelaySection,
    StoreSection,
)
from xoauth2_proxy.config.validation import unknown_key
from xoauth2_proxy.files import read_at_most
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.strict_json import Json, json_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.overrides import Overrides

_MAX_FILE_BYTES = 64 * 1024 * 1024  # some 100,000 accounts of 600 bytes
SANDBOX_PASSWORD = "secret"  # noqa: S105 - opens nothing but the sandbox
_EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - to compare with


def load(
    path: Path | None,
    overrides: Overrides,
    environment: Environment,
    known_refreshers: Collection[str],
    without: Collection[str] = frozenset(),
) -> tuple[Config, AccountLoader]:
    """Return the configuration, and what loads further accounts, which must agree with it.

    It is that of the file at `path`, changed by `overrides`. Without a file, `overrides.sandbox`
    stands for the sandbox's own mailboxes. The accounts that were added to the relay of the state
    directory follow those of the file, but for those whose keys are in `without`.

    Raises:
        ConfigError: with every problem of the file and of the command line, and no secret.
    """
    problems = Problems()
    context = LoadContext(
        document=_document(path, overrides, problems),
        overrides=overrides,
        environment=environment,
        known_refreshers=known_refreshers,
        problems=problems,
    )
    for key in context.document:
        if key not in FileSection.model_fields:
            problems.add(json_path("", key), unknown_key(key, FileSection.model_fields))
    if path and path.stat().st_mode & stat.S_IROTH and holds_secrets(context.document):
        context.warnings.append(
            f"{path} holds secrets, and every user of this machine may read it: chmod 600 "
            f"{shlex.quote(str(path))}"
        )
    listener = context.section(ListenerSection, "listener")
    admin = context.section(AdminSection, "admin")
    store = context.section(StoreSection, "store")
    if listener and admin:
        _check_ports(context, listener, admin)
    accounts = AccountLoader(
        context,
        providers := load_providers(context),
        is_listener_on_loopback=listener is None or is_loopback(listener.host),
        is_guarded=admin is not None and bool(admin.token),
    )
    _load_accounts(context, accounts, store, without)
    relay = context.section(RelaySection, "relay")
    alerts = context.section(AlertsSection, "alerts")
    problems.raise_if_any()
    assert listener is not None and admin is not None  # noqa: S101, PT018 - else problems
    assert store is not None and relay is not None and alerts is not None  # noqa: S101, PT018
    config = Config(
        accounts=tuple(accounts.accounts),
        disabled_accounts=accounts.disabled,
        providers=tuple(
            ProviderConfig(one.name, one.refresher, one.client_of({}))
            for one in providers.values()
            if one is not None
        ),
        listener=listener,
        admin=admin,
        relay=relay,
        store=store,
        alerts=alerts,
        runtime_accounts=frozenset(accounts.runtime_keys),
        sandbox_accounts=frozenset(accounts.sandbox_accounts),
        warnings=(*context.warnings, *accounts.warnings()),
    )
    return config, accounts


def _document(path: Path | None, overrides: Overrides, problems: Problems) -> dict[str, Json]:
    if path is None:
        if not overrides.sandbox:
            problems.fail(
                "--config",
                "no configuration was given; write --config accounts.json, "
                "or --sandbox to try the proxy without one",
            )
        return {
            "accounts": [
                {"email": mailbox, "provider": "mock", "password": SANDBOX_PASSWORD}
                for mailbox in MOCK_MAILBOXES
            ]
        }
    try:
        document, faults = strict_json.parse(read_at_most(path, _MAX_FILE_BYTES), "accounts")
    except ValueError as error:
        problems.fail(str(path), str(error))
    for where, fault in faults:
        problems.add(where, fault)
    if isinstance(document, list):
        return {"accounts": document}
    if not isinstance(document, dict):
        problems.fail(str(path), "must hold an object with accounts, or an array of accounts")
    return document


def _check_ports(context: LoadContext, listener: ListenerSection, admin: AdminSection) -> None:
    hosts = {listener.host.lower(), admin.host.lower()}
    if "localhost" in hosts:
        hosts = hosts - {"localhost"} | {"127.0.0.1"}
    if listener.port == admin.port != 0 and (len(hosts) == 1 or hosts & _EVERY_ADDRESS):
        context.problems.add(
            context.place("admin", "port"),
            f"is {admin.port}, which is {context.place('listener', 'port')} too; give each its own",
        )


def _load_accounts(
    context: LoadContext,
    loader: AccountLoader,
    store: StoreSection | None,
    without: Collection[str],
) -> None:
    state_dir = context.environment.state_dir
    accounts = context.document.get("accounts")
    if "accounts" not in context.document:
        context.problems.add("accounts", "is required")
    elif not isinstance(accounts, list):
        context.problems.add("accounts", "must be an array")
    else:
        for number, value in enumerate(accounts):
            loader.load(value, json_path("accounts", number))
    # Where none was ever added, no key is asked of a keyring.
    if store and accounts_directory(state_dir).exists():
        try:
            loader.load_runtime(open_runtime_accounts(state_dir, store), without)
        except ValueError as error:
            context.problems.add("store.keyring", str(error))
    if isinstance(accounts, list) and not loader.enabled:
        if accounts and not loader.runtime_keys:
            context.problems.add("accounts", "no account is enabled")
        elif not accounts:
            context.warnings.append("there is no account yet: nobody can log in")
