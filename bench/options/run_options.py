"""The options of a run on the command line, declared once: name, type, limits and help.

They are a dataclass, so that every command that makes runs takes the same ones.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.client.endpoint import Tls
from bench.client.login import Mechanism
from bench.plan.arrivals import MAX_LATENESS_SECONDS
from bench.plan.scenarios import COMPARED_RUNS, SCENARIOS
from bench.plan.workloads import MAX_MESSAGE_BYTES, REPLY_SECONDS
from bench.targets.mailboxes import MAX_ACCOUNTS
from bench.targets.target_request import DEFAULT_ADMIN_URL, DEFAULT_HOST, DEFAULT_PORT

MAX_EMAILS = 10_000_000  # an octet of memory each
MAX_CONNECTIONS = 10_000
_MAX_PROCESSES = 64
MAX_COMPARED_RUNS = 100
_MAX_SECONDS = 7 * 86_400.0
PASSWORD_VARIABLE = "XOAUTH2_BENCH_PASSWORD"  # noqa: S105 - its name
MAX_RATE = 100_000.0  # messages a second

LOAD, MESSAGES, CLIENTS = "How much, and when", "Messages", "Clients"
LOGIN, SERVER, REPORT = "Login", "Server", "Ending and report"


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the user said about a run; None where nothing was said."""

    scenario: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(SCENARIOS)}; quick when nothing is given.", rich_help_panel=LOAD
        ),
    ] = None
    runs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_COMPARED_RUNS,
            help=f"With compare: runs on each side of the pause; {COMPARED_RUNS}.",
            rich_help_panel=LOAD,
        ),
    ] = None
    scenario_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="A case to run again, JSON or TOML: load, provider, faults and what has to come "
            "of it (xoauth2-bench schema scenario). It brings a proxy and a provider of its own; "
            "options of the load take the place of the file's.",
            rich_help_panel=LOAD,
        ),
    ] = None
    num_emails: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_EMAILS, help="Messages to send.", rich_help_panel=LOAD),
    ] = None
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=_MAX_SECONDS,
            help="Seconds to send for, instead of a number of messages.",
            rich_help_panel=LOAD,
        ),
    ] = None
    warmup: Annotated[
        float,
        typer.Option(
            min=0,
            max=_MAX_SECONDS,
            help="Seconds of the same load before that, left out of the figures.",
            rich_help_panel=LOAD,
        ),
    ] = 0.0
    concurrent: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_CONNECTIONS,
            help="Connections at most, each with one message in flight.",
            rich_help_panel=LOAD,
        ),
    ] = None
    processes: Annotated[
        int,
        typer.Option(
            min=1,
            max=_MAX_PROCESSES,
            help="Processes that send, for more load than one core can make.",
            rich_help_panel=LOAD,
        ),
    ] = 1
    arrival_rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=MAX_RATE,
            help="Open model: so many messages are due a second, whether a connection is free or "
            "not, and latency counts from then. Without it a connection sends its next message "
            "when the last one is answered.",
            rich_help_panel=LOAD,
        ),
    ] = None
    ramp_from: Annotated[
        float | None,
        typer.Option(
            min=0, max=MAX_RATE, help="Begin with this arrival rate …", rich_help_panel=LOAD
        ),
    ] = None
    ramp_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=_MAX_SECONDS,
            help="… and reach the full one after so many seconds.",
            rich_help_panel=LOAD,
        ),
    ] = None
    max_lateness: Annotated[
        float,
        typer.Option(
            min=0,
            max=_MAX_SECONDS,
            help="Drop, and count as dropped, what could not begin within so many seconds.",
            rich_help_panel=LOAD,
        ),
    ] = MAX_LATENESS_SECONDS

    to_email: Annotated[str, typer.Option("--to", help="Recipient.", rich_help_panel=MESSAGES)] = (
        "recipient@outlook.com"
    )
    recipients: Annotated[
        str,
        typer.Option(
            help="Recipients of a message, e.g. 3 or 1-5; further ones are sub-addresses of --to.",
            rich_help_panel=MESSAGES,
        ),
    ] = "1"
    size_bytes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_MESSAGE_BYTES,
            help="Size of a message, 4096; its header fields are the least.",
            rich_help_panel=MESSAGES,
        ),
    ] = None
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Several sizes with their weights, e.g. 4k:70,100k:25,1m:5.",
            rich_help_panel=MESSAGES,
        ),
    ] = None
    eml_dir: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Send the .eml files of this folder in turn.",
            rich_help_panel=MESSAGES,
        ),
    ] = None

    connection: Annotated[
        str | None,
        typer.Option(
            help="kept, per-message, or how many messages a connection carries; kept.",
            rich_help_panel=CLIENTS,
        ),
    ] = None
    pipelined: Annotated[
        bool,
        typer.Option(
            "--pipelined",
            help="Send MAIL, RCPT and DATA in one flight where PIPELINING is offered.",
            rich_help_panel=CLIENTS,
        ),
    ] = False
    slow: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="BYTES_PER_SECOND",
            help="Send content no faster than this.",
            rich_help_panel=CLIENTS,
        ),
    ] = None
    idle_clients: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=MAX_CONNECTIONS,
            help="Clients that log in and stay silent while the load runs.",
            rich_help_panel=CLIENTS,
        ),
    ] = None

    from_emails: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            help="Mailbox to log in and send as; may be repeated. The four mock mailboxes in "
            "turn with --use-mock-tokens.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    password: Annotated[
        str | None,
        typer.Option(
            envvar=PASSWORD_VARIABLE,
            help="The mailbox's password at the relay; its access token for xoauth2 and "
            "oauthbearer. The variable keeps it out of the process list.",
            rich_help_panel=LOGIN,
        ),
    ] = field(default=None, repr=False)
    mechanism: Annotated[
        Mechanism | None,
        typer.Option(
            help="How to log in; xoauth2 with --use-mock-tokens, else plain.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Do not log in at all.", rich_help_panel=LOGIN),
    ] = False
    use_mock_tokens: Annotated[
        bool,
        typer.Option(
            "--use-mock-tokens",
            help="Log in to the sandbox's mailboxes; start a private "
            "proxy if nothing listens at the default address.",
            rich_help_panel=LOGIN,
        ),
    ] = False
    accounts: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_ACCOUNTS,
            help="Send as so many mailboxes of its own, bench_user001@mock.test and so on: in a "
            "private proxy's configuration, or added to the running one by its admin server and "
            "removed afterwards.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    user_prefix: Annotated[
        str | None,
        typer.Option(help="What their names begin with; bench.", rich_help_panel=LOGIN),
    ] = None
    min_accounts: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_ACCOUNTS,
            help="Go on with so many when not all can be added; all are needed.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    no_cleanup: Annotated[
        bool,
        typer.Option(
            "--no-cleanup", help="Leave and list those that were added.", rich_help_panel=LOGIN
        ),
    ] = False
    token_ttl: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=_MAX_SECONDS,
            help="Seconds for which each mock token is good, an hour; with storm those that the "
            "proxy gets.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    state_dir: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="The running proxy's --state-dir, which holds the key of the mock tokens.",
            rich_help_panel=LOGIN,
        ),
    ] = None

    host: Annotated[
        str | None, typer.Option(help=f"The relay; {DEFAULT_HOST}.", rich_help_panel=SERVER)
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65535, help=f"Its SMTP port; {DEFAULT_PORT}.", rich_help_panel=SERVER
        ),
    ] = None
    admin_url: Annotated[
        str | None,
        typer.Option(
            help=f"Its admin server, {DEFAULT_ADMIN_URL}; or a sandbox's HTTP address, to "
            "compare what was acknowledged with what arrived.",
            rich_help_panel=SERVER,
        ),
    ] = None
    tls: Annotated[
        Tls, typer.Option(help="How to protect the connection.", rich_help_panel=SERVER)
    ] = Tls.NONE
    ca_file: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Certificates to trust, in PEM.",
            rich_help_panel=SERVER,
        ),
    ] = None
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Let traffic leave loopback.", rich_help_panel=SERVER),
    ] = False

    reply_seconds: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=0.1,
            max=3600,
            help="Seconds to wait for a reply before the message counts as failed.",
            rich_help_panel=REPORT,
        ),
    ] = REPLY_SECONDS
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            max=3600,
            help="How long sends in flight may take after Ctrl+C.",
            rich_help_panel=REPORT,
        ),
    ] = 30.0
    assertions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="EXPRESSION",
            help="What the run has to reach, e.g. 'p95<=500ms' or 'lost==0'; several may follow. "
            "They decide instead of the rule that every message must succeed; exit code 2 "
            "when one is not met.",
            rich_help_panel=REPORT,
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False,
            help="JSON file; xoauth2-bench-<UTC time>.json.",
            rich_help_panel=REPORT,
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            dir_okay=False, help="A page with the figures and pictures.", rich_help_panel=REPORT
        ),
    ] = None
    prometheus_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Show the run to Prometheus on this port of 127.0.0.1 while it lasts; 0: any.",
            rich_help_panel=REPORT,
        ),
    ] = None
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print the JSON only; a file only with --output.",
            rich_help_panel=REPORT,
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose", help="Tell each failure at once; never ask.", rich_help_panel=REPORT
        ),
    ] = False
    yes: Annotated[bool, typer.Option("--yes", help="Never ask.", rich_help_panel=REPORT)] = False
