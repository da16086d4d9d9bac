"""Commands that look at the program or its configuration, and change nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from xoauth2_proxy import __version__
from xoauth2_proxy.cli.options import ConfigOption, SandboxOption, StateOption
from xoauth2_proxy.commands import health_check

if TYPE_CHECKING:
    from xoauth2_proxy.config import Config


def check(
    context: typer.Context,
    config: ConfigOption = None,
    sandbox: SandboxOption = False,
    state_dir: StateOption = None,
) -> None:
    """Read a configuration, say everything that is wrong with it, and exit (0: nothing).

    The options of the proxy itself, such as --host, are checked with it when they are written
    before `check`.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands.check import concerns

    given = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load(given)
    typed = configured.invocation(given).typed
    warnings = [typed(one) for one in concerns(loaded, has_sandbox=given.overrides.sandbox)]
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    count = f", {len(warnings)} warning{'s'[: len(warnings) > 1]}" if warnings else ""
    typer.echo(f"{given.path or 'sandbox'}: {_described(loaded)}; no problems found{count}")


def _described(config: Config) -> str:
    enabled, disabled = len(config.accounts), config.disabled_accounts
    return f"{enabled} account{'s'[: enabled != 1]} enabled, {disabled} disabled"


def schema() -> None:
    """Print the configuration's JSON Schema, for editors and other tools."""
    import json

    from xoauth2_proxy.config.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def version() -> None:
    """Print the version."""
    typer.echo(f"xoauth2-proxy {__version__}")


def health(
    url: Annotated[
        str, typer.Option(help="The admin server's address.", envvar=health_check.URL_VARIABLE)
    ] = health_check.USUAL_URL,
) -> None:
    """Ask a running proxy for its health: exit code 0 if it is well, else 1.

    A bearer token, if one is needed, comes from the environment: XOAUTH2_PROXY_ADMIN_TOKEN.
    """
    raise typer.Exit(health_check.run(os.environ, url))
