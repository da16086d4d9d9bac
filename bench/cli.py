"""The command line of xoauth2-bench. Each command's modules are imported when it is called.

Exit codes: 0 every message sent and accounted for (with --assert: every assertion met, and no
message lost, duplicated or changed), 1 otherwise, 2 incorrect usage or an assertion not met, 130 or
143 stopped by SIGINT or SIGTERM.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
import importlib
from typing import Annotated, Any

import typer

from bench.options.dataclass_options import GroupedHelp, command_with_options, options_given
from bench.options.run_options import RunOptions
from bench.plan.scenarios import SCENARIOS
from xoauth2_proxy import __version__

_HELP = """Measure an SMTP relay: throughput, latency, and whether every message arrived.

Sends generated messages over persistent connections, one message in flight on each, and counts
every message as succeeded, failed, not attempted or dropped. If the sandbox is the provider, it
also compares the acknowledged messages with those that arrived. Works with any SMTP server.
"""
# "\b" keeps the lines of a paragraph as they are.
_EPILOG = """\b
A first run. Starts a private proxy if none is running:
  xoauth2-bench --scenario quick --use-mock-tokens

\b
Your own load, sent from one mailbox with its password:
  xoauth2-bench --num-emails 300 --concurrent 20 \\
      --from test.account1@gmail.com --password secret

\b
A fixed arrival rate, whether or not the relay keeps up, after a warm-up:
  xoauth2-bench --use-mock-tokens --arrival-rate 200 --duration 30 --warmup 5

\b
Before and after a change, with a pause to make it:
  xoauth2-bench --scenario compare --use-mock-tokens

\b
Fifty users, ten messages each, against the usual thresholds:
  xoauth2-bench --scenario users --assert @default

\b
In a script:
  xoauth2-bench --use-mock-tokens --json --assert 'p95<=500ms' | jq .results.throughput_rps

Press Ctrl+C once to stop after the messages in flight and print a report, twice to stop at once.
The exit code is 0 only if every message was sent and none was lost, duplicated or changed. It is 2
for incorrect usage and for an assertion that is not met.
"""

# The sub-commands: `command()` in the module of that name builds each.
_COMMANDS = {
    "compare": "Tell whether a change made a difference.",
    "cost": "Measure what a relay process costs per message.",
    "sandbox": "Run a mail provider for tests, with XOAUTH2.",
    "schema": "Print the JSON Schema of a document or scenario file.",
    "sweep": "Raise the load step by step and find the knee.",
    "tokens": "List, show, mint and verify the sandbox's tokens.",
}


class _Program(GroupedHelp):
    """The main command, which imports a sub-command only when it is called."""

    # typer's own types of these differ between its versions.
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401
        """Return the names of the sub-commands."""
        return [*_COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401
        """Return the sub-command of this name; None if there is none."""
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(f"bench.commands.{cmd_name}").command()

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the list of sub-commands."""
        with formatter.section("Commands"):
            formatter.write_dl([*_COMMANDS.items()])


_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def main() -> None:
    """Run the command.

    Raises:
        SystemExit: with its exit code.
    """
    _app(prog_name="xoauth2-bench")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"xoauth2-bench {__version__}")  # noqa: T201
        raise typer.Exit


def _show_scenarios(is_wanted: bool) -> None:
    if not is_wanted:
        return
    rows = [("scenario", "title", "messages", "connections", "what for")]
    rows += [
        (one.name, one.title, one.amount, str(one.concurrent), one.purpose)
        for one in SCENARIOS.values()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(" ".join(cells).rstrip())  # noqa: T201
    raise typer.Exit


_List = Annotated[
    bool,
    typer.Option("--list", help="List the scenarios.", callback=_show_scenarios, is_eager=True),
]
_Version = Annotated[
    bool,
    typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
]


def _bench(context: typer.Context, options: RunOptions) -> None:
    given = options_given(context)
    if context.invoked_subcommand is None:
        from bench.commands import run  # a run needs most of the program

        run.run(options, given)
    for name in given:  # before a sub-command they would have no effect
        raise typer.BadParameter(
            f"has no effect before {context.invoked_subcommand}. Give it afterwards.",
            param_hint=f"--{name.replace('_', '-')}",
        )


_app.callback(invoke_without_command=True, cls=_Program, help=_HELP, epilog=_EPILOG)(
    command_with_options(RunOptions, _bench, list_scenarios=_List, version=_Version)
)
