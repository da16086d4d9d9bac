"""`xoauth2-proxy providers`: the providers that accounts can name, and the refreshers installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.commands.console import Console
    from xoauth2_proxy.config import Config

_VERSION = 1  # of the JSON document


def run(
    config: Config, installed: Sequence[RefresherInfo], console: Console, *, is_json: bool
) -> int:
    """Show the providers and the refreshers by name; return the exit code."""
    providers = sorted(config.providers, key=lambda one: one.name)
    if is_json:
        console.show_json(
            {
                "version": _VERSION,
                "providers": [one.to_json() for one in providers],
                "refreshers": [one.to_json() for one in installed],
            }
        )
        return 0
    _show(
        console,
        ("Provider", "Refresher", "Sign-in"),
        [
            (one.name, one.refresher.name, ", ".join(one.flows) or f"no: {one.obstacle}")
            for one in providers
        ],
    )
    console.say("")
    _show(
        console,
        ("Refresher", "Package", "What it does"),
        [(one.name, one.origin or "built in", _told(one)) for one in installed],
    )
    return 0


def _told(refresher: RefresherInfo) -> str:
    if refresher.fault:
        return f"disabled: {refresher.fault}"
    return refresher.description or refresher.label


def _show(console: Console, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.out.print(table)
