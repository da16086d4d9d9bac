"""The command line of xoauth2-bench: options, prompts and exit codes.

Exit codes: 0 every message sent and accounted for, 1 not so, 2 wrong usage, 130 or 143 stopped by
SIGINT or SIGTERM.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import asyncio
import os
import re
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import platformdirs
import typer
from rich.console import Console
from rich.table import Table

from bench import sandbox_command
from bench.cost import cli as cost_command
from bench.interruption import Interruption
from bench.reports import json_export, terminal
from bench.reports.progress import Progress
from bench.result import Run
from bench.run import RunRequest, run_once, run_twice
from bench.scenarios import COMPARE, CUSTOM, SCENARIOS, Plan
from bench.serve import loop_factory
from bench.submission import Mechanism, Tls
from bench.target import (
    DEFAULT_ADMIN_URL,
    DEFAULT_HOST,
    DEFAULT_PORT,
    StartInterrupted,
    TargetError,
    TargetRequest,
)
from xoauth2_proxy import __version__
from xoauth2_proxy.mock_tokens import MOCK_MAILBOXES

_MOCK_PASSWORD = "secret"  # noqa: S105 - the mock mailboxes' published password
_PROMPT_ABOVE_EMAILS = 500
_MAX_EMAILS = 10_000_000  # two octets of memory each
_MAX_CONNECTIONS = 10_000
_MAX_MESSAGE_BYTES = 100_000_000
_ADDRESS = re.compile(r"[!-;=?A-~]+@[!-;=?A-~]+")  # printable ASCII without <, > and blanks

_HELP = """Measure an SMTP relay: throughput, latency, and whether every message arrived.

Sends generated messages over kept connections, one message in flight on each, and counts every
one as succeeded, failed or not attempted. With the sandbox as the provider it also compares what
was acknowledged with what arrived.
"""
# "\b" keeps the lines of a paragraph as they are.
_EPILOG = """\b
A first look; starts a private proxy if none is running:
  xoauth2-bench --scenario quick --use-mock-tokens

\b
Your own numbers, as one mailbox with its password:
  xoauth2-bench --num-emails 300 --concurrent 20 \\
      --from test.account1@gmail.com --password secret

\b
Before and after a change, with a pause to make it:
  xoauth2-bench --scenario compare --use-mock-tokens

\b
For a script:
  xoauth2-bench --use-mock-tokens --json | jq .results.throughput_rps

Ctrl+C once ends the run after the sends in flight, and reports; twice ends it at once. The exit
code is 0 only if every message was sent and none lost, doubled or changed.
"""

_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    path: Path | None  # None: no file
    is_json: bool
    is_verbose: bool
    is_confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credentials:
    mailboxes: tuple[str, ...]
    mechanism: Mechanism
    secret: str | None = field(repr=False)


def main() -> NoReturn:
    """Run the command and end the process with its exit code."""
    try:
        _app(prog_name="xoauth2-bench")
    except KeyboardInterrupt:  # before the event loop takes the signals
        sys.exit(130)
    sys.exit(0)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"xoauth2-bench {__version__}")  # noqa: T201
        raise typer.Exit


def _show_scenarios(is_wanted: bool) -> None:
    if not is_wanted:
        return
    table = Table("scenario", "title", "messages", "connections", "what for", box=None)
    for scenario in SCENARIOS.values():
        times = "2 × " if scenario.name == COMPARE else ""
        table.add_row(
            scenario.name,
            scenario.title,
            f"{times}{scenario.num_emails}",
            str(scenario.concurrent),
            scenario.purpose,
        )
    Console(highlight=False).print(table)
    raise typer.Exit


@_app.callback(invoke_without_command=True, help=_HELP, epilog=_EPILOG)
def _bench(  # noqa: PLR0913 - one parameter an option
    context: typer.Context,
    *,
    scenario: Annotated[
        str | None, typer.Option(help=f"{', '.join(SCENARIOS)}; quick when nothing is given.")
    ] = None,
    list_scenarios: Annotated[
        bool,
        typer.Option("--list", help="List the scenarios.", callback=_show_scenarios, is_eager=True),
    ] = False,
    num_emails: Annotated[
        int | None, typer.Option(min=1, max=_MAX_EMAILS, help="Messages to send.")
    ] = None,
    concurrent: Annotated[
        int | None, typer.Option(min=1, max=_MAX_CONNECTIONS, help="Connections kept at once.")
    ] = None,
    from_email: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Mailbox to log in and send as; the four mock mailboxes "
            "in turn with --use-mock-tokens.",
        ),
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="XOAUTH2_BENCH_PASSWORD",
            help="The mailbox's password at the relay; its access token for xoauth2 and "
            "oauthbearer. The variable keeps it out of the process list.",
        ),
    ] = None,
    to_email: Annotated[str, typer.Option("--to", help="Recipient.")] = "recipient@outlook.com",
    size_bytes: Annotated[
        int,
        typer.Option(
            min=1,
            max=_MAX_MESSAGE_BYTES,
            help="Size of a message; its header fields are the least.",
        ),
    ] = 4096,
    host: Annotated[str | None, typer.Option(help=f"The relay; {DEFAULT_HOST}.")] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"Its SMTP port; {DEFAULT_PORT}.")
    ] = None,
    admin_url: Annotated[
        str | None, typer.Option(help=f"Its admin server, for /health; {DEFAULT_ADMIN_URL}.")
    ] = None,
    tls: Annotated[Tls, typer.Option(help="How to protect the connection.")] = Tls.NONE,
    ca_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Certificates to trust, in PEM."),
    ] = None,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let traffic leave loopback.")
    ] = False,
    mechanism: Annotated[
        Mechanism | None,
        typer.Option(help="How to log in; xoauth2 with --use-mock-tokens, else plain."),
    ] = None,
    use_mock_tokens: Annotated[
        bool,
        typer.Option(
            "--use-mock-tokens",
            help="Log in to the sandbox's mailboxes; start a private "
            "proxy if nothing listens at the default address.",
        ),
    ] = False,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="The running proxy's --state-dir, which holds the key of the mock tokens.",
        ),
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, max=3600, help="How long sends in flight may take after Ctrl+C.")
    ] = 30.0,
    output: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="JSON file; xoauth2-bench-<UTC time>.json."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the JSON only; a file only with --output.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Tell each failure at once; never ask.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Never ask.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    credentials = _credentials(from_email, password, mechanism, use_mock_tokens=use_mock_tokens)
    plan = _plan(
        scenario,
        num_emails,
        concurrent,
        mailboxes=credentials.mailboxes,
        to_email=_address(to_email, "--to"),
        size_bytes=size_bytes,
        drain_seconds=drain_seconds,
    )
    request = RunRequest(
        plan=plan,
        target=TargetRequest(
            host=host,
            port=port,
            admin_url=admin_url,
            tls=tls,
            ca_file=ca_file,
            allow_remote=allow_remote,
            may_start_private=use_mock_tokens and tls is Tls.NONE,
            state_dir=state_dir or Path(platformdirs.user_state_dir("xoauth2-proxy")),
        ),
        mechanism=credentials.mechanism,
        secret=credentials.secret,
    )
    out = _Output(
        path=_output_path(output, as_json=as_json),
        is_json=as_json,
        is_verbose=verbose,
        is_confirmed=yes or verbose,
    )
    _confirm(plan, out)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        code = runner.run(_bench_and_report(request, out))
    raise typer.Exit(code)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options in front of a sub-command, which would do nothing."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"stands in front of {context.invoked_subcommand}, which does not take it.",
                param_hint=f"--{name.replace('_', '-')}",
            )


def _plan(  # noqa: PLR0913 - the command line's words
    scenario: str | None,
    num_emails: int | None,
    concurrent: int | None,
    *,
    mailboxes: tuple[str, ...],
    to_email: str,
    size_bytes: int,
    drain_seconds: float,
) -> Plan:
    if scenario is not None and scenario not in SCENARIOS:
        names = ", ".join(SCENARIOS)
        raise typer.BadParameter(f"{scenario!r} is not one of {names}.", param_hint="--scenario")
    is_custom = scenario is None and (num_emails is not None or concurrent is not None)
    named = SCENARIOS[scenario or "quick"]
    return Plan(
        scenario=CUSTOM if is_custom else named.name,
        num_emails=named.num_emails if num_emails is None else num_emails,
        concurrent=named.concurrent if concurrent is None else concurrent,
        mailboxes=mailboxes,
        to_email=to_email,
        size_bytes=size_bytes,
        drain_seconds=drain_seconds,
    )


def _credentials(
    from_email: str | None,
    password: str | None,
    mechanism: Mechanism | None,
    *,
    use_mock_tokens: bool,
) -> _Credentials:
    if mechanism is None:
        mechanism = Mechanism.XOAUTH2 if use_mock_tokens else Mechanism.PLAIN
    if from_email is not None:
        mailboxes: tuple[str, ...] = (_address(from_email, "--from"),)
    elif use_mock_tokens:
        mailboxes = MOCK_MAILBOXES
    else:
        raise typer.BadParameter(
            "give the mailbox to log in as, with its --password; or --use-mock-tokens for the "
            "sandbox's mailboxes.",
            param_hint="--from",
        )
    if password is None and use_mock_tokens and not mechanism.takes_token:
        password = _MOCK_PASSWORD
    if password is None and not use_mock_tokens:
        raise typer.BadParameter(
            f"give the mailbox's {'access token' if mechanism.takes_token else 'password'}.",
            param_hint="--password",
        )
    return _Credentials(mailboxes=mailboxes, mechanism=mechanism, secret=password)


def _address(text: str, option: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is not a mail address.", param_hint=option)
    return text


def _output_path(output: Path | None, *, as_json: bool) -> Path | None:
    if output is None and as_json:
        return None
    path = output or Path(f"xoauth2-bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{path.parent} cannot be written to.", param_hint="--output")
    return path


def _confirm(plan: Plan, out: _Output) -> None:
    if plan.num_emails <= _PROMPT_ABOVE_EMAILS or out.is_confirmed or not sys.stdin.isatty():
        return
    question = f"Send {plan.num_emails} messages over {plan.concurrent} connections?"
    try:
        is_wanted = typer.confirm(question, err=True)
    except typer.Abort as error:  # Ctrl+C or Ctrl+D
        is_interrupted = isinstance(error.__context__, KeyboardInterrupt)
        raise typer.Exit(130 if is_interrupted else 1) from None
    if not is_wanted:
        raise typer.Exit(1)


async def _bench_and_report(request: RunRequest, out: _Output) -> int:
    progress = Progress(is_silent=out.is_json, is_verbose=out.is_verbose)
    with Interruption() as interruption:
        try:
            if request.plan.scenario == COMPARE:
                runs = await run_twice(
                    request, interruption, progress, lambda: _pause(interruption, out)
                )
            else:
                runs = [await run_once(request, interruption, progress)]
        except TargetError as error:
            print(error, file=sys.stderr)  # noqa: T201
            return interruption.exit_code or 1
        except StartInterrupted:
            print("Stopped before the first message was sent.", file=sys.stderr)  # noqa: T201
            return interruption.exit_code
        is_saved = _report(request, runs, out)
        is_success = is_saved and all(run.is_success for run in runs)
        return interruption.exit_code or (0 if is_success else 1)


async def _pause(interruption: Interruption, out: _Output) -> None:
    if out.is_confirmed or not sys.stdin.isatty():
        return
    print("Make the change, restart the proxy, then press ENTER.", file=sys.stderr)  # noqa: T201
    pressed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, pressed.set)
    waits = [asyncio.create_task(event.wait()) for event in (pressed, interruption.requested)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(sys.stdin)
        for wait in waits:
            wait.cancel()
    if pressed.is_set():
        os.read(sys.stdin.fileno(), 4096)  # the line; a terminal hands it over whole


def _report(request: RunRequest, runs: list[Run], out: _Output) -> bool:
    """Write and print what came of the runs; return whether it was written."""
    is_comparison = request.plan.scenario == COMPARE
    document = (
        json_export.comparison_document(runs) if is_comparison else json_export.document(runs[0])
    )
    complaint = ""
    if out.path is not None:
        try:
            json_export.write(document, out.path)
        except OSError as error:
            complaint = f"The results could not be saved: {error}"
    if out.is_json:
        print(json_export.encode(document), end="")  # noqa: T201
    else:
        _print_report(runs, out.path if not complaint else None)
    for line in filter(None, (complaint, _advice(request, runs))):
        print(line, file=sys.stderr)  # noqa: T201
    return not complaint


def _print_report(runs: list[Run], saved_to: Path | None) -> None:
    parts = [terminal.render(run) for run in runs]
    if len(runs) > 1:
        parts.append(terminal.render_comparison(*runs))
    if saved_to is not None:
        parts.append(f"Results saved to: {saved_to}\n")
    terminal.show(Console(highlight=False), "\n".join(parts))


def _advice(request: RunRequest, runs: list[Run]) -> str:
    is_refused = any(error.failure.code == "535" for run in runs for error in run.result.errors)
    if request.secret is not None or not is_refused:
        return ""
    return (
        "Mock tokens were refused (535): is the proxy running with --sandbox and the same "
        f"--state-dir ({request.target.state_dir})?"
    )


_app.command("cost", help=cost_command.HELP)(cost_command.cost)
_app.command("sandbox", help=sandbox_command.HELP)(sandbox_command.sandbox)
