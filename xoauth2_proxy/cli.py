"""The command line: options, exit codes, and what is said to the person who types them.

Exit codes: 0 stopped as asked, 1 could not start, 2 wrong usage or configuration, 130 a second
Ctrl+C.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from xoauth2_proxy import __version__, health_check, log, server, workers
from xoauth2_proxy.config import Config, Overrides, json_schema, load_config
from xoauth2_proxy.errors import ConfigError

EXIT_USAGE = 2

_EPILOG = """
[bold]Examples[/bold]

Try everything without an account:  xoauth2-proxy --sandbox

Run with your own accounts:  xoauth2-proxy --config accounts.json

See what is wrong with a configuration:  xoauth2-proxy check --config accounts.json
"""

cli = typer.Typer(
    name="xoauth2-proxy",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True, slots=True)
class Given:
    """What to load, as the command line says."""

    config: Path | None
    overrides: Overrides
    state_dir: Path


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"xoauth2-proxy {__version__}")
        raise typer.Exit


def _read_number_of_workers(given: str | int) -> int:
    text = str(given)
    if text == "auto":
        return workers.number_of_processors()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= workers.MAX_WORKERS):
        raise typer.BadParameter(f"must be auto or a number from 1 to {workers.MAX_WORKERS}")
    return int(text)


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The accounts and settings, a JSON file.", metavar="FILE"),
]
SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Run a provider for trying things out beside the proxy, and send mock accounts' mail "
        "there. Without --config: four mock mailboxes, password 'secret'.",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Where tokens and keys are kept. Default: the platform's state directory.",
        metavar="DIR",
    ),
]
HostOption = Annotated[
    str | None, typer.Option(help="Address mail clients connect to. [dim]default: 127.0.0.1[/dim]")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Its port; 0 takes a free one. [dim]default: 2525[/dim]"),
]
AdminHostOption = Annotated[
    str | None,
    typer.Option(help="Address of health and metrics. [dim]default: 127.0.0.1[/dim]"),
]
AdminPortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Its port; 0 takes a free one. [dim]default: 9090[/dim]"),
]
TlsCertOption = Annotated[
    Path | None, typer.Option(help="Certificate chain (PEM): offers STARTTLS.", metavar="FILE")
]
TlsKeyOption = Annotated[
    Path | None, typer.Option(help="The certificate's private key (PEM).", metavar="FILE")
]
InsecureOption = Annotated[
    bool | None,
    typer.Option(
        "--allow-insecure-auth",
        help="Accept passwords without TLS although clients come over a network.",
    ),
]
LevelOption = Annotated[log.LogLevel, typer.Option(help="The least serious lines to write.")]
FormatOption = Annotated[log.LogFormat, typer.Option(help="For a person or for a machine.")]
LoopOption = Annotated[
    server.EventLoop, typer.Option(help="uvloop where it is installed, or asyncio's own.")
]
WorkersOption = Annotated[
    int,
    typer.Option(
        "--workers",
        parser=_read_number_of_workers,
        metavar="N|auto",
        help="Processes that share the port; auto: one per processor. Limits hold for all of them "
        "together.",
    ),
]
ReadyFileOption = Annotated[
    Path | None,
    typer.Option(
        help="Write process id and addresses there (JSON) once clients are accepted.",
        metavar="FILE",
    ),
]
VersionOption = Annotated[
    bool,
    typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version."),
]


@cli.callback(invoke_without_command=True, epilog=_EPILOG)
def serve(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    config: ConfigOption = None,
    host: HostOption = None,
    port: PortOption = None,
    admin_host: AdminHostOption = None,
    admin_port: AdminPortOption = None,
    sandbox: SandboxOption = False,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    allow_insecure_auth: InsecureOption = None,
    state_dir: StateOption = None,
    log_level: LevelOption = log.LogLevel.INFO,
    log_format: FormatOption = log.LogFormat.TEXT,
    loop: LoopOption = server.EventLoop.AUTO,
    number_of_workers: WorkersOption = 1,
    ready_file: ReadyFileOption = None,
    show_version: VersionOption = False,
) -> None:
    """An SMTP relay that logs in to Gmail and Outlook with OAuth2 for clients that cannot.

    Point a mail client at port 2525; it logs in with the password (or token) from the
    configuration, and its mail leaves through the mailbox's own provider.
    """
    overrides = Overrides(
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        allow_insecure_auth=allow_insecure_auth,
        sandbox=sandbox,
    )
    state = state_dir or server.default_state_dir()
    context.obj = Given(config, overrides, state)
    if context.invoked_subcommand is not None:
        return
    loaded = _load(context.obj)
    log.configure(log_level, log_format)
    run = server.Run(
        config=loaded,
        state_dir=state,
        sandbox=sandbox,
        loop=loop,
        ready_file=ready_file,
        is_quiet=log_format is log.LogFormat.JSON,
    )
    if number_of_workers == 1:
        raise typer.Exit(server.run(run))
    raise typer.Exit(workers.run(run, number_of_workers, workers.Logging(log_level, log_format)))


@cli.command()
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
    before: Given = context.obj
    given = Given(
        config or before.config,
        replace(before.overrides, sandbox=sandbox or before.overrides.sandbox),
        state_dir or before.state_dir,
    )
    loaded = _load(given)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{given.config or 'sandbox'}: {_described(loaded)}; no problems found")


@cli.command()
def schema() -> None:
    """Print the configuration's JSON Schema, for editors and other tools."""
    typer.echo(json.dumps(json_schema(), indent=2))


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"xoauth2-proxy {__version__}")


@cli.command()
def health(
    url: Annotated[
        str, typer.Option(help="The admin server's address.", envvar="XOAUTH2_PROXY_ADMIN_URL")
    ] = "http://127.0.0.1:9090",
) -> None:
    """Ask a running proxy for its health: exit code 0 if it is well, else 1.

    A bearer token, if one is needed, comes from the environment: XOAUTH2_PROXY_ADMIN_TOKEN.
    """
    answer = health_check.ask(url, os.environ.get("XOAUTH2_PROXY_ADMIN_TOKEN", ""))
    typer.echo(answer.text)
    raise typer.Exit(0 if answer.is_well else 1)


def main() -> None:
    """Run the command line."""
    cli()


def _load(given: Given) -> Config:
    try:
        return load_config(
            given.config,
            given.overrides,
            state_dir=given.state_dir,
            known_refreshers=server.REFRESHERS,
            environ=os.environ,
        )
    except ConfigError as error:
        _refuse(given.config, error)


def _refuse(config: Path | None, error: ConfigError) -> NoReturn:
    count = len(error.problems)
    where = f" in {config}" if config else ""
    typer.echo(f"xoauth2-proxy: {count} problem{'s'[: count > 1]}{where}:", err=True)
    for path, problem in error.problems:
        typer.echo(f"  {path}: {problem}", err=True)
    raise typer.Exit(EXIT_USAGE)


def _described(config: Config) -> str:
    enabled, disabled = len(config.accounts), config.disabled_accounts
    return f"{enabled} account{'s'[: enabled != 1]} enabled, {disabled} disabled"
