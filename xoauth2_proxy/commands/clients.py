"""`xoauth2-proxy clients`: shows which clients connected lately, and why some were turned away.

It asks the running proxy, which keeps the record in memory. Exit codes: 0 every client got what it
wanted, 1 one was turned away or the proxy cannot be asked, 2 wrong usage.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from xoauth2_proxy.commands.admin_api import AdminApi, NoAnswer
from xoauth2_proxy.commands.console import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.commands.console import Console

EXIT_WELL, EXIT_TURNED_AWAY = 0, 1

_VERSION = 1  # of the JSON document
_SHOWN = 50  # clients in a table for a person
# Symbol, words and colour: none tells anything that another does not.
_WORDS = {
    "sent": ("✓", "sent", "green"),
    "delayed": ("~", "to try again", "yellow"),
    "refused": ("✗", "refused", "red"),
    "turned_away": ("✗", "turned away", "red"),
}
_LEFT = ("·", "left", "")
_UNKNOWN = ("?", "not known", "yellow")


async def run(url: str, token: str, console: Console, *, is_json: bool, is_all: bool) -> int:
    """Show the clients that the running proxy saw; return the exit code."""
    api = AdminApi(url, token)
    try:
        clients = await api.clients()
    except NoAnswer as error:
        console.complain(
            f"the proxy could not be asked at {api.shown}: {error}; start it, or look at --url"
        )
        return EXIT_TURNED_AWAY
    if is_json:
        console.show_json({"version": _VERSION, "clients": clients})
    else:
        _show(clients, console, is_all=is_all)
    return EXIT_TURNED_AWAY if any(map(_is_turned_away, clients)) else EXIT_WELL


def _show(clients: Sequence[dict[str, Any]], console: Console, *, is_all: bool) -> None:
    if not clients:
        console.say("no client has connected since the proxy started")
        return
    shown = clients if is_all else clients[:_SHOWN]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Address", "Name", "Encryption", "Login", "Sender"):
        table.add_column(heading, overflow="fold")
    table.add_column("Seen", justify="right", no_wrap=True)
    table.add_column("Outcome", no_wrap=True)
    now = time.time()
    for one in shown:
        symbol, words, colour = _outcome(one)
        state = f"{symbol} {words}" if console.can_show(symbol) else words
        table.add_row(
            Text(str(one.get("address", ""))),
            Text(str(one.get("greeting", "") or "–")),
            Text(str(one.get("tls") or "none")),
            Text(str(one.get("credential") or one.get("login") or "–")),
            Text(str(one.get("sender", "") or "–")),
            Text(_ago(one.get("last_seen"), now)),
            Text(state, style=colour),
        )
    console.out.print(table)
    explained = [one for one in shown if one.get("cause")]
    if explained:
        console.say("")
    for one in explained:
        console.tell(f"{one['address']}: {one['cause']}")
        if one.get("remedy"):
            console.say(f"  → {one['remedy']}" if console.can_show("→") else f"  {one['remedy']}")
    if explained:
        console.say("")
    if len(shown) < len(clients):
        console.say(f"… and {len(clients) - len(shown):,} more (--all shows them)")
    refused = sum(map(_is_turned_away, clients))
    count = len(clients)
    summary = f"{count:,} address{'es'[: 2 * (count != 1)]}"
    console.say(f"{summary}; {refused:,} not let in" if refused else f"{summary}; all were let in")


def _outcome(one: dict[str, Any]) -> tuple[str, str, str]:
    if one.get("reason") == "left":
        return _LEFT
    return _WORDS.get(str(one.get("outcome")), _UNKNOWN)


def _is_turned_away(one: dict[str, Any]) -> bool:
    return one.get("outcome") != "sent" and one.get("reason") != "left"


def _ago(moment: object, now: float) -> str:
    try:
        seconds = max(0.0, now - datetime.fromisoformat(str(moment)).timestamp())
    except ValueError:
        return "–"
    return f"{span(seconds)} ago"
