"""The program without its commands, and what the commands share: options and the end of a help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from xoauth2_proxy.commands.health_check import TOKEN_VARIABLE, URL_VARIABLE

cli = typer.Typer(
    name="xoauth2-proxy",
    add_completion=False,
    # Plain text: help in boxes would import rich, at three times the price of the whole help.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,  # a traceback with local variables would show secrets
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration: accounts and settings in a JSON file.",
        metavar="FILE",
        envvar="XOAUTH2_PROXY_CONFIG",
    ),
]
SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Also run a simulated mail provider, and send the mail of mock accounts there. "
        "Without --config: four mock mailboxes, whose password is 'secret'.",
    ),
]
WithSandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        help="Read the configuration as a proxy with --sandbox does; without --config: its four "
        "mock mailboxes.",
    ),
]
StateOption = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        help="Where tokens and keys are kept. Default: the platform's directory for state.",
        metavar="DIR",
        envvar="XOAUTH2_PROXY_STATE_DIR",
    ),
]
# Hidden: typer would list it as "MAILBOX <str>". Each command's help says what MAILBOX is.
MailboxArgument = Annotated[str, typer.Argument(metavar="MAILBOX", hidden=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
UrlOption = Annotated[
    str,
    typer.Option(
        help="Address of the running proxy's admin server. Default: as configured. Its token, if "
        f"it has one, is read from the environment variable {TOKEN_VARIABLE}.",
        metavar="URL",
        envvar=URL_VARIABLE,
    ),
]


def port_option(help: str, default: str | bool = False) -> Any:  # noqa: A002, ANN401 - as typer's
    """Return an option whose value is a port; `default` is what the help says of its default."""
    return typer.Option(help=help, metavar="PORT", min=0, max=65535, show_default=default)


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options before a sub-command, as they were typed."""

    config: Path | None
    state_dir: Path | None
    overrides: dict[str, Any]  # the fields of `Overrides`, whose import `--help` does not need


def epilog(examples: dict[str, str], codes: dict[int, str]) -> str:
    """Return what stands below a command's options: examples by what they do, and exit codes."""
    shown = "\n".join(f"  {what}:\n    {command}" for what, command in examples.items())
    ends = "\n".join(f"  {code}  {meaning}" for code, meaning in codes.items())
    # A backspace alone on a line: click leaves the paragraph behind it as it is.
    return f"\b\nExamples:\n{shown}\n\n\b\nExit codes:\n{ends}"
