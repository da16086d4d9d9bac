"""Builds the plan of a run from the command line's options, and reports errors in them.

All checks that need no network are made here, before a message is sent.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import platformdirs
import typer

from bench.analysis import assertions
from bench.client.endpoint import Tls
from bench.client.login import Mechanism
from bench.load.messages import MessagesUnusable, read_folder
from bench.options.account_options import accounts_of
from bench.options.run_options import MAX_EMAILS, PASSWORD_VARIABLE
from bench.options.sign_in_options import sign_in_of
from bench.plan.arrivals import Pace, Rate
from bench.plan.scenarios import COMPARE, COMPARED_RUNS, CUSTOM, OTHER_NAMES, SCENARIOS, RunPlan
from bench.plan.workloads import ConnectionReuse, Recipients, Sizes, Workload
from bench.runs.run_request import RunRequest
from bench.targets.target_request import PrivateProxyOptions, TargetRequest
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bench.options.run_options import RunOptions
    from bench.plan.scenarios import Scenario
    from bench.sign_in.request import SignInRequest
    from bench.targets.mailboxes import MailboxesToAdd

_MOCK_PASSWORD = "secret"  # noqa: S105 - the mock mailboxes' published password
_SENDER_WITHOUT_LOGIN = "sender@bench.invalid"
_ADDRESS = re.compile(r"[!-;=?A-~]+@[!-;=?A-~]+")  # printable ASCII without <, > and blanks
# The options that make a run differ from the scenario `quick`.
_CUSTOM = (
    "num_emails",
    "duration",
    "concurrent",
    "arrival_rate",
    "connection",
    "idle_clients",
    "sizes",
    "eml_dir",
)

_NOT_WITH_ITS_OWN = {
    "host": "--host",
    "port": "--port",
    "admin_url": "--admin-url",
    "allow_remote": "--allow-remote",
    "state_dir": "--state-dir",
    "no_auth": "--no-auth",
    "from_emails": "--from",
    "password": "--password",
    "sign_in": "--sign-in",
}

T = TypeVar("T")
GivenT = TypeVar("GivenT")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where the results go."""

    path: Path | None  # of the JSON; None: no file
    html: Path | None  # None: no HTML report
    assertions: tuple[str, ...]
    is_json: bool
    is_verbose: bool
    is_confirmed: bool


def request_of(options: RunOptions) -> RunRequest:
    """Return the request for one or several runs.

    Raises:
        typer.BadParameter: an option is wrong, or does not go with another.
    """
    scenario = _scenario(options)
    options = _with_accounts(_without_foreign_password(options, scenario), scenario)
    if scenario.provider is not None:
        options = _with_its_own(options, scenario)
    mechanism = _mechanism(options)
    accounts = accounts_of(options)
    sign_in = sign_in_of(options, mechanism, _state_dir(options))
    is_mock = options.use_mock_tokens or accounts is not None
    if options.no_cleanup and not is_mock:
        _refuse("--no-cleanup", "keeps what a run makes: --accounts, or --use-mock-tokens.")
    is_token = is_mock and mechanism.takes_token and options.password is None
    if options.token_ttl is not None and not is_token and scenario.provider is None:
        _refuse(
            "--token-ttl",
            "applies to mock tokens only: --use-mock-tokens with xoauth2 or oauthbearer.",
        )
    workload = _workload(options, scenario)
    concurrent = options.concurrent or scenario.concurrent
    if options.processes > concurrent:
        _refuse("--processes", f"exceeds the number of connections ({concurrent}).")
    return RunRequest(
        plan=RunPlan(
            scenario=scenario.name if not _is_custom(options) else CUSTOM,
            pace=_pace(options, scenario),
            concurrent=concurrent,
            workload=workload,
            mailboxes=_mailboxes(options, mechanism, accounts),
            to_email=_address(options.to_email, "--to"),
            drain_seconds=options.drain_seconds,
            reply_seconds=options.reply_seconds,
            processes=options.processes,
        ),
        target=_target(options, mechanism, accounts, _provider(options, scenario), sign_in),
        mechanism=mechanism,
        secret=_secret(options, mechanism),
        token_ttl_seconds=options.token_ttl or scenario.token_ttl_seconds,
        files=_files(options),
        accounts=accounts,
        sign_in=sign_in,
        prometheus_port=options.prometheus_port,
        runs=_runs(options),
    )


def output_of(options: RunOptions) -> OutputOptions:
    """Return where the results go.

    Raises:
        typer.BadParameter: they cannot go there, or an assertion is none.
    """
    expressions = _parsed("--assert", assertions.expanded, options.assertions or [])
    for expression in expressions:
        _parsed("--assert", assertions.parse, expression)
    if expressions and options.scenario == COMPARE:
        _refuse("--assert", "applies to a single run, not to --scenario compare.")
    if options.as_json and options.prometheus_port == 0:
        _refuse(
            "--prometheus-port",
            "cannot be 0 with --json, which does not print the port. Choose a port.",
        )
    path = options.output
    if path is None and not options.as_json:
        path = Path(f"xoauth2-bench-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    if path is not None and options.html is not None and path.resolve() == options.html.resolve():
        _refuse("--html", "is the same file as --output.")
    return OutputOptions(
        path=_writable(path, "--output"),
        html=_writable(options.html, "--html"),
        assertions=tuple(expressions),
        is_json=options.as_json,
        is_verbose=options.verbose,
        is_confirmed=options.yes or options.verbose,
    )


def _runs(options: RunOptions) -> int:
    if options.scenario == COMPARE:
        return options.runs or COMPARED_RUNS
    if options.runs is not None:
        _refuse("--runs", "applies to --scenario compare only.")
    return 1


def _scenario(options: RunOptions) -> Scenario:
    name = options.scenario or "quick"
    name = OTHER_NAMES.get(name, name)
    if name not in SCENARIOS:
        _refuse("--scenario", f"{name!r} is not one of {', '.join(SCENARIOS)}.")
    return SCENARIOS[name]


def _is_custom(options: RunOptions) -> bool:
    return options.scenario is None and any(getattr(options, name) is not None for name in _CUSTOM)


def _pace(options: RunOptions, scenario: Scenario) -> Pace:
    if options.num_emails is not None and options.duration is not None:
        _refuse("--duration", "cannot be combined with --num-emails.")
    num_emails, duration = options.num_emails, options.duration
    if num_emails is None and duration is None:
        num_emails, duration = scenario.num_emails, scenario.duration_seconds
    pace = Pace(
        num_emails=num_emails,
        duration_seconds=duration,
        warmup_seconds=options.warmup,
        rate=_rate(options, scenario),
        max_lateness_seconds=options.max_lateness,
    )
    if pace.is_empty:
        _refuse("--arrival-rate", "is too low: no message would be due in the measured time.")
    if (pace.planned or 0) + (pace.warmup_count or 0) > MAX_EMAILS:
        _refuse("--arrival-rate", f"is too high: more than {MAX_EMAILS} messages would be due.")
    return pace


def _rate(options: RunOptions, scenario: Scenario) -> Rate | None:
    per_second = options.arrival_rate or scenario.arrival_rate
    has_ramp = options.ramp_from is not None or options.ramp_seconds is not None
    if per_second is None:
        if has_ramp:
            _refuse("--ramp-from", "requires --arrival-rate.")
        return None
    if not has_ramp:
        return Rate(per_second=per_second)
    if options.ramp_from is None or options.ramp_seconds is None:
        _refuse("--ramp-from", "requires --ramp-seconds as well, and the other way round.")
    return Rate(
        per_second=per_second,
        ramp_from_per_second=options.ramp_from or 0.0,
        ramp_seconds=options.ramp_seconds or 0.0,
    )


def _workload(options: RunOptions, scenario: Scenario) -> Workload:
    given = [
        name
        for name, value in (
            ("--size-bytes", options.size_bytes),
            ("--sizes", options.sizes),
            ("--eml-dir", options.eml_dir),
        )
        if value is not None
    ]
    if len(given) > 1:
        _refuse(given[1], f"cannot be combined with {given[0]}.")
    sizes = options.sizes or scenario.sizes or "4096"
    if options.size_bytes is not None:
        sizes = str(options.size_bytes)
    idle = options.idle_clients
    return Workload(
        sizes=_parsed("--sizes", Sizes.parse, sizes),
        eml_dir=options.eml_dir,
        recipients=_parsed(
            "--recipients", Recipients.parse, options.recipients or scenario.recipients
        ),
        reuse=_parsed(
            "--connection", ConnectionReuse.parse, options.connection or scenario.connection
        ),
        is_pipelined=options.pipelined,
        slow_bytes_per_second=options.slow,
        idle_clients=scenario.idle_clients if idle is None else idle,
    )


def _files(options: RunOptions) -> tuple[bytes, ...]:
    if options.eml_dir is None:
        return ()
    try:
        return read_folder(options.eml_dir)
    except MessagesUnusable as error:
        raise typer.BadParameter(str(error), param_hint="--eml-dir") from None


def _mechanism(options: RunOptions) -> Mechanism:
    if options.no_auth:
        if options.mechanism not in (None, Mechanism.NONE):
            _refuse("--no-auth", "cannot be combined with --mechanism.")
        if options.use_mock_tokens:
            _refuse("--no-auth", "cannot be combined with --use-mock-tokens.")
        return Mechanism.NONE
    if options.mechanism is None:
        return Mechanism.XOAUTH2 if options.use_mock_tokens else Mechanism.PLAIN
    return options.mechanism


def _mailboxes(
    options: RunOptions, mechanism: Mechanism, accounts: MailboxesToAdd | None
) -> tuple[str, ...]:
    if accounts is not None:
        return tuple(one.address for one in accounts.mailboxes)
    if options.from_emails:
        return tuple(_address(mailbox, "--from") for mailbox in options.from_emails)
    if options.use_mock_tokens:
        return MOCK_MAILBOXES
    if mechanism is not Mechanism.NONE:
        _refuse(
            "--from",
            "is required, with --password. Or use --use-mock-tokens for the sandbox's mailboxes, "
            "or --no-auth.",
        )
    return (_SENDER_WITHOUT_LOGIN,)


def _without_foreign_password(options: RunOptions, scenario: Scenario) -> RunOptions:
    """Return the options without a password that stands in the environment for other logins."""
    is_ours = options.use_mock_tokens or options.accounts or scenario.provider is not None
    if is_ours and options.password == os.environ.get(PASSWORD_VARIABLE):
        return replace(options, password=None)
    return options


def _secret(options: RunOptions, mechanism: Mechanism) -> str | None:
    if mechanism is Mechanism.NONE or options.accounts is not None:
        return None
    if options.password is None and options.use_mock_tokens:
        return None if mechanism.takes_token else _MOCK_PASSWORD
    if options.password is None:
        what = "access token" if mechanism.takes_token else "password"
        _refuse("--password", f"is required: the {what} of the mailbox.")
    try:
        options.password.encode()
    except UnicodeEncodeError:
        _refuse("--password", "is not UTF-8 (RFC 4616 §2).")
    return options.password


def _with_accounts(options: RunOptions, scenario: Scenario) -> RunOptions:
    """Return the options with the mailboxes to create that `--users` or the scenario asks for."""
    if options.users is not None:
        if options.accounts is not None:
            _refuse("--users", "cannot be combined with --accounts, which it gives itself.")
        concurrent = options.concurrent or options.users
        return replace(options, accounts=options.users, concurrent=concurrent)
    return replace(options, accounts=options.accounts or scenario.accounts)


def _with_its_own(options: RunOptions, scenario: Scenario) -> RunOptions:
    for name, option in _NOT_WITH_ITS_OWN.items():
        if getattr(options, name):
            _refuse(
                option,
                f"cannot be used with {scenario.name}, which starts its own proxy and provider.",
            )
    return replace(
        options,
        mechanism=options.mechanism or Mechanism.PLAIN,
    )


def _provider(options: RunOptions, scenario: Scenario) -> Mapping[str, object] | None:
    if scenario.provider is None:
        return None
    ttl_seconds = options.token_ttl or scenario.token_ttl_seconds
    return {**scenario.provider, "token_endpoint": {"ttl_seconds": ttl_seconds}}


def _target(
    options: RunOptions,
    mechanism: Mechanism,
    accounts: MailboxesToAdd | None,
    provider: Mapping[str, object] | None,
    sign_in: SignInRequest | None,
) -> TargetRequest:
    is_mock = options.use_mock_tokens or accounts is not None
    goes_elsewhere = sign_in is not None and sign_in.provider is not None
    return TargetRequest(
        host=options.host,
        port=options.port,
        admin_url=options.admin_url,
        tls=options.tls,
        ca_file=options.ca_file,
        allow_remote=options.allow_remote,
        may_start_private=is_mock and options.tls is Tls.NONE,
        is_private=provider is not None,
        private_options=PrivateProxyOptions(
            # Users who sign in are added when they have done so.
            mailboxes=() if accounts is None or sign_in else accounts.mailboxes,
            has_sandbox=not goes_elsewhere,
            provider=provider,
            limits=_scenario(options).limits,
            is_kept=options.no_cleanup,
        ),
        has_login=mechanism is not Mechanism.NONE,
        mail_goes_elsewhere=goes_elsewhere,
        state_dir=_state_dir(options),
    )


def _state_dir(options: RunOptions) -> Path:
    return options.state_dir or Path(platformdirs.user_state_dir("xoauth2-proxy"))


def _address(text: str, option: str) -> str:
    if not _ADDRESS.fullmatch(text):
        _refuse(option, f"{text!r} is not a mail address.")
    return text


def _writable(path: Path | None, option: str) -> Path | None:
    if path is not None and not os.access(path.parent, os.W_OK | os.X_OK):
        _refuse(option, f"{path.parent} cannot be written to.")
    return path


def _parsed(option: str, parse: Callable[[GivenT], T], given: GivenT) -> T:
    try:
        return parse(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _refuse(option: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=option)
