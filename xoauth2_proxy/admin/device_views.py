"""Clients as the page *Devices* shows them: words, symbols and links, without HTML."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from xoauth2_proxy.admin.views import PAGE_SIZE, StateLabel, date_text
from xoauth2_proxy.clients.causes import Fix, explain
from xoauth2_proxy.clients.interface import Refused
from xoauth2_proxy.clients.record import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.clients.record import ClientSeen

OUTCOME_LABELS = {
    Outcome.TURNED_AWAY: StateLabel("Turned away", "✕", "bad"),
    Outcome.REFUSED: StateLabel("Message refused", "✕", "bad"),
    Outcome.DELAYED: StateLabel("To try again", "~", "soon"),
    Outcome.SENT: StateLabel("Sent", "✓", "good"),
}
_LEFT = StateLabel("Left", "○", "plain")
_FIXES = {
    Fix.ADD_ADDRESS: ("Add its address…", "address"),
    Fix.ADD_KEY: ("Make a password…", "key"),
}
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")
_MAX_NAME = 40  # characters of a name that is suggested


def device_table(
    clients: Sequence[ClientSeen], search: str, page: int, now: float, *, only_refused: bool
) -> dict[str, Any]:
    """Return a page of the clients, newest first, with counts."""
    refused = [one for one in clients if _is_refused(one)]
    words = search.lower().split()
    wanted = [one for one in (refused if only_refused else clients) if _matches(one, words)]
    pages = max(1, -(-len(wanted) // PAGE_SIZE))
    page = min(max(page, 1), pages)
    return {
        "rows": [row(one, now) for one in wanted[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]],
        "total": len(clients),
        "refused": len(refused),
        "found": len(wanted),
        "search": search,
        "only_refused": only_refused,
        "page": page,
        "pages": pages,
    }


def row(seen: ClientSeen, now: float) -> dict[str, Any]:
    """Return a client as a row of the table."""
    said = explain(Refused(seen.reason), seen) if seen.reason else None
    return {
        "address": seen.address,
        "greeting": seen.greeting,
        "listener": seen.listener,
        "encryption": seen.tls.replace("TLSv", "TLS ") or "not encrypted",
        "look": _LEFT if seen.reason == Refused.LEFT else OUTCOME_LABELS[seen.outcome],
        "login": _login(seen),
        "mechanism": seen.mechanism,
        "account": seen.account,
        "sender": seen.sender,
        "size": _size(seen.size_bytes),
        "reply": seen.reply,
        "cause": _sentence(said.cause) if said else "",
        "remedy": said.remedy if said else "",
        "last_seen": date_text(seen.last_seen, now),
        "first_seen": date_text(seen.first_seen, now),
        "last_sent": date_text(seen.last_sent, now),
        "messages": seen.messages,
        "refusals": seen.refusals,
        "is_refused": _is_refused(seen),
        "fix": _fix(seen, said.fix) if said else None,
    }


def suggested_name(seen: ClientSeen) -> str:
    """Return a name for the credential of this client: that of its greeting, or its address."""
    greeting = _NOT_IN_NAMES.sub("-", seen.greeting.lower()).strip("-")[:_MAX_NAME].strip("-")
    if any(letter.isalpha() for letter in greeting) and greeting != "localhost":
        return greeting
    return f"device-{_NOT_IN_NAMES.sub('-', seen.address.lower()).strip('-')}"


def _fix(seen: ClientSeen, fix: Fix) -> tuple[str, str] | None:
    """Return the text and the address of the button that lets the client in."""
    if seen.reason == Refused.LEFT and seen.detail:  # it had logged in
        return None
    if fix is Fix.SIGN_IN:
        return ("Sign the mailbox in…", f"/?{urlencode({'q': seen.account})}")
    if fix not in _FIXES:
        return None
    text, proof = _FIXES[fix]
    return (text, f"/devices/new?{urlencode({'address': seen.address, 'proof': proof})}")


def _is_refused(seen: ClientSeen) -> bool:
    return seen.outcome is not Outcome.SENT and seen.reason != Refused.LEFT


def _login(seen: ClientSeen) -> str:
    if not seen.login and not seen.credential:
        return "no login"
    if seen.credential and seen.credential not in (seen.login, seen.account):
        return f"{seen.credential} ({seen.account})"
    return seen.login or seen.account


def _matches(seen: ClientSeen, words: Sequence[str]) -> bool:
    parts = (seen.address, seen.greeting, seen.login, seen.account, seen.credential, seen.sender)
    text = " ".join(parts).lower()
    return all(word in text for word in words)


def _size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} bytes" if size_bytes else ""
    if size_bytes < 1024 * 1024:
        return f"{size_bytes / 1024:.0f} KiB"
    return f"{size_bytes / 1024 / 1024:.1f} MiB"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
