"""Mailboxes as a page shows them: words, symbols and dates. Knows no HTML."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.mailbox_status import State, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from xoauth2_proxy.mailboxes import Mailbox

PAGE_SIZE = 50
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown; never by its colour alone."""

    word: str
    symbol: str
    tone: str  # good, soon, bad or plain: the style sheet's word


LOOKS = {  # in the order in which they are shown: who needs a person comes first
    State.SIGN_IN_NEEDED: Look("Sign in needed", "✕", "bad"),
    State.MISCONFIGURED: Look("Set-up is wrong", "✕", "bad"),
    State.ATTENTION: Look("Needs you soon", "!", "soon"),
    State.TROUBLE: Look("Provider in trouble", "~", "soon"),
    State.UNUSED: Look("Not used yet", "○", "plain"),
    State.OK: Look("Works", "✓", "good"),
    State.OWN_TOKEN: Look("Clients bring tokens", "◇", "plain"),
    State.MOCK: Look("Sandbox", "◇", "plain"),
}
_RANKS = {state: rank for rank, state in enumerate(LOOKS)}


@dataclass(frozen=True, slots=True)
class Moment:
    """A date, in words and exactly; both "" for never."""

    words: str = ""
    exact: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One mailbox in the table."""

    address: str
    provider: str
    source: str
    look: Look
    reason: str
    remedy: str
    last_error: str  # the provider's words, if they tell more
    last_success: Moment
    next_refresh: Moment
    days_left: str
    is_sign_in_needed: bool
    can_sign_in: bool
    can_refresh: bool
    can_revoke: bool
    can_remove: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of the table, and what it is a page of."""

    rows: Sequence[Row]
    counts: Sequence[tuple[State, Look, int]]  # states that occur
    total: int  # mailboxes in all
    found: int  # that were asked for
    search: str
    state: str  # "": any
    page: int  # from 1
    pages: int


def listing(
    mailboxes: Sequence[Mailbox], search: str, state: str, page: int, now: float
) -> Listing:
    """Return the wanted page of the mailboxes whose address or provider holds `search`."""
    counts = Counter(one.standing.state for one in mailboxes)
    words = search.lower().split()
    wanted = [
        one for one in mailboxes if (not state or one.standing.state == state) and _has(one, words)
    ]
    wanted.sort(key=lambda one: (_RANKS[one.standing.state], one.account.key))
    pages = max(1, -(-len(wanted) // PAGE_SIZE))
    page = min(max(page, 1), pages)
    shown = wanted[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    return Listing(
        rows=[row(one, now) for one in shown],
        counts=[(each, look, counts[each]) for each, look in LOOKS.items() if counts[each]],
        total=len(mailboxes),
        found=len(wanted),
        search=search,
        state=state,
        page=page,
        pages=pages,
    )


def row(mailbox: Mailbox, now: float) -> Row:
    """Return one mailbox as the table shows it."""
    standing = mailbox.standing
    is_told = standing.last_error == standing.reason
    return Row(
        address=mailbox.account.email,
        provider=standing.provider,
        source="added here" if mailbox.is_added else "from the file",
        look=LOOKS[standing.state],
        reason=standing.reason,
        remedy=standing.remedy,
        last_error="" if is_told else standing.last_error,
        last_success=moment(standing.last_success, now),
        next_refresh=moment(standing.next_refresh, now),
        days_left=_days(standing.days_left),
        is_sign_in_needed=standing.state is State.SIGN_IN_NEEDED,
        can_sign_in=not mailbox.obstacle,
        can_refresh=standing.state is not State.OWN_TOKEN,
        can_revoke=mailbox.has_grant and standing.state is not State.SIGN_IN_NEEDED,
        can_remove=mailbox.is_added,
    )


def moment(at: float, now: float) -> Moment:
    """Return a date as a person says it."""
    if not at:
        return Moment()
    seconds = abs(at - now)
    if seconds < _MINUTE:
        words = "just now" if at <= now else "now"
        return Moment(words, rfc3339(at) or "")
    if seconds < _HOUR:
        amount = _plural(seconds / _MINUTE, "minute")
    elif seconds < _DAY:
        amount = _plural(seconds / _HOUR, "hour")
    elif seconds < 30 * _DAY:
        amount = _plural(seconds / _DAY, "day")
    else:
        day = datetime.fromtimestamp(at, UTC).date().isoformat()
        return Moment(day, rfc3339(at) or "")
    return Moment(f"{amount} ago" if at < now else f"in {amount}", rfc3339(at) or "")


def _has(mailbox: Mailbox, words: Iterable[str]) -> bool:
    text = f"{mailbox.account.key} {mailbox.account.provider.lower()}"
    return all(word in text for word in words)


def _days(days_left: float | None) -> str:
    if days_left is None:
        return ""
    return str(int(days_left)) if days_left >= 1 or days_left == 0 else "less than 1"


def _plural(number: float, unit: str) -> str:
    whole = int(number)
    return f"{whole} {unit}" if whole == 1 else f"{whole} {unit}s"
