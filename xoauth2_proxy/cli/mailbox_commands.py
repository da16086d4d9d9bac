"""Commands that read the configuration: checking it, and all that is done with mailboxes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from xoauth2_proxy.cli.options import (
    ConfigOption,
    JsonOption,
    MailboxArgument,
    StateOption,
    UrlOption,
    WithSandboxOption,
    cli,
    epilog,
    port_option,
)
from xoauth2_proxy.commands.health_check import TOKEN_VARIABLE, URL_VARIABLE

if TYPE_CHECKING:
    from pathlib import Path

_CONFIGURED = "xoauth2-proxy --config accounts.json"
_WRONG_USAGE = {2: "wrong usage or configuration"}
_MAILBOX_CODES = {1: "it failed; the message says why"} | _WRONG_USAGE


@cli.command(
    short_help="Check a configuration and print every problem.",
    epilog=epilog(
        {
            "Check a file": "xoauth2-proxy check --config accounts.json",
            "Check it together with options of the proxy": (
                "xoauth2-proxy --host 0.0.0.0 check --config accounts.json"
            ),
        },
        {0: "no problem was found", 2: "there are problems; each is printed with its place"},
    ),
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
    from xoauth2_proxy.commands.check import warnings_of

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load(source)
    typed = configured.invocation(source).typed
    warnings = [typed(one) for one in warnings_of(loaded, has_sandbox=source.overrides.sandbox)]
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)
    enabled = len(loaded.accounts)
    count = f", {len(warnings)} warning{'s'[: len(warnings) > 1]}" if warnings else ""
    typer.echo(
        f"{source.path or 'sandbox'}: {enabled} account{'s'[: enabled != 1]} enabled, "
        f"{loaded.disabled_accounts} disabled; no problems found{count}"
    )


@cli.command(
    "login",
    short_help="Sign a mailbox in at its provider, once.",
    epilog=epilog(
        {
            "Sign in a mailbox of the configuration": f"{_CONFIGURED} login alice@example.com",
            "Add a mailbox and sign it in": f"{_CONFIGURED} login bob@gmail.com --provider gmail",
        },
        {0: "signed in", **_MAILBOX_CODES, 130: "interrupted; nothing was changed"},
    ),
)
def log_in(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument,
    provider: Annotated[
        str,
        typer.Option(
            help="Add the mailbox with this provider, if it is not in the configuration; for "
            "example gmail or outlook.",
            metavar="NAME",
        ),
    ] = "",
    is_web: Annotated[
        bool, typer.Option("--web", help="Sign in with a browser on this machine.")
    ] = False,
    is_device: Annotated[
        bool,
        typer.Option("--device", help="Sign in on another device, by typing a short code there."),
    ] = False,
    is_paste: Annotated[
        bool,
        typer.Option(
            "--paste",
            help="Sign in with a browser on another machine, and paste the address it ends at.",
        ),
    ] = False,
    port: Annotated[
        int,
        port_option(
            "Port of the redirect address, if the OAuth client is registered with one.",
            "any free one",
        ),
    ] = 0,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Sign a mailbox in at its provider. This is done once: the proxy renews the tokens itself.

    MAILBOX is its e-mail address. Without --web, --device or --paste the command chooses what works
    on this machine, and says why.
    """
    import webbrowser

    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import login
    from xoauth2_proxy.commands.console import Terminal
    from xoauth2_proxy.commands.sign_in_methods import SignInMethod
    from xoauth2_proxy.errors import ConfigError

    chosen = [SignInMethod.WEB] * is_web + [SignInMethod.DEVICE] * is_device
    chosen += [SignInMethod.PASTE] * is_paste
    if len(chosen) > 1:
        raise typer.BadParameter("choose one of --web, --device and --paste")
    source = configured.source_of(context, config, state_dir)
    options = login.LoginOptions(
        mailbox=mailbox, provider=provider, method=chosen[0] if chosen else None, port=port
    )
    console = configured.console(source)
    terminal = Terminal(
        console.out,
        console.err,
        console.invocation,
        input=sys.stdin,
        environ=os.environ,
        open_browser=webbrowser.open,
    )
    try:
        code = configured.run(login.run(options, source, terminal))
    except ConfigError as error:
        configured.refuse(source.path, error)
    if code == configured.EXIT_INTERRUPTED:
        terminal.complain(f"interrupted; {mailbox} was not signed in")
    raise typer.Exit(code)


@cli.command(
    "status",
    short_help="Show whether each mailbox can send.",
    epilog=epilog(
        {
            "Show all mailboxes": f"{_CONFIGURED} status",
            "Ask the running proxy": "xoauth2-proxy status --url http://127.0.0.1:9090",
            "Be told a month ahead, in a daily job": f"{_CONFIGURED} status --warn-days 30",
        },
        {
            0: "no mailbox needs attention",
            1: "a mailbox needs attention, or its state is not known",
            **_WRONG_USAGE,
        },
    ),
)
def show_status(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailboxes: Annotated[list[str] | None, typer.Argument(metavar="MAILBOX", hidden=True)] = None,
    is_json: JsonOption = False,
    is_all: Annotated[
        bool, typer.Option("--all", help="Show every mailbox, also where there are very many.")
    ] = False,
    warn_days: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="DAYS",
            help="Exit with code 1 if a mailbox needs attention within this many days. "
            "Default: alerts.warn_days of the configuration, else 14.",
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(
            help="Ask the running proxy at this address (its admin server) instead of reading "
            "files; no configuration is needed then. Its token, if it has one, is read from the "
            f"environment variable {TOKEN_VARIABLE}.",
            metavar="URL",
            envvar=URL_VARIABLE,
        ),
    ] = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: WithSandboxOption = False,
) -> None:
    """Show whether each mailbox can send, and which needs attention soon.

    MAILBOX is an e-mail address; without one, all mailboxes are shown. Reads the configuration and
    the stored tokens, so the proxy need not run.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import status
    from xoauth2_proxy.commands.listener_rows import ListenerRow
    from xoauth2_proxy.config.sections import AlertsSection
    from xoauth2_proxy.oauth.stores import StoreKind

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load_unless(url, source)
    alerts = AlertsSection() if loaded is None else loaded.alerts
    options = status.StatusOptions(
        mailboxes=tuple(mailboxes or ()),
        is_json=is_json,
        is_all=is_all,
        warn_days=alerts.warn_days if warn_days is None else warn_days,
    )
    console = configured.console(source)
    if loaded is not None and loaded.store.kind is StoreKind.MEMORY and not url:
        url = configured.admin_url(loaded)
    if loaded is None or url:
        token = configured.admin_token(loaded)
        raise typer.Exit(configured.run(status.run_remote(url, token, options, console)))
    store = configured.open_store(loaded, source)
    listeners = [ListenerRow.configured(one) for one in loaded.listeners]
    work = status.run(loaded.accounts, store, options, console, loaded.disabled, listeners)
    raise typer.Exit(configured.run(work, store))


@cli.command(
    "clients",
    short_help="Show which clients connected lately, and why some were turned away.",
    epilog=epilog(
        {
            "Ask the proxy of a configuration": f"{_CONFIGURED} clients",
            "Ask the proxy at an address": "xoauth2-proxy clients --url http://127.0.0.1:9090",
        },
        {
            0: "every client got what it wanted",
            1: "a client was turned away, or the proxy cannot be asked",
            **_WRONG_USAGE,
        },
    ),
)
def show_clients(
    context: typer.Context,
    is_json: JsonOption = False,
    is_all: Annotated[
        bool, typer.Option("--all", help="Show every client, also where there are very many.")
    ] = False,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Show which clients connected lately, the newest first, and what would let in those that fail.

    Asks the running proxy, which keeps this in memory: a restart forgets it.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import clients

    source = configured.source_of(context, config, state_dir)
    loaded = configured.load_unless(url, source)
    work = clients.run(
        url or configured.admin_url(loaded),
        configured.admin_token(loaded),
        configured.console(source),
        is_json=is_json,
        is_all=is_all,
    )
    raise typer.Exit(configured.run(work))


@cli.command(
    "doctor",
    short_help="Find out why a mailbox cannot send.",
    epilog=epilog(
        {
            "Examine one mailbox": f"{_CONFIGURED} doctor alice@example.com",
            "And send a test message": (
                "xoauth2-proxy -c accounts.json doctor alice@example.com --send-to bob@example.com"
            ),
            "Examine all mailboxes": f"{_CONFIGURED} doctor --all",
        },
        {0: "everything works", 1: "something does not", **_WRONG_USAGE},
    ),
)
def examine(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument = "",
    is_all: Annotated[bool, typer.Option("--all", help="Examine every enabled mailbox.")] = False,
    send_to: Annotated[
        str,
        typer.Option(help="At the end, send a test message to this address.", metavar="ADDRESS"),
    ] = "",
    is_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: WithSandboxOption = False,
) -> None:
    """Find out why a mailbox cannot send: test each step of a message's way and say what to do.

    MAILBOX is its e-mail address. The steps: configuration, stored sign-in, DNS, TCP and TLS of the
    token host and of the mail host, access token, SMTP login and, with --send-to, a message. A step
    that depends on one that failed is not tested.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands.doctor import command
    from xoauth2_proxy.commands.doctor.context import DoctorDependencies
    from xoauth2_proxy.oauth.refreshers import registry
    from xoauth2_proxy.oauth.stores import StoreKind

    if bool(mailbox) is is_all:
        raise typer.BadParameter("name one mailbox, or write --all")
    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    refreshers = registry.RefresherRegistry(source.state_dir)
    loaded = configured.load(source, refreshers)
    store = configured.open_store(loaded, source)
    dependencies = DoctorDependencies(
        store=store,
        is_store_shared=loaded.store.kind is not StoreKind.MEMORY,
        refreshers=refreshers.refreshers(account.refresher for account in loaded.accounts),
    )
    options = command.DoctorOptions(
        mailbox=mailbox, is_all=is_all, send_to=send_to, is_json=is_json
    )
    work = command.run(loaded.accounts, options, dependencies, configured.console(source))
    try:
        raise typer.Exit(configured.run(work, store))
    finally:
        refreshers.close()


@cli.command(
    "list",
    short_help="List the accounts, enabled and disabled.",
    epilog=epilog({"List them": f"{_CONFIGURED} list"}, {0: "listed", **_WRONG_USAGE}),
)
def list_accounts(
    context: typer.Context,
    is_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: WithSandboxOption = False,
) -> None:
    """List the accounts: mailbox, provider, whether it is enabled, and where it is written.

    The source is `file` for an account of the configuration, and `added` for one that `login` or
    the admin page has added.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import account_list

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    loaded = configured.load(source)
    raise typer.Exit(account_list.run(loaded, configured.console(source), is_json=is_json))


@cli.command(
    "providers",
    short_help="List the providers and the refreshers that are installed.",
    epilog=epilog({"List them": f"{_CONFIGURED} providers"}, {0: "listed", **_WRONG_USAGE}),
)
def list_providers(
    context: typer.Context,
    is_json: JsonOption = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
    sandbox: WithSandboxOption = False,
) -> None:
    """List the providers that accounts can name, and the refreshers that get their tokens.

    It says how people sign in at each provider, or why they cannot, which package a refresher comes
    from, and why one is disabled.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import provider_list
    from xoauth2_proxy.oauth.refreshers import registry

    source = configured.source_of(context, config, state_dir, sandbox=sandbox)
    refreshers = registry.RefresherRegistry(source.state_dir)
    loaded = configured.load(source, refreshers)
    raise typer.Exit(
        provider_list.run(
            loaded, refreshers.all_installed(), configured.console(source), is_json=is_json
        )
    )


@cli.command(
    "token",
    short_help="Print a mailbox's access token for another program.",
    epilog=epilog(
        {
            "Give it to a program": f"{_CONFIGURED} token alice@example.com | program",
            "In msmtp's configuration": (
                'passwordeval "xoauth2-proxy --config accounts.json token alice@example.com"'
            ),
            "Look at it": f"{_CONFIGURED} token alice@example.com --info",
            "Look at all of them": f"{_CONFIGURED} token --all --info",
        },
        {0: "done", 1: "there is no token; the message says why", **_WRONG_USAGE},
    ),
)
def print_token(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument = "",
    is_all: Annotated[
        bool, typer.Option("--all", help="With --info, --refresh or --clear: every mailbox.")
    ] = False,
    is_forced: Annotated[
        bool, typer.Option("--refresh", help="Ask the provider for a new token.")
    ] = False,
    is_cleared: Annotated[
        bool,
        typer.Option("--clear", help="Delete the stored token; the sign-in stays."),
    ] = False,
    is_info: Annotated[
        bool,
        typer.Option("--info", help="Print scope, expiry and last error instead of the token."),
    ] = False,
    is_json: JsonOption = False,
    may_show: Annotated[
        bool, typer.Option("--show", help="Print the token even to a terminal.")
    ] = False,
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Print an access token of a mailbox, so that other programs use the proxy's sign-in.

    MAILBOX is its e-mail address. The token is the stored one, or a new one if that ends soon. The
    proxy may run at the same time: both use the same store.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import access_token
    from xoauth2_proxy.oauth.refreshers import registry
    from xoauth2_proxy.oauth.stores import StoreKind

    if bool(mailbox) is is_all:
        raise typer.BadParameter("name one mailbox, or write --all")
    if is_json and not is_info:
        raise typer.BadParameter("--json is for --info")
    if is_cleared and (is_forced or is_info or may_show):
        raise typer.BadParameter("--clear does not go with --refresh, --info and --show")
    if is_all and not (is_forced or is_info or is_cleared):
        raise typer.BadParameter("--all is for --info, --refresh and --clear: name one mailbox")
    source = configured.source_of(context, config, state_dir)
    refreshers = registry.RefresherRegistry(source.state_dir)
    loaded = configured.load(source, refreshers)
    if loaded.store.kind is StoreKind.MEMORY:
        raise typer.BadParameter('tokens live in the proxy\'s memory: set "store" to file')
    store = configured.open_store(loaded, source)
    options = access_token.TokenOptions(
        mailbox=mailbox,
        is_all=is_all,
        is_forced=is_forced,
        is_cleared=is_cleared,
        is_info=is_info,
        is_json=is_json,
        may_show=may_show,
    )
    known = refreshers.refreshers(account.refresher for account in loaded.accounts)
    work = access_token.run(loaded.accounts, store, known, options, configured.console(source))
    try:
        raise typer.Exit(configured.run(work, store))
    finally:
        refreshers.close()


@cli.command(
    short_help="Sign a mailbox out at its provider.",
    epilog=epilog(
        {"Revoke": f"{_CONFIGURED} revoke alice@example.com"}, {0: "revoked", **_MAILBOX_CODES}
    ),
)
def revoke(
    context: typer.Context,
    mailbox: MailboxArgument,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Sign a mailbox out: its provider ends the sign-in, and the proxy forgets it.

    MAILBOX is its e-mail address. It sends no mail until it is signed in again. The running proxy
    does this; if none runs, it is done in the stored tokens.
    """
    _change(context, "revoke", mailbox, url, config, state_dir)


@cli.command(
    short_help="Remove a mailbox that was added.",
    epilog=epilog(
        {"Remove": f"{_CONFIGURED} remove bob@gmail.com"}, {0: "removed", **_MAILBOX_CODES}
    ),
)
def remove(
    context: typer.Context,
    mailbox: MailboxArgument,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Remove a mailbox that `login` or the admin page has added, and forget its sign-in.

    MAILBOX is its e-mail address. A mailbox of the configuration file is removed in that file. The
    running proxy does this; if none runs, it is done in its files.
    """
    _change(context, "remove", mailbox, url, config, state_dir)


def _change(
    context: typer.Context,
    what: Literal["remove", "revoke"],
    mailbox: str,
    url: str,
    config: Path | None,
    state_dir: Path | None,
) -> NoReturn:
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import mailbox_changes
    from xoauth2_proxy.mailboxes.runtime_accounts import open_runtime_accounts
    from xoauth2_proxy.mailboxes.runtime_credentials import open_runtime_credentials
    from xoauth2_proxy.oauth.refreshers import registry

    source = configured.source_of(context, config, state_dir)
    refreshers = registry.RefresherRegistry(source.state_dir)
    loaded = configured.load_unless(url, source, refreshers)
    files = None
    if loaded is not None:
        files = mailbox_changes.ProxyFiles(
            config=loaded,
            open_store=lambda: configured.open_store(loaded, source),
            open_added=lambda: open_runtime_accounts(source.state_dir, loaded.store.cipher()),
            open_made=lambda: open_runtime_credentials(source.state_dir, loaded.store.cipher()),
            refresher=lambda name: refreshers.refreshers([name]).get(name),
        )
    change = mailbox_changes.ChangeOptions(
        mailbox=mailbox,
        url=url or configured.admin_url(loaded),
        token=configured.admin_token(loaded),
        is_url_given=bool(url),
    )
    run = mailbox_changes.remove if what == "remove" else mailbox_changes.revoke
    raise typer.Exit(configured.run(run(change, files, configured.console(source))))
