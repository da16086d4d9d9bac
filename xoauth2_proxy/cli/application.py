"""The program: the proxy itself is what runs without a sub-command."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Annotated

import typer

from xoauth2_proxy import __version__, log
from xoauth2_proxy.cli import (  # noqa: F401 - each adds its commands
    credential_commands,
    mailbox_commands,
    tools,
)
from xoauth2_proxy.cli.options import (
    ConfigOption,
    GlobalOptions,
    SandboxOption,
    StateOption,
    cli,
    epilog,
    port_option,
)
from xoauth2_proxy.service.event_loop import EventLoop
from xoauth2_proxy.workers.number import MAX_WORKERS, number_of_processors


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


@cli.callback(
    invoke_without_command=True,
    epilog=epilog(
        {
            "Try everything without an account": "xoauth2-proxy --sandbox",
            "Run with your own accounts": "xoauth2-proxy --config accounts.json",
            "Check a configuration": "xoauth2-proxy check --config accounts.json",
            "Sign a mailbox in": "xoauth2-proxy --config accounts.json login alice@example.com",
            "See which mailboxes need attention": "xoauth2-proxy --config accounts.json status",
            "Find out why mail is not sent": (
                "xoauth2-proxy --config accounts.json doctor alice@example.com"
            ),
        },
        {
            0: "stopped as asked",
            1: "could not start; the message says why",
            2: "wrong usage or configuration",
            130: "interrupted",
        },
    ),
)
def serve(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    config: ConfigOption = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address that mail clients connect to. Default: 127.0.0.1."
        ),
    ] = None,
    port: Annotated[
        int | None,
        port_option("Port that mail clients connect to; 0: any free one. Default: 2525."),
    ] = None,
    admin_host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Address of the admin server: health, metrics, pages. Default: 127.0.0.1.",
        ),
    ] = None,
    admin_port: Annotated[
        int | None, port_option("Port of the admin server; 0: any free one. Default: 9090.")
    ] = None,
    sandbox: SandboxOption = False,
    sandbox_port: Annotated[
        int,
        port_option(
            "Port of the sandbox's mail server, for programs that talk to it directly.",
            "any free one",
        ),
    ] = 0,
    sandbox_http_port: Annotated[
        int,
        port_option(
            "Port of the sandbox's pages, which show what it received and sign its mailboxes in.",
            "the one before, or any free one",
        ),
    ] = 0,
    sandbox_settings: Annotated[
        Path | None,
        typer.Option(
            help="Settings of the sandbox (JSON or TOML): profile, limits, faults, tokens.",
            metavar="FILE",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="Certificate chain (PEM). With it, STARTTLS is offered to clients.", metavar="FILE"
        ),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(help="The certificate's private key (PEM).", metavar="FILE")
    ] = None,
    allow_insecure_auth: Annotated[
        bool | None,
        typer.Option(
            "--allow-insecure-auth",
            help="Accept passwords without TLS from clients on the network.",
        ),
    ] = None,
    state_dir: StateOption = None,
    log_level: Annotated[
        log.LogLevel,
        typer.Option(
            help="Minimum level to log. debug: each SMTP command and reply code, connections, "
            "tokens."
        ),
    ] = log.LogLevel.INFO,
    log_format: Annotated[
        log.LogFormat, typer.Option(help="Format of log lines: text for people, json for programs.")
    ] = log.LogFormat.TEXT,
    loop: Annotated[
        EventLoop, typer.Option(help="Event loop; auto: uvloop if it is installed, else asyncio.")
    ] = EventLoop.AUTO,
    number_of_workers: Annotated[
        int,
        typer.Option(
            "--workers",
            parser=_read_number_of_workers,
            metavar="N|auto",
            help="Number of processes that share the port; auto: one per processor. Limits apply "
            "to all of them together.",
        ),
    ] = 1,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="Write process id and addresses to this file (JSON) when clients are accepted.",
            metavar="FILE",
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """An SMTP relay that logs in to Gmail and Outlook with OAuth2, for clients that cannot.

    A mail client connects to port 2525 and logs in with the password from the configuration. Its
    mail is sent through the mailbox's own provider. Without a command, the proxy runs.
    """
    overrides = {
        "host": host,
        "port": port,
        "admin_host": admin_host,
        "admin_port": admin_port,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "allow_insecure_auth": allow_insecure_auth,
        "sandbox": sandbox,
    }
    context.obj = GlobalOptions(config, state_dir, overrides)
    if context.invoked_subcommand is not None:
        return
    if (sandbox_port or sandbox_http_port or sandbox_settings) and not sandbox:
        raise typer.BadParameter(
            "--sandbox-port, --sandbox-http-port and --sandbox-settings need --sandbox"
        )
    gc.disable()  # all that is imported stays: to look through it for garbage would take a while
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.service import runner

    gc.freeze()
    gc.enable()
    source = configured.source_of(context)
    loaded = configured.load(source)
    configured.check_sandbox_settings(sandbox_settings)
    log.configure(log_level, log_format)
    run = runner.Run(
        config=loaded,
        source=source,
        sandbox=sandbox,
        sandbox_smtp_port=sandbox_port,
        sandbox_http_port=sandbox_http_port,
        sandbox_settings=sandbox_settings,
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
