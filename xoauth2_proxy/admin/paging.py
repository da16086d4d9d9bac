"""Numbers the pages of a long list."""

from __future__ import annotations


def near(page: int, pages: int) -> list[int]:
    """Return the page numbers to link: the first, the last and those near `page`."""
    return sorted({1, pages, *range(max(1, page - 2), min(pages, page + 2) + 1)})


def number(text: str) -> int:
    """Return the page number that a query names; 1 if it names none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 1
