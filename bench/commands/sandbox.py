"""`xoauth2-bench sandbox`: runs the sandbox provider on its own, as an XOAUTH2 test server.

Exit codes: 0 ended by SIGTERM or SIGINT, 1 it cannot start, 2 incorrect usage.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import errno
import json
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import platformdirs
import typer
from typer.core import TyperCommand

from bench.commands.refusal_log import RefusalLog
from bench.options import duration
from bench.options.dataclass_options import single_command
from bench.options.fault_syntax import FAULT_FORM, fault_document, fault_words, override
from bench.process.open_files import raise_open_file_limit
from bench.process.server_process import run, stop_signal, write_ready_file
from xoauth2_proxy.sandbox.app import Sandbox
from xoauth2_proxy.sandbox.behaviour import ProviderProfile
from xoauth2_proxy.sandbox.mock_mailboxes import PLAIN_REFRESH_TOKEN
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings, Rotation
from xoauth2_proxy.sandbox.settings_document import (
    OVERRIDES,
    TOKEN_SETTINGS,
    describe,
    fault_from,
    read_document,
    read_settings,
)

_SMTP_PORT = 2600  # where the proxy's mock accounts look for it
_HTTP_PORT = 2601
_MAX_CONNECTIONS = 30_000
_PORT_TAKEN = "Another one may be running. --smtp-port and --http-port take others, 0 a free one."

_FAULT_WORDS = fault_words().replace("\n\n", "\n\n\b\n")
HELP = f"""Run a mail provider for tests: SMTP with XOAUTH2 that verifies signed tokens.

Listens on loopback only. Keeps accepted messages in memory and shows them on a web page and as
JSON. It accepts only its own tokens, for any mailbox that they name: --token prints one, POST
/test/tokens mints one, and the token endpoint issues them for refresh tokens and to clients.

A profile gives it the limits, extensions and reply texts of a real provider; each setting can be
overridden. Faults occur as scripted (nth=2, every) or at random (rate=0.01); the same --seed gives
the same faults.

\b
Outlook's limits, one lost connection in a hundred, and a round trip of 80 ms:
  xoauth2-bench sandbox --profile outlook --rtt-ms 80 \\
      --fault end:drop:rate=0.01 --seed 7

\b
A fault is {FAULT_FORM}
  mail:reply:nth=3:text=451 4.3.0 Not now    end:accept_then_drop    token:429:every

\b
{_FAULT_WORDS}

It prints what it refuses, with the real reason, to standard error (at most 20 lines a minute) and
shows it at /refused and /refusals.

Settings: {", ".join(OVERRIDES)}.

Settings of tokens: {", ".join(sorted(TOKEN_SETTINGS))}.

Exit codes: 0 stopped by a signal, 1 could not start, 2 incorrect usage.
"""


class ProviderTls(StrEnum):
    """The protection that clients must use."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class _SandboxOptions:
    smtp_port: int
    http_port: int
    state_dir: Path
    settings: ProviderSettings
    ready_file: Path | None  # None: no file
    mailboxes: tuple[str, ...]  # to print a token for
    is_json: bool
    is_quiet: bool


def sandbox(  # noqa: PLR0913 - one parameter an option
    *,
    smtp_port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="SMTP port. 0: any free port.")
    ] = _SMTP_PORT,
    http_port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="HTTP port. 0: any free port.")
    ] = _HTTP_PORT,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", file_okay=False, help="Directory for its keys and certificates."
        ),
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="File with profile, overrides and faults (JSON or TOML).",
        ),
    ] = None,
    profile: Annotated[
        ProviderProfile | None, typer.Option(help="Provider to imitate. Default: unlimited.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SETTING=VALUE",
            help="Override a setting of the profile, or one of tokens. Repeatable.",
        ),
    ] = None,
    tls: Annotated[
        ProviderTls | None, typer.Option(help="TLS mode of the SMTP port. Default: starttls.")
    ] = None,
    withhold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEYWORD", help="EHLO keyword not to offer, such as CHUNKING. Repeatable."
        ),
    ] = None,
    rtt: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Delay before each flight of replies, such as 40ms."),
    ] = None,
    rtt_ms: Annotated[
        float | None,
        typer.Option(metavar="MILLISECONDS", min=0, max=60_000, help="The same in milliseconds."),
    ] = None,
    accept_delay_ms: Annotated[
        str | None,
        typer.Option(
            metavar="MS[,P99]",
            help="Additional delay before the reply to a message. With two values: median and "
            "99th percentile of a random delay.",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="Fault to inject. Repeatable."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Seed of the random numbers.")
    ] = None,
    token_ttl: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.001,
            help="Lifetime in seconds of tokens from the token endpoint.",
        ),
    ] = None,
    rotation: Annotated[
        Rotation | None, typer.Option(help="What happens to a refresh token after use.")
    ] = None,
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MAILBOX",
            help="Print an access token for this mailbox, valid for an hour. Repeatable.",
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write the process ID and addresses to this file (JSON) once it listens.",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print process ID, addresses and tokens as one line of JSON.",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Do not print refusals to standard error.")
    ] = False,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    document = _document(settings)
    asked = _given(
        tls=tls.value if tls else None,
        withhold=[word.upper() for word in withhold] if withhold else None,
        rtt_seconds=_rtt_seconds(rtt, rtt_ms),
        **_accept_seconds(accept_delay_ms),
    )
    endpoint = _given(ttl_seconds=token_ttl, rotation=rotation)
    for key, value in _settings_in(overrides or ()):
        (endpoint if key in TOKEN_SETTINGS else asked)[key] = value
    faults = [_fault(text) for text in fault or ()]
    document |= _given(profile=profile.value if profile else None, seed=seed)
    _merge(document, "overrides", asked)
    _merge(document, "token_endpoint", endpoint)
    _extend(document, "faults", faults)
    options = _SandboxOptions(
        smtp_port=smtp_port,
        http_port=http_port,
        state_dir=(state_dir or Path(platformdirs.user_state_dir("xoauth2-proxy"))).absolute(),
        settings=_read(document),
        ready_file=ready_file,
        mailboxes=tuple(token or ()),
        is_json=as_json,
        is_quiet=quiet,
    )
    raise_open_file_limit()
    try:
        run(_serve(options))
    except OSError as error:
        told = f"The sandbox cannot start: {error}"
        if error.errno == errno.EADDRINUSE:
            told += f". {_PORT_TAKEN}"
        print(told, file=sys.stderr)  # noqa: T201
        raise typer.Exit(1) from None


def _settings_in(texts: Iterable[str]) -> list[tuple[str, object]]:
    try:
        return [override(text) for text in texts]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--set") from None


def _fault(text: str) -> dict[str, object]:
    try:
        document = fault_document(text)
        fault_from(document)
    except ValueError as error:
        told = f"{text!r}: {error}; sandbox --help says what each step and action means"
        raise typer.BadParameter(told, param_hint="--fault") from None
    return document


def _document(file: Path | None) -> dict[str, object]:
    """Return the document of a settings file; without one, that of a sandbox with high limits."""
    if file is None:
        return {"overrides": {"max_connections": _MAX_CONNECTIONS}}
    try:
        return read_document(file)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from None


def _read(document: dict[str, object]) -> ProviderSettings:
    try:
        return read_settings(document)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="the settings") from None


def _given(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _merge(document: dict[str, object], key: str, more: dict[str, object]) -> None:
    known = document.get(key, {})
    if more and isinstance(known, dict):  # otherwise, reading it reports the error
        document[key] = known | more


def _extend(document: dict[str, object], key: str, more: list[dict[str, object]]) -> None:
    known = document.get(key, [])
    if more and isinstance(known, list):
        document[key] = known + more


def _rtt_seconds(rtt: str | None, rtt_ms: float | None) -> float | None:
    if rtt is not None and rtt_ms is not None:
        raise typer.BadParameter("give --rtt or --rtt-ms, not both", param_hint="--rtt-ms")
    if rtt is None:
        return None if rtt_ms is None else rtt_ms / 1000.0
    try:
        return duration.seconds(rtt)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--rtt") from None


def _accept_seconds(text: str | None) -> dict[str, object]:
    if text is None:
        return {}
    names = ("accept_seconds", "accept_p99_seconds")
    try:
        values = [float(word) / 1000.0 for word in text.split(",")]
        return dict(zip(names[: len(values)], values, strict=True))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a number of milliseconds, or two with a comma between",
            param_hint="--accept-delay-ms",
        ) from None


async def _serve(options: _SandboxOptions) -> None:
    stop = stop_signal()
    provider = Sandbox(
        options.state_dir,
        options.settings,
        smtp_port=options.smtp_port,
        http_port=options.http_port,
    )
    async with provider:
        if not options.is_quiet:
            provider.refusals.listener = RefusalLog(f"{provider.http_url}/refused")
        host, port = provider.smtp_address
        behaviour = provider.behaviour
        facts: dict[str, object] = {
            "smtp": f"{host}:{port}",
            "tls": behaviour.tls.value,
            "http": provider.http_url,
            "ca_file": str(provider.ca_file),
            "issuer": provider.http_url,
            "token_endpoint": f"{provider.http_url}/oauth/token",
            "dialect": behaviour.dialect.value,
            "seed": options.settings.seed,
        }
        if options.ready_file is not None:
            write_ready_file(options.ready_file, facts)
        tokens = {mailbox: provider.tokens.mint(mailbox) for mailbox in options.mailboxes}
        if options.is_json:
            line = {"pid": os.getpid(), **facts, "tokens": tokens}
            print(json.dumps(line), flush=True)  # noqa: T201
        else:
            _welcome(options, provider, tokens)
        await stop.wait()


def _welcome(options: _SandboxOptions, provider: Sandbox, tokens: dict[str, str]) -> None:
    host, port = provider.smtp_address
    tls = provider.behaviour.tls.value
    url = provider.http_url
    lines = [
        f"The sandbox is ready (process {os.getpid()}). Ctrl+C stops it.",
        f"  SMTP      {host}:{port}, {'no TLS' if tls == 'none' else tls}",
        *([] if tls == "none" else [f"            the client has to trust {provider.ca_file}"]),
        f"  Received  {url}/   as JSON: {url}/messages   counters: {url}/stats",
        f"  Refused   {url}/refused   why, as JSON: {url}/refusals",
        f"  OAuth     issuer: {url}   metadata: {url}/.well-known/openid-configuration",
        f"            {url}/oauth/token   refresh token: {PLAIN_REFRESH_TOKEN}MAILBOX",
        f"            {url}/test/tokens (POST) mints a token of any mailbox",
        "",
        "Send the message in mail.eml with a token of MAILBOX:",
        f"  {_client_line(options, provider)}",
        "",
    ]
    lines += [f"  {name:<28} {value:<12} {what}" for name, value, what in _table(options.settings)]
    lines += [f"  Token     {mailbox}  {token}" for mailbox, token in tokens.items()]
    print("\n".join(lines), flush=True)  # noqa: T201


def _client_line(options: _SandboxOptions, provider: Sandbox) -> str:
    """Return a command line that sends a message to this sandbox."""
    host, port = provider.smtp_address
    tls = provider.behaviour.tls.value
    scheme = "smtps" if tls == "implicit" else "smtp"
    trust = "" if tls == "none" else f" --cacert {shlex.quote(str(provider.ca_file))}"
    mailbox = options.mailboxes[0] if options.mailboxes else "MAILBOX"
    return (
        f"curl {scheme}://{host}:{port}{' --ssl-reqd' if tls == 'starttls' else ''}{trust} "
        f'--login-options AUTH=XOAUTH2 --user {shlex.quote(mailbox)}: --oauth2-bearer "$TOKEN" '
        f"--mail-from {shlex.quote(mailbox)} --mail-rcpt someone@example.org -T mail.eml"
    )


def _table(settings: ProviderSettings) -> list[tuple[str, str, str]]:
    """Return the rows that describe the settings in effect and the faults."""
    rows = describe(settings.behaviour)
    endpoint = settings.token_endpoint
    rows.append(("ttl_seconds", f"{endpoint.ttl_seconds:g}", "Lifetime of access tokens."))
    rows.append(("rotation", endpoint.rotation.value, "What happens to a refresh token after use."))
    for fault in settings.faults:
        rows.append((f"fault at {fault.step}", fault.action.value, fault.turn))
    if any(fault.rate is not None for fault in settings.faults) or settings.seed:
        rows.append(("seed", str(settings.seed), "Seed of the random numbers."))
    return rows


def command() -> TyperCommand:
    """Return the sub-command."""
    return single_command("sandbox", sandbox, help=HELP)
