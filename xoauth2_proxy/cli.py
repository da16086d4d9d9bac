"""The command line: options, exit codes, and what is said to the person who types them.

Exit codes: 0 stopped as asked, or all is well; 1 could not start, or something is not well; 2 wrong
usage or configuration; 130 interrupted.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from xoauth2_proxy import __version__, log, workers
from xoauth2_proxy.commands import doctor, health_check, login, status
from xoauth2_proxy.commands.console import Screen
from xoauth2_proxy.commands.invocation import Invocation
from xoauth2_proxy.commands.sign_in_methods import Way
from xoauth2_proxy.commands.state_owner import other_user
from xoauth2_proxy.commands.terminal import Terminal
from xoauth2_proxy.config import Config, ConfigSource, Overrides, StoreKind, json_schema
from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.oauth.refreshers import registry
from xoauth2_proxy.service import runner
from xoauth2_proxy.service.components import opened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine

    from xoauth2_proxy.oauth.stores import TokenStore

EXIT_USAGE = 2

_EPILOG = """
[bold]Examples[/bold]

Try everything without an account:  xoauth2-proxy --sandbox

Run with your own accounts:  xoauth2-proxy --config accounts.json

See what is wrong with a configuration:  xoauth2-proxy check --config accounts.json

Sign a mailbox in:  xoauth2-proxy --config accounts.json login alice@example.com

See which mailbox needs somebody:  xoauth2-proxy --config accounts.json status

Find out why mail does not go:  xoauth2-proxy --config accounts.json doctor alice@example.com
"""

cli = typer.Typer(
    name="xoauth2-proxy",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    typer.Option(
        "--config",
        "-c",
        help="The accounts and settings, a JSON file.",
        metavar="FILE",
        envvar="XOAUTH2_PROXY_CONFIG",
    ),
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
        envvar="XOAUTH2_PROXY_STATE_DIR",
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
    runner.EventLoop, typer.Option(help="uvloop where it is installed, or asyncio's own.")
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


MailboxArgument = Annotated[str, typer.Argument(help="Its e-mail address.", metavar="MAILBOX")]
JsonOption = Annotated[bool, typer.Option("--json", help="For a machine.")]


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
    loop: LoopOption = runner.EventLoop.AUTO,
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
    state = state_dir or runner.default_state_dir()
    source = context.obj = ConfigSource(config, overrides, state)
    if context.invoked_subcommand is not None:
        return
    loaded = _load(source)
    log.configure(log_level, log_format)
    run = runner.Run(
        config=loaded,
        source=source,
        sandbox=sandbox,
        loop=loop,
        ready_file=ready_file,
        is_quiet=log_format is log.LogFormat.JSON,
    )
    if number_of_workers == 1:
        raise typer.Exit(runner.run(run))
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
    given = _given(context, config, state_dir, sandbox=sandbox)
    loaded = _load(given)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{given.path or 'sandbox'}: {_described(loaded)}; no problems found")


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


@cli.command("login")
def log_in(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument,
    provider: Annotated[
        str, typer.Option(help="Add the mailbox, which is not configured, with this provider.")
    ] = "",
    is_web: Annotated[bool, typer.Option("--web", help="By a browser on this machine.")] = False,
    is_device: Annotated[
        bool, typer.Option("--device", help="By a code to type on any other device.")
    ] = False,
    is_paste: Annotated[
        bool, typer.Option("--paste", help="By an address whose answer is pasted back here.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            show_default="any free one",
            help="Of the redirect address, where the client has it registered.",
        ),
    ] = 0,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Sign a mailbox in with its provider, once; the proxy renews its tokens from then on.

    Without --web, --device or --paste it picks what suits this machine, and says so.
    """
    chosen = {Way.WEB: is_web, Way.DEVICE: is_device, Way.PASTE: is_paste}
    ways = [way for way, is_chosen in chosen.items() if is_chosen]
    if len(ways) > 1:
        raise typer.BadParameter("choose one of --web, --device and --paste")
    source = _given(context, config, state_dir)
    asked = login.Asked(
        mailbox=mailbox, provider=provider, way=ways[0] if ways else None, port=port
    )
    terminal = Terminal(
        output=sys.stdout,
        errors=sys.stderr,
        input=sys.stdin,
        environ=os.environ,
        open_browser=webbrowser.open,
        invocation=_invocation(source),
    )
    try:
        code = _run(login.run(asked, source, terminal))
    except ConfigError as error:
        _refuse(source.path, error)
    if code == runner.EXIT_INTERRUPTED:
        terminal.complain(f"interrupted; {mailbox} was not signed in")
    raise typer.Exit(code)


@cli.command("status")
def show_status(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailboxes: Annotated[
        list[str] | None,
        typer.Argument(help="Which ones; all if none is named.", metavar="MAILBOX"),
    ] = None,
    is_json: JsonOption = False,
    is_all: Annotated[
        bool, typer.Option("--all", help="Every mailbox in the table, however many.")
    ] = False,
    warn_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Exit code 1 if somebody is needed within so many days. "
            "[dim]default: alerts.warn_days[/dim]",
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(
            help="Ask the proxy that runs, by its admin server, instead of reading its store.",
            envvar="XOAUTH2_PROXY_ADMIN_URL",
        ),
    ] = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: SandboxOption = False,
) -> None:
    """Tell how each mailbox stands, and which needs a person before its mail stops.

    A bearer token for --url, if one is needed, comes from the environment:
    XOAUTH2_PROXY_ADMIN_TOKEN.
    """
    source = _given(context, config, state_dir, sandbox=sandbox)
    loaded = _load(source)
    asked = status.Asked(
        mailboxes=tuple(mailboxes or ()),
        is_json=is_json,
        is_all=is_all,
        warn_days=loaded.alerts.warn_days if warn_days is None else warn_days,
    )
    screen = Screen.of_process(_invocation(source))
    if loaded.store.kind is StoreKind.MEMORY and not url:
        url = f"http://{loaded.admin.host}:{loaded.admin.port}"
    if url:
        token = os.environ.get("XOAUTH2_PROXY_ADMIN_TOKEN", loaded.admin.token)
        raise typer.Exit(_run(status.run_remote(url, token, asked, screen)))
    store = _store(loaded, source)
    raise typer.Exit(_run(_closing(store, status.run(loaded.accounts, store, asked, screen))))


@cli.command("doctor")
def examine(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument,
    send_to: Annotated[
        str, typer.Option(help="Send a test message there at the end.", metavar="ADDRESS")
    ] = "",
    is_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: SandboxOption = False,
) -> None:
    """Go a message's whole way, step by step, and name what fails first and what mends it."""
    source = _given(context, config, state_dir, sandbox=sandbox)
    loaded = _load(source)
    refreshers = registry.Registry(source.state_dir)
    means = doctor.Means(
        store=_store(loaded, source),
        is_store_shared=loaded.store.kind is not StoreKind.MEMORY,
        refreshers=refreshers.refreshers(account.refresher for account in loaded.accounts),
    )
    screen = Screen.of_process(_invocation(source))
    asked = doctor.Asked(mailbox=mailbox, send_to=send_to, is_json=is_json)
    try:
        code = _run(doctor.run(loaded.accounts, asked, means, screen))
    finally:
        refreshers.close()
    raise typer.Exit(code)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where the terminal has no ✓, it shows a ?
    cli()


def _run(work: Coroutine[object, object, int]) -> int:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        return runner.EXIT_INTERRUPTED


def _invocation(source: ConfigSource) -> Invocation:
    is_usual = source.state_dir == runner.default_state_dir()
    return Invocation(source.path, None if is_usual else source.state_dir)


def _store(config: Config, source: ConfigSource) -> TokenStore:
    if whose := other_user(source.state_dir, config.store):
        typer.echo(f"xoauth2-proxy: {whose}", err=True)
        raise typer.Exit(EXIT_USAGE)
    try:
        return opened(config.store)
    except ValueError as error:
        typer.echo(f"xoauth2-proxy: {error}", err=True)
        raise typer.Exit(runner.EXIT_FAILED) from None


async def _closing(store: TokenStore, work: Awaitable[int]) -> int:
    try:
        return await work
    finally:
        await store.close()


def _given(
    context: typer.Context, config: Path | None, state_dir: Path | None, *, sandbox: bool = False
) -> ConfigSource:
    """Return what to load: options of the sub-command, else those before it."""
    before: ConfigSource = context.obj
    return ConfigSource(
        config or before.path,
        replace(before.overrides, sandbox=sandbox or before.overrides.sandbox),
        state_dir or before.state_dir,
    )


def _load(source: ConfigSource) -> Config:
    try:
        return source.load(registry.names(), os.environ)
    except ConfigError as error:
        _refuse(source.path, error)


def _refuse(config: Path | None, error: ConfigError) -> NoReturn:
    count = len(error.problems)
    is_typed = all(path == "MAILBOX" or path.startswith("--") for path, _ in error.problems)
    where = f" in {config}" if config and not is_typed else ""
    typer.echo(f"xoauth2-proxy: {count} problem{'s'[: count > 1]}{where}:", err=True)
    for path, problem in error.problems:
        typer.echo(f"  {path}: {problem}", err=True)
    raise typer.Exit(EXIT_USAGE)


def _described(config: Config) -> str:
    enabled, disabled = len(config.accounts), config.disabled_accounts
    return f"{enabled} account{'s'[: enabled != 1]} enabled, {disabled} disabled"
