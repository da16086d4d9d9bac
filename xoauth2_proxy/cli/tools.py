"""Commands that need no mailbox: passwords, health, the configuration's schema and the version."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from xoauth2_proxy import __version__
from xoauth2_proxy.cli.options import cli, epilog
from xoauth2_proxy.commands import health_check


@cli.command(
    short_help="Print the argon2 hash of a password.",
    epilog=epilog(
        {
            "Type a password and get its hash": "xoauth2-proxy hash-password",
            "Take the first line of a file": "xoauth2-proxy hash-password < password.txt",
        },
        {
            0: "the hash was printed",
            2: "there was no password, or the two differ",
            130: "interrupted",
        },
    ),
)
def hash_password() -> None:
    """Print the argon2 hash of a password, to write into the configuration in its place.

    The password is asked for twice and not shown. If standard input is a file or pipe, its first
    line is the password.
    """
    from xoauth2_proxy.commands import hash_password as command

    raise typer.Exit(command.run(sys.stdin))


@cli.command(
    short_help="Ask a running proxy whether it is healthy.",
    epilog=epilog(
        {
            "Ask the proxy on this machine": "xoauth2-proxy health",
            "Ask another": "xoauth2-proxy health --url http://127.0.0.1:9091",
        },
        {0: "the proxy is healthy", 1: "it is not, or it does not answer"},
    ),
)
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


@cli.command(
    short_help="Print the configuration's JSON Schema.",
    epilog=epilog(
        {"Let an editor check accounts.json": "xoauth2-proxy schema > accounts.schema.json"},
        {0: "printed", 1: "the output could not be written"},
    ),
)
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    import json

    from xoauth2_proxy.config.schema import json_schema
    from xoauth2_proxy.files import default_state_dir
    from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry

    installed = RefresherRegistry(default_state_dir())
    typer.echo(json.dumps(json_schema(installed.values()), indent=2))


@cli.command(
    short_help="Print the version.",
    epilog=epilog({"Print it": "xoauth2-proxy version"}, {0: "printed"}),
)
def version() -> None:
    """Print the version."""
    typer.echo(f"xoauth2-proxy {__version__}")
