"""Creates the private directory in which the processes of one proxy share files."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "run-"
_LOCK = "lock"  # locked as long as the parent lives


def slots(state_dir: Path) -> Path:
    """Return the directory of slot locks; it outlives the run, since lock files must stay."""
    return state_dir / "slots"


def figures(directory: Path) -> Path:
    """Return the directory of this run's metrics."""
    return directory / "figures"


def rates(directory: Path) -> Path:
    """Return the directory of this run's rate limits."""
    return directory / "rates"


def client_counts(directory: Path) -> Path:
    """Return the file that counts this run's clients."""
    return directory / "client_counts"


class RunDirectory:
    """The directory of one run of the proxy, removed at its end."""

    def __init__(self, state_dir: Path) -> None:
        """Create the directory; remove those of runs that were killed. Raises `OSError`."""
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
    # A directory without a lock file is just being created.
    with suppress(OSError), (directory / _LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)
