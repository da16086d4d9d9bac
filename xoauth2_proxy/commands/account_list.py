"""`xoauth2-proxy list`: which accounts there are, and where each is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import Config

_VERSION = 1  # of the JSON document


def run(config: Config, console: Console, *, is_json: bool) -> int:
    """Show the accounts by address; return the exit code."""
    rows = [
        (one.email, one.provider, state, "added" if one.key in config.runtime_accounts else "file")
        for state, accounts in (("enabled", config.accounts), ("disabled", config.disabled))
        for one in accounts
    ]
    rows.sort(key=lambda row: row[0].lower())
    if is_json:
        keys = ("mailbox", "provider", "state", "source")
        shown = [dict(zip(keys, row, strict=True)) for row in rows]
        console.show_json({"version": _VERSION, "accounts": shown})
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Mailbox", overflow="fold")
    for heading in ("Provider", "State", "Source"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        style = "dim" if row[2] == "disabled" else ""
        table.add_row(*(Text(cell, style=style) for cell in row))
    if rows:
        console.out.print(table)
    count = len(rows)
    words = f"{count:,} account{'s'[: count != 1]}"
    disabled = len(config.disabled)
    console.say(f"{words}, {disabled:,} of them disabled" if disabled else words)
    return 0
