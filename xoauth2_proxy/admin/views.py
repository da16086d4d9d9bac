"""Mailboxes as pages show them: words, symbols and dates, without HTML.

What a template inserts is a dictionary; a template that names a missing key fails.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.oauth.mailbox_status import State, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xoauth2_proxy.accounts.accounts import Account, DisabledAccount
    from xoauth2_proxy.admin.health import ListenerState
    from xoauth2_proxy.mailboxes.interface import Mailbox

PAGE_SIZE = 50
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class StateLabel:
    """How a state is shown; never by colour alone."""

    word: str
    symbol: str
    tone: str  # good, soon, bad or plain: a class of the style sheet


STATE_LABELS = {  # in display order: those that need a person come first
    State.SIGN_IN_NEEDED: StateLabel("Sign in needed", "✕", "bad"),
    State.MISCONFIGURED: StateLabel("Set-up is wrong", "✕", "bad"),
    State.ATTENTION: StateLabel("Needs you soon", "!", "soon"),
    State.TROUBLE: StateLabel("Provider in trouble", "~", "soon"),
    State.UNUSED: StateLabel("Not used yet", "○", "plain"),
    State.OK: StateLabel("Works", "✓", "good"),
    State.OWN_TOKEN: StateLabel("Clients bring tokens", "◇", "plain"),
    State.MOCK: StateLabel("Sandbox", "◇", "plain"),
}
_RANKS = {state: rank for rank, state in enumerate(STATE_LABELS)}


_ENCRYPTION = {
    "none": "none",
    "starttls": "STARTTLS",
    "implicit": "SSL/TLS from the start",
    "auto": "STARTTLS, or SSL/TLS from the start",
}


@dataclass(frozen=True, slots=True)
class DateText:
    """A date, relative and exact; both "" for never."""

    words: str = ""
    exact: str = ""


def mailbox_table(
    mailboxes: Sequence[Mailbox],
    search: str,
    state: str,
    page: int,
    now: float,
    disabled: Sequence[DisabledAccount] = (),
) -> dict[str, Any]:
    """Return a page of the mailboxes whose address or provider contains `search`, with counts."""
    counts = Counter(one.status.state for one in mailboxes)
    words = search.lower().split()
    wanted = [
        one
        for one in mailboxes
        if (not state or one.status.state == state) and _matches(one.account, words)
    ]
    wanted.sort(key=lambda one: (_RANKS[one.status.state], one.account.key))
    pages = max(1, -(-len(wanted) // PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = wanted[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    return {
        "rows": [row(one, now) for one in shown],
        "counts": [(one, look, counts[one]) for one, look in STATE_LABELS.items() if counts[one]],
        "total": len(mailboxes),
        "found": len(wanted),
        "search": search,
        # None if a state is chosen.
        "disabled": [] if state else [one for one in disabled if _matches(one, words)],
        "state": state,  # "": any
        "page": page,
        "pages": pages,
    }


def row(mailbox: Mailbox, now: float) -> dict[str, Any]:
    """Return a mailbox as a row of the table."""
    status = mailbox.status
    is_sign_in_needed = status.state is State.SIGN_IN_NEEDED
    is_repeated = status.last_error == status.reason
    return {
        "address": mailbox.account.email,
        "provider": status.provider,
        "source": "added here" if mailbox.is_added else "from the file",
        "look": STATE_LABELS[status.state],
        "reason": status.reason,
        # The button beside it does what the remedy's command would.
        "remedy": "" if is_sign_in_needed and not mailbox.obstacle else status.remedy,
        "last_error": "" if is_repeated else status.last_error,
        "last_success": date_text(status.last_success, now),
        "next_refresh": date_text(status.next_refresh, now),
        "days_left": _days(status.days_left),
        "is_sign_in_needed": is_sign_in_needed,
        "can_sign_in": not mailbox.obstacle,
        # Without a grant there is nothing that a refresh could use.
        "can_refresh": status.state not in (State.OWN_TOKEN, State.SIGN_IN_NEEDED),
        "can_revoke": mailbox.has_grant and status.state is not State.SIGN_IN_NEEDED,
        "can_remove": mailbox.is_added,
    }


def listener_settings(listener: ListenerState) -> dict[str, str]:
    """Return what a person types into a mail program to use this listener."""
    host, _, port = listener.addresses[0].rpartition(":")
    is_any = host in {"0.0.0.0", "[::]"}  # noqa: S104 - every address of this machine
    return {
        "name": listener.name,
        "server": "the address of this machine" if is_any else host.strip("[]"),
        "port": port,
        "encryption": _ENCRYPTION.get(str(listener.tls), ""),
    }


def date_text(at: float, now: float) -> DateText:
    """Return a date relative to now, as a person says it."""
    if not at:
        return DateText()
    seconds = abs(at - now)
    if seconds < _MINUTE:
        words = "just now" if at <= now else "now"
        return DateText(words, rfc3339(at) or "")
    if seconds < _HOUR:
        amount = _plural(seconds / _MINUTE, "minute")
    elif seconds < _DAY:
        amount = _plural(seconds / _HOUR, "hour")
    elif seconds < 30 * _DAY:
        amount = _plural(seconds / _DAY, "day")
    else:
        day = datetime.fromtimestamp(at, UTC).date().isoformat()
        return DateText(day, rfc3339(at) or "")
    return DateText(f"{amount} ago" if at < now else f"in {amount}", rfc3339(at) or "")


def _matches(account: Account | DisabledAccount, words: Iterable[str]) -> bool:
    text = f"{account.key} {account.provider.lower()}"
    return all(word in text for word in words)


def _days(days_left: float | None) -> str:
    if days_left is None:
        return ""
    return str(int(days_left)) if days_left >= 1 or days_left == 0 else "less than 1"


def _plural(number: float, unit: str) -> str:
    whole = int(number)
    return f"{whole} {unit}" if whole == 1 else f"{whole} {unit}s"
