"""Reads the configuration file, checks it as a whole and assembles what the proxy starts with.

All problems are told at once, each with its JSON path. A disabled account's shape is checked, but
its secrets and files need not exist; nor need those of a provider that no enabled account uses.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy.config.account_loader import Roster, read_roster
from xoauth2_proxy.config.environment import Surroundings
from xoauth2_proxy.config.json_file import Json, read_document
from xoauth2_proxy.config.load_context import Reading
from xoauth2_proxy.config.model import FileSection
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.sections import (
    admin_config,
    alerts_config,
    listener_config,
    relay_config,
    store_config,
)
from xoauth2_proxy.config.settings import Config, ListenerConfig, Overrides
from xoauth2_proxy.config.validation import unknown_key
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SANDBOX_PASSWORD = "secret"  # noqa: S105 - opens nothing but the sandbox


def load_config(
    path: Path | None,
    overrides: Overrides,
    *,
    state_dir: Path,
    known_refreshers: Collection[str],
    environ: Mapping[str, str],
) -> Config:
    """Return the configuration in the file at `path`, changed by `overrides`.

    Without a file, `overrides.sandbox` stands for the sandbox's own mailboxes. The accounts that
    were added to the relay of `state_dir` follow those of the file.

    Raises:
        ConfigError: with every problem of the file and of the command line, and no secret.
    """
    reading = begin_reading(
        path,
        overrides,
        state_dir=state_dir,
        known_refreshers=known_refreshers,
        environ=environ,
    )
    return finish_reading(reading)[0]


def begin_reading(
    path: Path | None,
    overrides: Overrides,
    *,
    state_dir: Path,
    known_refreshers: Collection[str],
    environ: Mapping[str, str],
) -> Reading:
    """Return the content of the file at `path`, not judged yet. Raises `ConfigError`."""
    problems = Problems()
    document = _document(path, overrides, problems)
    directory = path.absolute().parent if path else Path.cwd()
    return Reading(
        document=document,
        overrides=overrides,
        surroundings=Surroundings(directory, environ),
        state_dir=state_dir,
        known_refreshers=known_refreshers,
        problems=problems,
    )


def finish_reading(
    reading: Reading, without: Collection[str] = frozenset()
) -> tuple[Config, Roster]:
    """Return the configuration, and with whom further accounts must agree.

    `without` are keys of added accounts that are to be left out.

    Raises:
        ConfigError: with every problem.
    """
    for key in reading.document:
        if key not in FileSection.model_fields:
            reading.problems.add(join("", key), unknown_key(key, FileSection.model_fields))
    listener = listener_config(reading)
    store = store_config(reading)
    roster = read_roster(reading, listener, store, without)
    config = Config(
        accounts=tuple(roster.reader.accounts),
        disabled_accounts=roster.reader.disabled,
        providers=roster.reader.providers(),
        listener=listener or ListenerConfig(),
        admin=admin_config(reading),
        relay=relay_config(reading),
        store=store,
        alerts=alerts_config(reading),
        added=roster.added,
        sandbox_accounts=frozenset(roster.reader.sandbox_accounts),
        warnings=(*reading.warnings, *roster.reader.warnings()),
    )
    reading.problems.raise_if_any()
    return config, roster


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
    document = read_document(path, "accounts", problems)
    if isinstance(document, list):
        return {"accounts": document}
    if not isinstance(document, dict):
        problems.fail(str(path), "must hold an object with accounts, or an array of accounts")
    return document
