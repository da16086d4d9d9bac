"""`xoauth2-bench sandbox`: the stand-in provider alone, for whoever needs an XOAUTH2 server."""

# Annotations are read by typer when the command is built, so they stay real objects here.
import os
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from bench import duration
from bench.open_files import raise_open_files
from bench.serve import announce, run, stop_signal
from xoauth2_proxy.mock_tokens import MockTokens, load_signing_key
from xoauth2_proxy.sandbox import Sandbox

_SMTP_PORT = 2600  # where the proxy's mock accounts look for it
_HTTP_PORT = 2601
_MAX_CONNECTIONS = 30_000

HELP = """Run a mail provider for tests: SMTP with XOAUTH2 that verifies signed tokens.

Listens on loopback only, keeps what it accepts in memory and shows it over HTTP. It accepts no
tokens but its own; --token prints one.
"""


class ProviderTls(StrEnum):
    """How a client is to protect its connection."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wishes:
    smtp_port: int
    http_port: int
    state_dir: Path
    tls: ProviderTls
    withhold: frozenset[str]
    rtt_seconds: float
    ready_file: Path | None  # None: no file
    mailboxes: tuple[str, ...]  # to print a token for


def sandbox(  # noqa: PLR0913 - one parameter an option
    *,
    smtp_port: Annotated[
        int, typer.Option(min=0, max=65535, help="SMTP port; 0 takes a free one.")
    ] = _SMTP_PORT,
    http_port: Annotated[
        int, typer.Option(min=0, max=65535, help="HTTP port; 0 takes a free one.")
    ] = _HTTP_PORT,
    state_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Where its keys and certificates are kept."),
    ] = None,
    tls: Annotated[
        ProviderTls, typer.Option(help="How clients protect the connection.")
    ] = ProviderTls.STARTTLS,
    withhold: Annotated[
        list[str] | None,
        typer.Option(help="An EHLO keyword not to offer, e.g. CHUNKING; may be repeated."),
    ] = None,
    rtt: Annotated[str, typer.Option(help="Hold each turn back for so long, e.g. 40ms.")] = "0ms",
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MAILBOX", help="Print an access token of this mailbox, good for an hour."
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="Write process id and addresses there (JSON) once it listens."
        ),
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    try:
        rtt_seconds = duration.seconds(rtt)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rtt") from None
    wishes = _Wishes(
        smtp_port=smtp_port,
        http_port=http_port,
        state_dir=state_dir or Path(platformdirs.user_state_dir("xoauth2-proxy")),
        tls=tls,
        withhold=frozenset(withhold or ()),
        rtt_seconds=rtt_seconds,
        ready_file=ready_file,
        mailboxes=tuple(token or ()),
    )
    raise_open_files()
    try:
        run(_serve(wishes))
    except OSError as error:
        print(f"The sandbox cannot start: {error}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


async def _serve(wishes: _Wishes) -> None:
    stop = stop_signal()
    provider = Sandbox(
        wishes.state_dir,
        smtp_port=wishes.smtp_port,
        http_port=wishes.http_port,
        tls=wishes.tls.value,
        withhold=wishes.withhold,
        rtt_seconds=wishes.rtt_seconds,
        max_connections=_MAX_CONNECTIONS,
    )
    async with provider:
        host, port = provider.smtp_address
        facts = {
            "smtp": f"{host}:{port}",
            "tls": wishes.tls.value,
            "http": provider.http_url,
            "ca_file": str(provider.ca_file),
        }
        if wishes.ready_file is not None:
            announce(wishes.ready_file, facts)
        _welcome(wishes, provider)
        await stop.wait()


def _welcome(wishes: _Wishes, provider: Sandbox) -> None:
    host, port = provider.smtp_address
    tls = "no TLS" if wishes.tls is ProviderTls.NONE else wishes.tls.value
    trust = "" if wishes.tls is ProviderTls.NONE else f", trusting {provider.ca_file}"
    lines = [
        f"The sandbox is ready (process {os.getpid()}). Ctrl+C stops it.",
        f"  SMTP      {host}:{port}, {tls}{trust}",
        f"  Received  {provider.http_url}/messages   counters: {provider.http_url}/stats",
    ]
    tokens = MockTokens(load_signing_key(wishes.state_dir))
    lines += [f"  Token     {mailbox}  {tokens.mint(mailbox)}" for mailbox in wishes.mailboxes]
    print("\n".join(lines), flush=True)  # noqa: T201
