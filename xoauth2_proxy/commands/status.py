"""`xoauth2-proxy status`: shows the state of each mailbox, as a table or as JSON.

Reads the configuration and the store, so no proxy has to run; with `store.kind: memory` it asks the
running proxy. Exit codes: 0 no mailbox needs attention, 1 one does or its state is unknown, 2 wrong
usage. A listener's expired certificate needs attention too.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from xoauth2_proxy.accounts.accounts import DisabledAccount
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands import listener_rows
from xoauth2_proxy.commands.admin_api import AdminApi, NoAnswer
from xoauth2_proxy.commands.console import span
from xoauth2_proxy.commands.listener_rows import ListenerRow
from xoauth2_proxy.commands.suggestions import unknown
from xoauth2_proxy.oauth.expiry_monitor import mailbox_statuses
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import IS_WELL, MailboxStatus, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.oauth.stores import TokenStore

EXIT_WELL, EXIT_NEEDED, EXIT_USAGE = 0, 1, 2

_VERSION = 1  # of the JSON document
_SHOWN = 50  # mailboxes in a table for a person; those that need attention are all shown
_NAMED = 3  # mailboxes with the same trouble that are named before it

# Symbol, words and colour: none tells anything that another does not.
_WORDS: dict[State, tuple[str, str, str]] = {
    State.SIGN_IN_NEEDED: ("✗", "sign-in needed", "red"),
    State.MISCONFIGURED: ("✗", "set-up is wrong", "red"),
    State.ATTENTION: ("!", "needs you soon", "yellow"),
    State.TROUBLE: ("~", "in trouble", "yellow"),
    State.UNUSED: ("·", "not used yet", ""),
    State.OK: ("✓", "ok", "green"),
    State.OWN_TOKEN: ("·", "clients' tokens", ""),
    State.MOCK: ("·", "sandbox", ""),
}
_UNREAD = ("?", "not known", "yellow")
_SYMBOLS = "".join(symbol for symbol, _, _ in _WORDS.values())
_URGENCY = {state: rank for rank, state in enumerate(_WORDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """What the person at the command line wants to know."""

    mailboxes: tuple[str, ...] = ()  # none: all
    is_json: bool = False
    is_all: bool = False  # every mailbox in the table, however many
    warn_days: int = 14


async def run(
    accounts: Sequence[Account],
    store: TokenStore,
    options: StatusOptions,
    console: Console,
    disabled: Sequence[DisabledAccount] = (),
    listeners: Sequence[ListenerRow] = (),
) -> int:
    """Show each account's state by the store, and the listeners; return the exit code."""
    present = {account.key: account for account in accounts}
    off = {account.key: account for account in disabled if account.key not in present}
    known = {key: one.email for key, one in present.items()}
    wanted = _wanted(options, known | {key: one.email for key, one in off.items()}, console)
    if wanted is None:
        return EXIT_USAGE
    now = EpochSeconds(time.time())
    chosen = [present[key] for key in wanted if key in present]
    found = await mailbox_statuses(chosen, store, now, options.warn_days)
    return _show(found, options, console, [off[key] for key in wanted if key in off], listeners)


async def run_remote(url: str, token: str, options: StatusOptions, console: Console) -> int:
    """Show the state of each account of the running proxy, whose admin server is at `url`.

    For the store kind memory, which no other process can read.
    """
    api = AdminApi(url, token)
    try:
        enabled, off = await api.accounts()
        listeners = [ListenerRow.running(one) for one in await api.listeners()]
        # The admin server calls a mailbox by the configuration's word.
        found = [MailboxStatus.from_json({"mailbox": one.get("email")} | one) for one in enabled]
        disabled = [DisabledAccount(str(one["email"]), str(one["provider"])) for one in off]
    except (NoAnswer, ValueError, KeyError) as error:
        console.complain(
            f"the proxy could not be asked at {api.shown}: {error}; start it, or look at --url; "
            'where tokens live in its memory alone, set "store" to file'
        )
        return EXIT_NEEDED
    present = {login_key(one.mailbox): one for one in found}
    absent = {one.key: one for one in disabled if one.key not in present}
    known = {key: one.mailbox for key, one in present.items()}
    wanted = _wanted(options, known | {key: one.email for key, one in absent.items()}, console)
    if wanted is None:
        return EXIT_USAGE
    chosen = [_judged(present[key], options.warn_days) for key in wanted if key in present]
    off_too = [absent[key] for key in wanted if key in absent]
    return _show(chosen, options, console, off_too, listeners)


def _wanted(options: StatusOptions, known: dict[str, str], console: Console) -> list[str] | None:
    """Return the keys of the mailboxes to show; None if one is unknown. `known`: key to address."""
    for mailbox in options.mailboxes:
        if login_key(mailbox) not in known:
            console.complain(unknown("account", mailbox, known.values()))
            return None
    return list(dict.fromkeys(map(login_key, options.mailboxes)) or known)


def _judged(one: MailboxStatus, warn_days: int) -> MailboxStatus:
    # The proxy's own `warn_days` may be shorter.
    is_due = one.days_left is not None and one.days_left <= warn_days
    if is_due and one.state in (State.OK, State.UNUSED):
        return replace(one, state=State.ATTENTION)
    return one


def _show(
    found: Iterable[MailboxStatus],
    options: StatusOptions,
    console: Console,
    disabled: Sequence[DisabledAccount] = (),
    listeners: Sequence[ListenerRow] = (),
) -> int:
    ranked = sorted(found, key=_rank)
    listeners = () if options.mailboxes else listeners  # only these mailboxes are asked for
    if options.is_json:
        rows: list[Mapping[str, object]] = [one.to_json() for one in ranked]
        # The keys of an enabled account that apply.
        rows += [
            {"mailbox": one.email, "provider": one.provider, "state": "disabled"}
            for one in disabled
        ]
        document: dict[str, object] = {"version": _VERSION, "mailboxes": rows}
        if listeners:
            document["listeners"] = [one.to_json() for one in listeners]
        console.show_json(document)
    else:
        _show_table(ranked, options, console, disabled)
        listener_rows.show(listeners, console)
    is_needed = any(one.needs_a_person or one.is_unread for one in ranked)
    return EXIT_NEEDED if is_needed or any(one.has_expired for one in listeners) else EXIT_WELL


def _rank(one: MailboxStatus) -> tuple[int, float, str]:
    days_left = float("inf") if one.days_left is None else one.days_left
    return _URGENCY[one.state], days_left, one.mailbox.lower()


def _show_table(
    ranked: list[MailboxStatus],
    options: StatusOptions,
    console: Console,
    disabled: Sequence[DisabledAccount],
) -> None:
    needing = sum(one.state not in IS_WELL for one in ranked)
    shown = ranked if options.is_all else ranked[: max(_SHOWN, needing)]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Mailbox", overflow="fold")
    table.add_column("State", no_wrap=True)
    for heading in ("Last token", "Next", "Days left"):
        table.add_column(heading, justify="right", no_wrap=True)
    now = time.time()
    for one in shown:
        symbol, words, colour = _UNREAD if one.is_unread else _WORDS[one.state]
        table.add_row(
            Text(one.mailbox),
            Text(_state(symbol, words, console), style=colour),
            Text(f"{span(now - one.last_success)} ago" if one.last_success else "–"),
            Text(f"in {span(one.next_refresh - now)}" if one.next_refresh else "–"),
            Text("–" if one.days_left is None else f"{one.days_left:.0f}"),
        )
    for off in disabled:
        words = _state("–", 'disabled ("enabled": false)', console)
        table.add_row(Text(off.email), Text(words, style="dim"))
    if shown or disabled:
        console.out.print(table)
    _show_remedies(shown, console)
    if len(shown) < len(ranked):
        console.say(f"… and {len(ranked) - len(shown):,} more that are well (--all shows them)")
    summary = _summary(ranked)
    console.say(f"{summary}; {len(disabled):,} disabled" if disabled else summary)


def _state(symbol: str, words: str, console: Console) -> str:
    return f"{symbol} {words}" if console.can_show(_SYMBOLS) else words


def _show_remedies(shown: list[MailboxStatus], console: Console) -> None:
    """Print cause and remedy once for all mailboxes that have the same."""
    alike = defaultdict[tuple[str, str], list[str]](list)
    for one in shown:
        if one.reason or one.remedy:
            alike[one.reason, one.remedy].append(one.mailbox)
    if alike:
        console.say("")
    for (reason, remedy), mailboxes in alike.items():
        more = f" and {len(mailboxes) - _NAMED} more" if len(mailboxes) > _NAMED else ""
        console.tell(f"{', '.join(mailboxes[:_NAMED])}{more}: {reason}")
        if remedy:
            console.say(f"  → {remedy}")
    if alike:
        console.say("")


def _summary(ranked: list[MailboxStatus]) -> str:
    count = len(ranked)
    needing = sum(one.needs_a_person for one in ranked)
    unread = sum(one.is_unread for one in ranked)
    troubled = sum(one.state is State.TROUBLE for one in ranked) - unread
    parts = [f"{count:,} mailbox{'es'[: 2 * (count != 1)]}"]
    if needing:
        parts.append(f"{needing:,} need{'s'[: needing == 1]} attention")
    elif not unread:
        parts.append("none needs attention")
    if unread:
        parts.append(f"the state of {unread:,} is unknown")
    if troubled:
        parts.append(f"{troubled:,} with temporary trouble")
    return "; ".join(parts)
