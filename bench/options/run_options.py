"""The command-line options of a run: name, type, limits and help.

They form a dataclass that all commands with runs share.
"""

# Annotations are read by typer when the command is built, so they stay real objects here.
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from bench.analysis.assertions import PRESETS
from bench.client.endpoint import Tls
from bench.client.login import Mechanism
from bench.plan.arrivals import MAX_LATENESS_SECONDS
from bench.plan.scenarios import COMPARED_RUNS, SCENARIOS
from bench.plan.workloads import MAX_MESSAGE_BYTES, REPLY_SECONDS
from bench.sign_in.request import (
    AT_ONCE,
    PAGES_AT_ONCE,
    STAGGER_SECONDS,
    BrowserName,
    SignInMethod,
    UpstreamTls,
)
from bench.targets.mailboxes import MAX_ACCOUNTS
from bench.targets.target_request import DEFAULT_ADMIN_URL, DEFAULT_HOST, DEFAULT_PORT

MAX_EMAILS = 10_000_000  # an octet of memory each
MAX_CONNECTIONS = 10_000
_MAX_PROCESSES = 64
MAX_COMPARED_RUNS = 100
_MAX_SECONDS = 7 * 86_400.0
PASSWORD_VARIABLE = "XOAUTH2_BENCH_PASSWORD"  # noqa: S105 - its name
MAX_RATE = 100_000.0  # messages a second

_PRESETS = "; ".join(f"{name} stands for {' '.join(of)}" for name, of in PRESETS.items())

LOAD, MESSAGES, CLIENTS = "Load", "Messages", "Clients"
LOGIN, SIGN_IN, SERVER, REPORT = "Login", "Sign-in", "Server", "End of run and reports"
CLIENT_SECRET_VARIABLE = "XOAUTH2_BENCH_CLIENT_SECRET"  # noqa: S105 - its name
USER_PASSWORD_VARIABLE = "XOAUTH2_BENCH_USER_PASSWORD"  # noqa: S105 - its name


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of a run; None if not given."""

    scenario: Annotated[
        str | None,
        typer.Option(
            "--scenario",
            "--workload",
            metavar="NAME",
            help=f"One of {', '.join(SCENARIOS)}. Default: quick, if no other load is given.",
            rich_help_panel=LOAD,
        ),
    ] = None
    runs: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_COMPARED_RUNS,
            help="With --scenario compare: runs before and after the pause. "
            f"Default: {COMPARED_RUNS}.",
            rich_help_panel=LOAD,
        ),
    ] = None
    scenario_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="A test case in JSON or TOML: load, provider, faults and expected result (form: "
            "xoauth2-bench schema scenario). It starts its own proxy and provider. Load options "
            "on the command line override the file.",
            rich_help_panel=LOAD,
        ),
    ] = None
    num_emails: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, max=MAX_EMAILS, help="Messages to send.", rich_help_panel=LOAD
        ),
    ] = None
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="SECONDS",
            min=0.1,
            max=_MAX_SECONDS,
            help="Seconds to send for, instead of --num-emails.",
            rich_help_panel=LOAD,
        ),
    ] = None
    warmup: Annotated[
        float,
        typer.Option(
            "--warmup",
            "-w",
            metavar="SECONDS",
            min=0,
            max=_MAX_SECONDS,
            help="Seconds of the same load beforehand, not counted in the results.",
            rich_help_panel=LOAD,
        ),
    ] = 0.0
    concurrent: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_CONNECTIONS,
            help="Maximum number of connections, each with one message in flight.",
            rich_help_panel=LOAD,
        ),
    ] = None
    users: Annotated[
        int | None,
        typer.Option(
            "--users",
            "-u",
            metavar="NUMBER",
            min=1,
            max=MAX_ACCOUNTS,
            help="As many users, each with a mailbox and a connection of its own: the same as "
            "--accounts and --concurrent with this number.",
            rich_help_panel=LOAD,
        ),
    ] = None
    processes: Annotated[
        int,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=_MAX_PROCESSES,
            help="Number of sending processes, for more load than one CPU core can generate.",
            rich_help_panel=LOAD,
        ),
    ] = 1
    arrival_rate: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            min=0.001,
            max=MAX_RATE,
            help="Open model: messages due per second, whether or not a connection is free. "
            "Latency is measured from the due time. Without it, a connection sends its next "
            "message when the previous one has been answered (closed model).",
            rich_help_panel=LOAD,
        ),
    ] = None
    ramp_from: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            min=0,
            max=MAX_RATE,
            help="Start at this arrival rate. Requires --ramp-seconds.",
            rich_help_panel=LOAD,
        ),
    ] = None
    ramp_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=_MAX_SECONDS,
            help="Seconds until the full arrival rate is reached.",
            rich_help_panel=LOAD,
        ),
    ] = None
    max_lateness: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=_MAX_SECONDS,
            help="Drop a message that could not be started this many seconds after its due time.",
            rich_help_panel=LOAD,
        ),
    ] = MAX_LATENESS_SECONDS

    to_email: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="Recipient.", rich_help_panel=MESSAGES)
    ] = "recipient@outlook.com"
    recipients: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            help="Recipients per message, such as 3 or 1-5. Further recipients are subaddresses of "
            "--to. Default: 1.",
            rich_help_panel=MESSAGES,
        ),
    ] = None
    size_bytes: Annotated[
        int | None,
        typer.Option(
            metavar="BYTES",
            min=1,
            max=MAX_MESSAGE_BYTES,
            help="Message size. Default: 4096. A message is never smaller than its header.",
            rich_help_panel=MESSAGES,
        ),
    ] = None
    sizes: Annotated[
        str | None,
        typer.Option(
            metavar="SIZES",
            help="Several sizes with weights, such as 4k:70,100k:25,1m:5.",
            rich_help_panel=MESSAGES,
        ),
    ] = None
    eml_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Send the .eml files in this directory in turn.",
            rich_help_panel=MESSAGES,
        ),
    ] = None

    connection: Annotated[
        str | None,
        typer.Option(
            metavar="USE",
            help="kept, per-message, or the number of messages per connection. Default: kept.",
            rich_help_panel=CLIENTS,
        ),
    ] = None
    pipelined: Annotated[
        bool,
        typer.Option(
            "--pipelined",
            help="Send MAIL, RCPT and DATA in one write if the server offers PIPELINING.",
            rich_help_panel=CLIENTS,
        ),
    ] = False
    slow: Annotated[
        float | None,
        typer.Option(
            min=1,
            metavar="BYTES_PER_SECOND",
            help="Maximum speed at which message content is sent.",
            rich_help_panel=CLIENTS,
        ),
    ] = None
    idle_clients: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=0,
            max=MAX_CONNECTIONS,
            help="Number of additional clients that log in and stay idle during the run.",
            rich_help_panel=CLIENTS,
        ),
    ] = None

    from_emails: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="MAILBOX",
            help="Mailbox to log in as and send from. Repeatable. Default with --use-mock-tokens: "
            "the four mock mailboxes in turn.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    password: Annotated[
        str | None,
        typer.Option(
            metavar="PASSWORD",
            envvar=PASSWORD_VARIABLE,
            help="Password of the mailbox at the relay, or its access token with xoauth2 and "
            "oauthbearer. Use the environment variable to keep it out of the process list.",
            rich_help_panel=LOGIN,
        ),
    ] = field(default=None, repr=False)
    mechanism: Annotated[
        Mechanism | None,
        typer.Option(
            help="SASL mechanism. Default: xoauth2 with --use-mock-tokens, otherwise plain.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    no_auth: Annotated[
        bool,
        typer.Option("--no-auth", help="Do not log in.", rich_help_panel=LOGIN),
    ] = False
    use_mock_tokens: Annotated[
        bool,
        typer.Option(
            "--use-mock-tokens",
            help="Log in as the sandbox's mock mailboxes. Starts a private proxy if nothing "
            "listens at the default address.",
            rich_help_panel=LOGIN,
        ),
    ] = False
    accounts: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_ACCOUNTS,
            help="Create this many mailboxes for the run (bench_user001@mock.test and so on): in "
            "the configuration of a private proxy, or through the admin server of a running "
            "one. They are removed afterwards.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    user_prefix: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Prefix of the names of these mailboxes. Default: bench.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    min_accounts: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_ACCOUNTS,
            help="Continue if at least this many mailboxes could be added. Default: all.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    no_cleanup: Annotated[
        bool,
        typer.Option(
            "--no-cleanup/--cleanup",
            help="Keep what the run made and list it: the added mailboxes, or the directory of a "
            "private proxy. It is removed otherwise.",
            rich_help_panel=LOGIN,
        ),
    ] = False
    token_ttl: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0.1,
            max=_MAX_SECONDS,
            help="Lifetime of each mock token in seconds. Default: 3600. With --scenario storm: "
            "lifetime of the tokens that the proxy gets.",
            rich_help_panel=LOGIN,
        ),
    ] = None
    state_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="State directory of the running proxy, with the signing key of the mock tokens.",
            rich_help_panel=LOGIN,
        ),
    ] = None

    sign_in: Annotated[
        SignInMethod | None,
        typer.Option(
            help="With --accounts: the users sign in before the run, and their mail leaves on "
            "their grants. code: by plain HTTP through the provider's pages; browser: in a real "
            "browser (pip install 'xoauth2-proxy[bench]'); mint: with refresh tokens that the "
            "sandbox mints. The grants are revoked afterwards.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    browser: Annotated[
        BrowserName | None,
        typer.Option(help="Browser. Default: chromium.", rich_help_panel=SIGN_IN),
    ] = None
    headed: Annotated[
        bool,
        typer.Option("--headed", help="Show the browser's windows.", rich_help_panel=SIGN_IN),
    ] = False
    stagger: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=3600,
            help=f"Seconds between the beginnings of two sign-ins. Default: {STAGGER_SECONDS:g}.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    sign_ins_at_once: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            min=1,
            max=MAX_ACCOUNTS,
            help=f"Maximum number of users who sign in at one time. Default: {AT_ONCE}, in a "
            f"browser {PAGES_AT_ONCE}.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    issuer: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Sign in at this OpenID provider, instead of the sandbox.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="With --issuer: the mail server that accepts its tokens.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    upstream_tls: Annotated[
        UpstreamTls | None,
        typer.Option(help="TLS mode of that server. Default: starttls.", rich_help_panel=SIGN_IN),
    ] = None
    client_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="OAuth client to sign in to. Default: one that is registered (RFC 7591) and kept "
            "for the next run.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    client_secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="File with the secret of --client-id. Or set the environment variable "
            f"{CLIENT_SECRET_VARIABLE}.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    scopes: Annotated[
        str | None,
        typer.Option(
            metavar="SCOPES",
            help="Scopes to ask for, separated by blanks. Default: openid email offline_access.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None
    callback_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help="Port of 127.0.0.1 that the provider sends the users back to, at /callback. "
            "Default: any free one.",
            rich_help_panel=SIGN_IN,
        ),
    ] = None

    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help=f"Host name of the relay. Default: {DEFAULT_HOST}.",
            rich_help_panel=SERVER,
        ),
    ] = None
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=1,
            max=65535,
            help=f"SMTP port of the relay. Default: {DEFAULT_PORT}.",
            rich_help_panel=SERVER,
        ),
    ] = None
    admin_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Admin server of the proxy, or HTTP address of a sandbox, to compare the "
            f"acknowledged messages with those that arrived. Default: {DEFAULT_ADMIN_URL}.",
            rich_help_panel=SERVER,
        ),
    ] = None
    tls: Annotated[
        Tls, typer.Option(help="TLS mode of the connection.", rich_help_panel=SERVER)
    ] = Tls.NONE
    ca_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Trusted CA certificates (PEM).",
            rich_help_panel=SERVER,
        ),
    ] = None
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote",
            help="Allow a target that is not on a loopback address.",
            rich_help_panel=SERVER,
        ),
    ] = False

    reply_seconds: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.1,
            max=3600,
            help="Seconds to wait for a reply. After that, the message counts as failed.",
            rich_help_panel=REPORT,
        ),
    ] = REPLY_SECONDS
    drain_seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            max=3600,
            help="Seconds that messages in flight may take after Ctrl+C or the end of --duration.",
            rich_help_panel=REPORT,
        ),
    ] = 30.0
    assertions: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="EXPRESSION",
            help="Condition that the results must meet, such as 'p95<=500ms' or 'lost==0'. Several "
            f"may follow. {_PRESETS}. They replace the rule that every message must succeed. "
            "Exit code 2 if one is not met.",
            rich_help_panel=REPORT,
        ),
    ] = None
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            dir_okay=False,
            help="Write the results to this JSON file. Default: xoauth2-bench-<UTC time>.json.",
            rich_help_panel=REPORT,
        ),
    ] = None
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            help="Write a report with charts to this HTML file.",
            rich_help_panel=REPORT,
        ),
    ] = None
    prometheus_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics on this port of 127.0.0.1 during the run. 0: any port.",
            rich_help_panel=REPORT,
        ),
    ] = None
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print only JSON. Write a file only with --output.",
            rich_help_panel=REPORT,
        ),
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            help="Print each failure when it happens. Never ask for confirmation.",
            rich_help_panel=REPORT,
        ),
    ] = False
    yes: Annotated[
        bool, typer.Option("--yes", help="Never ask for confirmation.", rich_help_panel=REPORT)
    ] = False
