"""The program: the proxy itself is what runs without a sub-command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xoauth2_proxy import __version__, log
from xoauth2_proxy.cli import mailbox_commands, tools
from xoauth2_proxy.cli.options import ConfigOption, GlobalOptions, SandboxOption, StateOption
from xoauth2_proxy.service.event_loop import EventLoop
from xoauth2_proxy.workers.number import MAX_WORKERS, number_of_processors

_EPILOG = """
Examples:

\b
  Try everything without an account:
    xoauth2-proxy --sandbox
  Run with your own accounts:
    xoauth2-proxy --config accounts.json
  See what is wrong with a configuration:
    xoauth2-proxy check --config accounts.json
  Sign a mailbox in:
    xoauth2-proxy --config accounts.json login alice@example.com
  See which mailbox needs a person:
    xoauth2-proxy --config accounts.json status
  Find out why mail is not sent:
    xoauth2-proxy --config accounts.json doctor alice@example.com
"""

cli = typer.Typer(
    name="xoauth2-proxy",
    add_completion=False,
    # Plain text: help in boxes would import rich, at three times the price of the whole help.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
cli.command()(tools.check)
cli.command()(tools.schema)
cli.command()(tools.version)
cli.command()(tools.health)
cli.command("login")(mailbox_commands.log_in)
cli.command("status")(mailbox_commands.show_status)
cli.command("doctor")(mailbox_commands.examine)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"xoauth2-proxy {__version__}")
        raise typer.Exit


def _read_number_of_workers(given: str | int) -> int:
    text = str(given)
    if text == "auto":
        return number_of_processors()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_WORKERS):
        raise typer.BadParameter(f"must be auto or a number from 1 to {MAX_WORKERS}")
    return int(text)


HostOption = Annotated[
    str | None, typer.Option(help="Address mail clients connect to. Default: 127.0.0.1.")
]
PortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Its port; 0 takes a free one. Default: 2525."),
]
AdminHostOption = Annotated[
    str | None,
    typer.Option(help="Address of health and metrics. Default: 127.0.0.1."),
]
AdminPortOption = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Its port; 0 takes a free one. Default: 9090."),
]
SandboxPortOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        show_default="any free one",
        help="Port of the sandbox's mail server, for programs that talk to it directly.",
    ),
]
SandboxHttpPortOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=65535,
        show_default="any free one",
        help="Port of the sandbox's page, which shows the messages that it received.",
    ),
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
LevelOption = Annotated[log.LogLevel, typer.Option(help="Minimum level to log.")]
FormatOption = Annotated[log.LogFormat, typer.Option(help="For a person or for a machine.")]
LoopOption = Annotated[
    EventLoop, typer.Option(help="uvloop where it is installed, or asyncio's own.")
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
    sandbox_port: SandboxPortOption = 0,
    sandbox_http_port: SandboxHttpPortOption = 0,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    allow_insecure_auth: InsecureOption = None,
    state_dir: StateOption = None,
    log_level: LevelOption = log.LogLevel.INFO,
    log_format: FormatOption = log.LogFormat.TEXT,
    loop: LoopOption = EventLoop.AUTO,
    number_of_workers: WorkersOption = 1,
    ready_file: ReadyFileOption = None,
    show_version: VersionOption = False,
) -> None:
    """An SMTP relay that logs in to Gmail and Outlook with OAuth2 for clients that cannot.

    Point a mail client at port 2525; it logs in with the password (or token) from the
    configuration, and its mail leaves through the mailbox's own provider.
    """
    context.obj = GlobalOptions(
        config=config,
        state_dir=state_dir,
        host=host,
        port=port,
        admin_host=admin_host,
        admin_port=admin_port,
        tls_cert=tls_cert,
        tls_key=tls_key,
        allow_insecure_auth=allow_insecure_auth,
        sandbox=sandbox,
    )
    if context.invoked_subcommand is not None:
        return
    if (sandbox_port or sandbox_http_port) and not sandbox:
        raise typer.BadParameter("--sandbox-port and --sandbox-http-port need --sandbox")
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.service import runner

    source = configured.source_of(context)
    loaded = configured.load(source)
    log.configure(log_level, log_format)
    run = runner.Run(
        config=loaded,
        source=source,
        sandbox=sandbox,
        sandbox_smtp_port=sandbox_port,
        sandbox_http_port=sandbox_http_port,
        loop=loop,
        ready_file=ready_file,
        is_quiet=log_format is log.LogFormat.JSON,
    )
    if number_of_workers == 1:
        raise typer.Exit(runner.run(run))
    from xoauth2_proxy.workers import parent
    from xoauth2_proxy.workers.channel import Logging

    raise typer.Exit(parent.run(run, number_of_workers, Logging(log_level, log_format)))


def main() -> None:
    """Run the command line; the exit code comes as `SystemExit`."""
    cli()
