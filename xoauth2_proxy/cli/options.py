"""Options that several commands share, and what was written before a sub-command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

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
MailboxArgument = Annotated[str, typer.Argument(help="Its e-mail address.", metavar="MAILBOX")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalOptions:
    """The options before a sub-command, as they were typed."""

    config: Path | None = None
    state_dir: Path | None = None
    host: str | None = None
    port: int | None = None
    admin_host: str | None = None
    admin_port: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_insecure_auth: bool | None = None
    sandbox: bool = False
