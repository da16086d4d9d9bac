"""The commands that make, list and revoke credentials: one for each device or program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xoauth2_proxy.cli.options import (
    ConfigOption,
    JsonOption,
    MailboxArgument,
    StateOption,
    UrlOption,
    cli,
    epilog,
)

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.commands.credential import CredentialFiles, CredentialOptions

_COMMAND = "xoauth2-proxy --config accounts.json credential"
_CODES = {1: "it failed; the message says why", 2: "wrong usage or configuration"}

credentials = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
cli.add_typer(
    credentials,
    name="credential",
    short_help="Make, list and revoke logins of a mailbox, one for each device.",
    help="Make, list and revoke logins of a mailbox: one for each device or program, so that a "
    "lost one is revoked without touching the others.",
)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", hidden=True)]


@credentials.command(
    short_help="Make a login, and print its password once.",
    epilog=epilog(
        {
            "A copier": f"{_COMMAND} add scanner@example.com copier-2",
            "A copier that cannot log in": (
                f"{_COMMAND} add scanner@example.com copier-3 --no-password --network 10.0.0.7"
            ),
        },
        {0: "made", **_CODES},
    ),
)
def add(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument,
    name: NameArgument,
    login: Annotated[
        str, typer.Option(help="User name of the client. Default: NAME.", metavar="TEXT")
    ] = "",
    network: Annotated[
        list[str] | None,
        typer.Option(
            help="Network or address that the client may come from; may be repeated.",
            metavar="NETWORK",
        ),
    ] = None,
    sender: Annotated[
        list[str] | None,
        typer.Option(
            help="Sender that it may use: an address, *@domain or *; may be repeated.",
            metavar="SENDER",
        ),
    ] = None,
    messages_per_minute: Annotated[
        float, typer.Option(min=0, metavar="NUMBER", help="At most; 0: no limit.")
    ] = 0,
    messages_per_day: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="At most; 0: no limit.")
    ] = 0,
    max_connections: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="At one time; 0: no limit.")
    ] = 0,
    expires: Annotated[
        str,
        typer.Option(help="Last day, as 2027-01-31, or a time with its offset.", metavar="DATE"),
    ] = "",
    has_no_password: Annotated[
        bool,
        typer.Option("--no-password", help="The client cannot log in: its address is the proof."),
    ] = False,
    may_be_public: Annotated[
        bool,
        typer.Option(
            "--allow-public-networks",
            help="With --no-password: let networks that are not local send.",
        ),
    ] = False,
    is_json: JsonOption = False,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Make a login for a device or program that sends as MAILBOX, an e-mail address.

    NAME is what you call it. The password is generated, printed once, and kept as a digest. The
    running proxy does this; if none runs, it is done in its files.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import credential

    if has_no_password and not network:
        raise typer.BadParameter("--no-password needs --network: the address is the only proof")
    given: dict[str, Any] = {
        "login": login,
        "networks": network,
        "senders": sender,
        "messages_per_minute": messages_per_minute,
        "messages_per_day": messages_per_day,
        "max_connections": max_connections,
        "expires": expires,
        "allow_public_networks": may_be_public,
    }
    keys = {"name": name} | {key: value for key, value in given.items() if value}
    options, files, console = _prepared(context, mailbox, url, config, state_dir, is_json)
    work = credential.add(options, keys, files, console, has_password=not has_no_password)
    raise typer.Exit(configured.run(work))


@credentials.command(
    "list",
    short_help="List a mailbox's logins.",
    epilog=epilog({"List them": f"{_COMMAND} list scanner@example.com"}, {0: "listed", **_CODES}),
)
def list_credentials(
    context: typer.Context,
    mailbox: MailboxArgument,
    is_json: JsonOption = False,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """List the logins of MAILBOX, an e-mail address: who may use them, from where, how long.

    The proof is a generated `key`, a `password`, or the client's `address`. The source is `file`
    for one of the configuration, `made` for one of this command or the admin page, and `account`
    for the mailbox's own password.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import credential

    options, files, console = _prepared(context, mailbox, url, config, state_dir, is_json)
    raise typer.Exit(configured.run(credential.show(options, files, console)))


@credentials.command(
    short_help="Revoke a login.",
    epilog=epilog(
        {"Revoke": f"{_COMMAND} revoke scanner@example.com copier-2"}, {0: "revoked", **_CODES}
    ),
)
def revoke(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    mailbox: MailboxArgument,
    name: NameArgument,
    is_json: JsonOption = False,
    url: UrlOption = "",
    config: ConfigOption = None,
    state_dir: StateOption = None,
) -> None:
    """Revoke the login NAME of MAILBOX, which this command or the admin page has made.

    Clients that use it are turned away at their next login or message. One of the configuration
    file is removed in that file.
    """
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import credential

    options, files, console = _prepared(context, mailbox, url, config, state_dir, is_json)
    raise typer.Exit(configured.run(credential.revoke(options, name, files, console)))


def _prepared(
    context: typer.Context,
    mailbox: str,
    url: str,
    config: Path | None,
    state_dir: Path | None,
    is_json: bool,
) -> tuple[CredentialOptions, CredentialFiles | None, Console]:
    from xoauth2_proxy.cli import configured
    from xoauth2_proxy.commands import credential

    source = configured.source_of(context, config, state_dir)
    loaded = configured.load_unless(url, source)
    files = None
    if loaded is not None:
        files = credential.CredentialFiles(
            config=loaded, open_made=lambda: configured.open_made(loaded, source)
        )
    options = credential.CredentialOptions(
        mailbox=mailbox,
        url=url or configured.admin_url(loaded),
        token=configured.admin_token(loaded),
        is_url_given=bool(url),
        is_json=is_json,
    )
    return options, files, configured.console(source)
