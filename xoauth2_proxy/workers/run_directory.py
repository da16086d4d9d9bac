"""Where the processes of one proxy keep what they share."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "run-"
_LOCK = "lock"  # held as long as the parent lives


def slots(state_dir: Path) -> Path:
    """Return where upstream connections are counted; it stays, for locks need their files."""
    return state_dir / "slots"


def figures(directory: Path) -> Path:
    """Return where the metrics of this run are kept."""
    return directory / "figures"


def rates(directory: Path) -> Path:
    """Return where the mailboxes' rates of this run are kept."""
    return directory / "rates"


def client_counts(directory: Path) -> Path:
    """Return the file in which the clients of this run are counted."""
    return directory / "client_counts"


class RunDirectory:
    """What the processes of this run of the proxy share; it ends with the run."""

    def __init__(self, state_dir: Path) -> None:
        """Make the directory; remove those of runs that were killed. Raises `OSError`."""
        state_dir.mkdir(parents=True, exist_ok=True)
        for left in state_dir.glob(f"{_PREFIX}*"):
            _remove_if_left(left)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=state_dir))
        for folder in (figures(self.path), rates(self.path)):
            folder.mkdir(mode=0o700)
        self._lock = (self.path / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove the directory."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _remove_if_left(directory: Path) -> None:
    # One without its lock's file is being made this very moment.
    with suppress(OSError), (directory / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
