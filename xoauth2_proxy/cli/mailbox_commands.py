"""Commands about mailboxes: signing in, their state, and examining one."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from xoauth2_proxy.cli.options import (
    ConfigOption,
    JsonOption,
    MailboxArgument,
    SandboxOption,
    StateOption,
)


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
    import webbrowser

    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import login
    from xoauth2_proxy.commands.sign_in_methods import SignInMethod
    from xoauth2_proxy.commands.terminal import Terminal
    from xoauth2_proxy.errors import ConfigError

    chosen = {
        SignInMethod.WEB: is_web,
        SignInMethod.DEVICE: is_device,
        SignInMethod.PASTE: is_paste,
    }
    methods = [method for method, is_chosen in chosen.items() if is_chosen]
    if len(methods) > 1:
        raise typer.BadParameter("choose one of --web, --device and --paste")
    source = configured.source_of(context, config, state_dir)
    options = login.LoginOptions(
        mailbox=mailbox, provider=provider, method=methods[0] if methods else None, port=port
    )
    terminal = Terminal(
        output=sys.stdout,
        errors=sys.stderr,
        input=sys.stdin,
        environ=os.environ,
        open_browser=webbrowser.open,
        invocation=configured.invocation(source),
    )
    try:
        code = configured.run(login.run(options, source, terminal))
    except ConfigError as error:
        configured.refuse(source.path, error)
    if code == configured.EXIT_INTERRUPTED:
        terminal.complain(f"interrupted; {mailbox} was not signed in")
    raise typer.Exit(code)


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
            "Default: alerts.warn_days.",
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
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import status
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import StoreKind

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load(source)
    options = status.StatusOptions(
        mailboxes=tuple(mailboxes or ()),
        is_json=is_json,
        is_all=is_all,
        warn_days=loaded.alerts.warn_days if warn_days is None else warn_days,
    )
    console = Console.of_process(configured.invocation(source))
    if loaded.store.kind is StoreKind.MEMORY and not url:
        url = f"http://{loaded.admin.host}:{loaded.admin.port}"
    if url:
        token = os.environ.get("XOAUTH2_PROXY_ADMIN_TOKEN", loaded.admin.token)
        raise typer.Exit(configured.run(status.run_remote(url, token, options, console)))
    store = configured.open_store(loaded, source)
    work = status.run(loaded.accounts, store, options, console)
    raise typer.Exit(configured.run(configured.closing(store, work)))


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
    """Go a message's whole method, step by step, and name what fails first and what mends it."""
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.commands.doctor import command
    from xoauth2_proxy.config import StoreKind
    from xoauth2_proxy.oauth.refreshers import registry

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load(source)
    refreshers = registry.RefresherRegistry(source.state_dir)
    dependencies = command.DoctorDependencies(
        store=configured.open_store(loaded, source),
        is_store_shared=loaded.store.kind is not StoreKind.MEMORY,
        refreshers=refreshers.refreshers(account.refresher for account in loaded.accounts),
    )
    console = Console.of_process(configured.invocation(source))
    options = command.DoctorOptions(mailbox=mailbox, send_to=send_to, is_json=is_json)
    try:
        code = configured.run(command.run(loaded.accounts, options, dependencies, console))
    finally:
        refreshers.close()
    raise typer.Exit(code)
