"""Commands that need no mailbox: the program, its configuration, passwords and health."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from xoauth2_proxy import __version__
from xoauth2_proxy.cli.options import ConfigOption, StateOption, WithSandboxOption, epilog
from xoauth2_proxy.commands import health_check

if TYPE_CHECKING:
    from xoauth2_proxy.config import Config

CHECK_EPILOG = epilog(
    {
        "Check a file": "xoauth2-proxy check --config accounts.json",
        "Check it together with options of the proxy": (
            "xoauth2-proxy --host 0.0.0.0 check --config accounts.json"
        ),
    },
    {0: "no problem was found", 2: "there are problems; each is printed with its place"},
)
SCHEMA_EPILOG = epilog(
    {"Let an editor check accounts.json": "xoauth2-proxy schema > accounts.schema.json"},
    {0: "printed", 1: "the output could not be written"},
)
VERSION_EPILOG = epilog({"Print it": "xoauth2-proxy version"}, {0: "printed"})
HEALTH_EPILOG = epilog(
    {
        "Ask the proxy on this machine": "xoauth2-proxy health",
        "Ask another": "xoauth2-proxy health --url http://127.0.0.1:9091",
    },
    {0: "the proxy is healthy", 1: "it is not, or it does not answer"},
)
HASH_EPILOG = epilog(
    {
        "Type a password and get its hash": "xoauth2-proxy hash-password",
        "Take the first line of a file": "xoauth2-proxy hash-password < password.txt",
    },
    {0: "the hash was printed", 2: "there was no password, or the two differ", 130: "interrupted"},
)


def check(
    context: typer.Context,
    config: ConfigOption = None,
    sandbox: WithSandboxOption = False,
    state_dir: StateOption = None,
) -> None:
    """Check a configuration and print every problem, without starting the proxy.

    Options of the proxy itself, such as --host, are checked too when they are written before
    `check`.
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
    """Print the JSON Schema of the configuration, for editors and other tools."""
    import json

    from xoauth2_proxy.config.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def version() -> None:
    """Print the version."""
    typer.echo(f"xoauth2-proxy {__version__}")


def health(
    url: Annotated[
        str,
        typer.Option(
            help="Address of the admin server. Its token, if it has one, is read from the "
            f"environment variable {health_check.TOKEN_VARIABLE}.",
            metavar="URL",
            envvar=health_check.URL_VARIABLE,
        ),
    ] = health_check.USUAL_URL,
) -> None:
    """Ask a running proxy whether it is healthy, and print what it answers.

    For container health checks and scripts.
    """
    raise typer.Exit(health_check.run(os.environ, url))


def hash_password() -> None:
    """Print the argon2 hash of a password, to write into the configuration in its place.

    The password is asked for twice and not shown. If standard input is a file or pipe, its first
    line is the password.
    """
    from xoauth2_proxy.commands import hash_password as command

    raise typer.Exit(command.run(sys.stdin))
