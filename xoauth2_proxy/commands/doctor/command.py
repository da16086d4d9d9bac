"""`xoauth2-proxy doctor`: goes a message's whole way step by step, and names what fails first.

Exit codes: 0 all is well, 1 something is not, 2 wrong usage.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import login_key
from xoauth2_proxy.commands.doctor.context import DoctorContext, NotNeeded, Trouble
from xoauth2_proxy.commands.doctor.steps import STEPS
from xoauth2_proxy.commands.suggestions import likely

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.commands.doctor.steps import Step
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

EXIT_WELL, EXIT_FAILED, EXIT_USAGE = 0, 1, 2

_VERSION = 1  # of the JSON document
_SYMBOLS = {"ok": ("✓", "green"), "failed": ("✗", "red"), "skipped": ("–", "dim")}
_STEP_COLUMNS = 2 + max(len(name) for name, _ in STEPS) + 2  # with a symbol before it
_SLOW_SECONDS = 1.0  # what took longer is worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """What the person at the command line wants to know."""

    mailbox: str
    send_to: str = ""  # whom a test message goes to; "": none is sent
    is_json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorDependencies:
    """What the examination needs of the proxy's own parts."""

    store: TokenStore  # closed by `run`
    is_store_shared: bool  # False for the kind memory
    refreshers: Mapping[str, Refresher]
    hostname: str = "[127.0.0.1]"  # for EHLO


@dataclass(frozen=True, slots=True)
class _Result:
    step: str
    result: str  # ok, failed, skipped
    seconds: float
    finding: str
    remedy: str = ""
    source: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "step": self.step,
            "result": self.result,
            "seconds": round(self.seconds, 3),
            "finding": self.finding,
            "remedy": self.remedy,
            "source": self.source,
        }


async def run(
    accounts: Iterable[Account],
    options: DoctorOptions,
    dependencies: DoctorDependencies,
    console: Console,
) -> int:
    """Examine one mailbox, show each step as it ends, and return the exit code."""
    key = login_key(options.mailbox)
    present = {account.key: account for account in accounts}
    account = present.get(key)
    if account is None:
        guess = likely(options.mailbox, [one.email for one in present.values()])
        words = filter(None, (f"there is no enabled account {options.mailbox}", guess))
        console.complain("; ".join(words))
        await dependencies.store.close()
        return EXIT_USAGE
    context = DoctorContext(
        account=account,
        store=dependencies.store,
        is_store_shared=dependencies.is_store_shared,
        refreshers=dependencies.refreshers,
        hostname=dependencies.hostname,
        send_to=options.send_to,
    )
    try:
        results = await _examine(context, options, console)
    finally:
        context.close()
        await dependencies.store.close()
    failed = next((one for one in results if one.result == "failed"), None)
    if options.is_json:
        document = {
            "version": _VERSION,
            "mailbox": account.email,
            "is_well": failed is None,
            "steps": [one.to_json() for one in results],
        }
        console.out.file.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    else:
        _conclude(account, failed, console)
    return EXIT_WELL if failed is None else EXIT_FAILED


async def _examine(
    context: DoctorContext, options: DoctorOptions, console: Console
) -> list[_Result]:
    results: list[_Result] = []
    has_failed = False
    for name, step in STEPS:
        if has_failed:
            result = _Result(name, "skipped", 0.0, "")
        else:
            result = await _taken(name, step, context)
            has_failed = result.result == "failed"
        results.append(result)
        if not options.is_json:
            _show(result, console)
    return results


async def _taken(name: str, step: Step, context: DoctorContext) -> _Result:
    started = time.monotonic()
    try:
        finding = await step(context)
    except NotNeeded as reason:
        return _Result(name, "skipped", time.monotonic() - started, str(reason))
    except Trouble as trouble:
        duration = time.monotonic() - started
        return _Result(name, "failed", duration, trouble.text, trouble.remedy, trouble.source)
    return _Result(name, "ok", time.monotonic() - started, finding)


def _show(result: _Result, console: Console) -> None:
    symbol, colour = _SYMBOLS[result.result]
    took = f" ({result.seconds:.1f} s)" if result.seconds >= _SLOW_SECONDS else ""
    begin = ((f"{symbol} ", colour), (result.step, "dim" if result.result == "skipped" else ""))
    console.tell(result.finding + took, _STEP_COLUMNS, begin)


def _conclude(account: Account, failed: _Result | None, console: Console) -> None:
    console.say("")
    if failed is None:
        console.say(f"{account.email} is well.")
        return
    console.tell(f"{failed.step}: {failed.finding}", 13, [("Fails first:", "bold")])
    console.say(f"What to do:  {console.typed(failed.remedy)}")
    if failed.source:
        console.say(f"Source:      {failed.source}")
