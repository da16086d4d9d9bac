"""What commands that read the configuration have in common. Imported when one of them runs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, NoReturn

import typer

from xoauth2_proxy.commands.health_check import TOKEN_VARIABLE, USUAL_URL
from xoauth2_proxy.commands.invocation import Invocation
from xoauth2_proxy.commands.state_owner import other_user
from xoauth2_proxy.config import Config, ConfigSource, Overrides
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.files import default_state_dir
from xoauth2_proxy.mailboxes.runtime_credentials import open_runtime_credentials
from xoauth2_proxy.oauth.refreshers import registry
from xoauth2_proxy.service.components import open_configured_store
from xoauth2_proxy.standard_streams import end_at_interrupt

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from pathlib import Path

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.cli.options import GlobalOptions
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.mailboxes.runtime_credentials import RuntimeCredentials
    from xoauth2_proxy.oauth.stores import TokenStore

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130  # 130: 128 + SIGINT, as shells count


def source_of(
    context: typer.Context,
    config: Path | None = None,
    state_dir: Path | None = None,
    *,
    sandbox: bool = False,
) -> ConfigSource:
    """Return what to load: by the options of the sub-command, else by those before it.

    Variables of the environment come last, wherever the options stand.
    """
    before: GlobalOptions = context.obj
    overrides = before.overrides | ({"sandbox": True} if sandbox else {})
    if _is_of_environment(context, "state_dir"):
        state_dir = before.state_dir or state_dir
    if _is_of_environment(context, "config"):
        config = before.config or config
    state = state_dir or before.state_dir or default_state_dir()
    return ConfigSource(config or before.config, Overrides(**overrides), state)


def _is_of_environment(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "ENVIRONMENT"


def load(source: ConfigSource, refreshers: Mapping[str, RefresherInfo] | None = None) -> Config:
    """Return the configuration; its problems end the process with exit code 2."""
    if refreshers is None:
        refreshers = registry.RefresherRegistry(source.state_dir)
    try:
        return source.load(refreshers, os.environ)
    except ConfigError as error:
        refuse(source.path, error)


def check_sandbox_settings(file: Path | None) -> None:
    """Check the file, if one is given; its problems end the process with exit code 2."""
    if file is None:
        return
    from xoauth2_proxy.sandbox.settings_document import read_settings_file  # if it is needed

    try:
        read_settings_file(file)
    except ValueError as error:
        refuse(None, ConfigError([("--sandbox-settings", str(error))]))


def load_unless(
    url: str, source: ConfigSource, refreshers: Mapping[str, RefresherInfo] | None = None
) -> Config | None:
    """Return the configuration; None if a proxy is asked at `url` and no configuration is given."""
    if url and source.path is None and not source.overrides.sandbox:
        return None
    return load(source, refreshers)


def admin_url(config: Config | None) -> str:
    """Return where the admin server of this configuration answers on this machine."""
    if config is None:
        return USUAL_URL
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.admin.host, config.admin.host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{config.admin.port}"


def admin_token(config: Config | None) -> str:
    """Return the token of the admin server: from the environment, else from the configuration."""
    return os.environ.get(TOKEN_VARIABLE, config.admin.token if config else "")


def refuse(config: Path | None, error: ConfigError) -> NoReturn:
    """Print everything that is wrong, and end with exit code 2."""
    count = len(error.problems)
    is_typed = all(path == "MAILBOX" or path.startswith("--") for path, _ in error.problems)
    where = f" in {config}" if config and not is_typed else ""
    typer.echo(f"xoauth2-proxy: {count} problem{'s'[: count > 1]}{where}:", err=True)
    for path, problem in error.problems:
        typer.echo(f"  {path}: {problem}", err=True)
    raise typer.Exit(EXIT_USAGE)


def open_store(config: Config, source: ConfigSource) -> TokenStore:
    """Return the store that is configured; one that cannot be used ends the process."""
    refuse_other_user(config, source)
    try:
        return open_configured_store(config.store)
    except ValueError as error:
        typer.echo(f"xoauth2-proxy: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None


def open_made(config: Config, source: ConfigSource) -> RuntimeCredentials:
    """Return the credentials that were made at run time; another user's end the process."""
    refuse_other_user(config, source)
    return open_runtime_credentials(source.state_dir, config.store.cipher())


def refuse_other_user(config: Config, source: ConfigSource) -> None:
    """End the process if the state directory is another user's."""
    if whose := other_user(source.state_dir, config.store):
        typer.echo(f"xoauth2-proxy: {whose}", err=True)
        raise typer.Exit(EXIT_USAGE)


def invocation(source: ConfigSource) -> Invocation:
    """Return how this program was called, for the commands that it shows."""
    is_usual = source.state_dir == default_state_dir()
    state_dir = None if is_usual else source.state_dir
    return Invocation(source.path, state_dir, has_sandbox=source.overrides.sandbox)


def console(source: ConfigSource) -> Console:
    """Return where a command prints its answer."""
    from xoauth2_proxy.commands.console import Console  # here: the proxy itself needs no rich

    return Console.of_process(invocation(source))


def run(work: Coroutine[object, object, int], store: TokenStore | None = None) -> int:
    """Return the exit code of a command that waits; SIGINT cancels it. `store` is closed.

    A second SIGINT ends the process.
    """
    before = signal.getsignal(signal.SIGINT)

    async def interruptible() -> int:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel() -> None:
            if task is not None:
                task.cancel()
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)

        if before is end_at_interrupt:
            # asyncio's own handler would cancel in the midst of any callback, which then fails.
            loop.add_signal_handler(signal.SIGINT, cancel)
        try:
            return await work
        finally:
            if store is not None:
                await store.close()

    try:
        return asyncio.run(interruptible())
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    finally:
        if before is end_at_interrupt:
            signal.signal(signal.SIGINT, before)
