"""`xoauth2-proxy doctor`: takes every step that a message takes, and names what fails.

A step that needs one that failed is not taken; the others are. Exit codes: 0 all is well, 1
something is not, 2 wrong usage.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.doctor import configuration, mail, network, tokens
from xoauth2_proxy.commands.doctor.context import (
    DoctorContext,
    DoctorDependencies,
    NotNeeded,
    Trouble,
)
from xoauth2_proxy.commands.suggestions import unknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console


@dataclass(frozen=True, slots=True)
class Step:
    """One examination, and the steps without which it can find nothing out."""

    name: str
    take: Callable[[DoctorContext], Awaitable[str]]  # returns the finding
    needs: tuple[str, ...] = ()


STEPS = (
    Step("configuration", configuration.configuration),
    Step("stored sign-in", configuration.stored_grant),
    Step("name of the token host", network.token_host_name),
    Step("name of the mail host", network.mail_host_name),
    Step(
        "connection to the token host", network.token_host_connection, ("name of the token host",)
    ),
    Step("connection to the mail host", network.mail_host_connection, ("name of the mail host",)),
    Step("TLS of the token host", network.token_host_tls, ("connection to the token host",)),
    Step("TLS of the mail host", network.mail_host_tls, ("connection to the mail host",)),
    Step("answer of the token host", network.token_host_answer, ("TLS of the token host",)),
    Step("access token", tokens.access_token, ("stored sign-in", "answer of the token host")),
    Step("what the token says", tokens.claims, ("access token",)),
    Step("greeting and extensions", mail.extensions, ("TLS of the mail host",)),
    Step("login", mail.login, ("what the token says", "greeting and extensions")),
    Step("test message", mail.test_message, ("login",)),
)

EXIT_WELL, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

_VERSION = 1  # of the JSON document
_SYMBOLS = {"ok": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("–", "dim")}
_LEGEND = "✓ works   ✗ fails   – not tested"
# What takes the symbols' place where the output's encoding has none.
_WORDS = {"ok": "ok  ", "failed": "FAIL", "skipped": "skip"}
_NAME_COLUMNS = max(len(step.name) for step in STEPS) + 2
_SLOW_SECONDS = 1.0  # what took longer is worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What the person at the command line wants to know."""

    mailbox: str = ""
    is_all: bool = False  # every enabled mailbox, one after the other
    send_to: str = ""  # whom a test message goes to; "": none is sent
    is_json: bool = False


@dataclass(frozen=True, slots=True)
class _Result:
    step: str
    result: str  # ok, failed, skipped
    seconds: float
    finding: str
    remedy: str = ""
    source: str = ""

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class _Examination:
    account: Account
    results: list[_Result]

    @property
    def failed(self) -> list[_Result]:
        return [one for one in self.results if one.result == "failed"]

    def to_json(self) -> dict[str, object]:
        steps = [one.to_json() for one in self.results]
        return {"mailbox": self.account.email, "is_well": not self.failed, "steps": steps}


async def run(
    accounts: Iterable[Account],
    options: DoctorOptions,
    dependencies: DoctorDependencies,
    console: Console,
) -> int:
    """Examine one mailbox or all, show each step as it ends, and return the exit code."""
    present = {account.key: account for account in accounts}
    if options.is_all:
        return await _examine_all(list(present.values()), options, dependencies, console)
    account = present.get(login_key(options.mailbox))
    if account is None:
        known = [one.email for one in present.values()]
        console.complain(unknown("enabled account", options.mailbox, known))
        return EXIT_USAGE
    found = await _examine(account, options, dependencies, console)
    if options.is_json:
        console.show_json({"version": _VERSION, **found.to_json()})
    else:
        _explain_symbols(console)
        _conclude(found, console)
    return EXIT_FAILED if found.failed else EXIT_WELL


async def _examine_all(
    accounts: list[Account],
    options: DoctorOptions,
    dependencies: DoctorDependencies,
    console: Console,
) -> int:
    if not options.is_json:
        _explain_symbols(console)
        console.say("")
    examined: list[_Examination] = []
    for account in accounts:
        if not options.is_json:
            console.say(account.email, "bold")
        examined.append(await _examine(account, options, dependencies, console))
        if not options.is_json:
            _conclude(examined[-1], console)
            console.say("")
    well = sum(not one.failed for one in examined)
    is_well = well == len(examined)
    if options.is_json:
        documents = [one.to_json() for one in examined]
        console.show_json({"version": _VERSION, "is_well": is_well, "mailboxes": documents})
    else:
        console.say(f"{well} of {len(examined)} mailboxes are well.")
    return EXIT_WELL if is_well else EXIT_FAILED


async def _examine(
    account: Account,
    options: DoctorOptions,
    dependencies: DoctorDependencies,
    console: Console,
) -> _Examination:
    context = DoctorContext(account, dependencies, options.send_to)
    results: list[_Result] = []
    without: dict[str, str] = {}  # step that found nothing out -> the step that failed
    try:
        for step in STEPS:
            cause = next((without[name] for name in step.needs if name in without), "")
            if cause:
                result = _Result(step.name, "skipped", 0.0, f"needs: {cause}")
                without[step.name] = cause
            else:
                result = await _taken(step, context)
                if result.result == "failed":
                    without[step.name] = step.name
            results.append(result)
            if not options.is_json:
                _show(result, console)
    finally:
        context.close()
    return _Examination(account, results)


async def _taken(step: Step, context: DoctorContext) -> _Result:
    started = time.monotonic()
    try:
        finding = await step.take(context)
    except NotNeeded as reason:
        return _Result(step.name, "skipped", time.monotonic() - started, str(reason))
    except Trouble as trouble:
        duration = time.monotonic() - started
        return _Result(step.name, "failed", duration, trouble.text, trouble.remedy, trouble.source)
    return _Result(step.name, "ok", time.monotonic() - started, finding)


def _show(result: _Result, console: Console) -> None:
    symbol, colour = _SYMBOLS[result.result]
    if not console.can_show(_LEGEND):
        symbol = _WORDS[result.result]
    took = f" ({result.seconds:.1f} s)" if result.seconds >= _SLOW_SECONDS else ""
    begin = ((f"{symbol} ", colour), (result.step, "dim" if result.result == "skipped" else ""))
    console.tell(result.finding + took, len(symbol) + 1 + _NAME_COLUMNS, begin)


def _explain_symbols(console: Console) -> None:
    if console.can_show(_LEGEND):
        console.say(_LEGEND, "dim")


def _conclude(found: _Examination, console: Console) -> None:
    console.say("")
    if not found.failed:
        console.say(f"{found.account.email} is well.")
    for number, one in enumerate(found.failed):
        begin = "Also fails:  " if number else "Fails first: "
        console.tell(f"{one.step}: {one.finding}", 13, [(begin, "bold")])
        console.say(f"What to do:  {one.remedy}")
        if one.source:
            console.say(f"Source:      {one.source}")
