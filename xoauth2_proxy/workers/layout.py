"""Where the processes of one proxy keep what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def slots(state_dir: Path) -> Path:
    """Return where upstream connections are counted; it stays, for locks need their files."""
    return state_dir / "slots"


def figures(directory: Path) -> Path:
    """Return where the metrics of this run are kept."""
    return directory / "figures"


def rates(directory: Path) -> Path:
    """Return where the mailboxes' rates of this run are kept."""
    return directory / "rates"


def seats(directory: Path) -> Path:
    """Return the file in which the clients of this run are counted."""
    return directory / "seats"


def prepare(directory: Path) -> None:
    """Make the folders of a run. Raises `OSError`."""
    for folder in (figures(directory), rates(directory)):
        folder.mkdir(mode=0o700)
