"""How this program was called, so that the commands it shows can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_COMMAND = re.compile(r"\bxoauth2-proxy (?=(?:login|status|doctor)\b)")


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before a sub-command; none of them by default."""

    config: Path | None = None
    state_dir: Path | None = None  # None: the usual one
    has_sandbox: bool = False  # without a file: the sandbox's mailboxes

    def typed(self, text: str) -> str:
        """Return `text` with our own commands as they are to be typed here."""
        given = {"--config": self.config, "--state-dir": self.state_dir}
        words = ["xoauth2-proxy"]
        for option, path in given.items():
            if path is not None:
                words += [option, str(path)]
        if self.has_sandbox and self.config is None:
            words.append("--sandbox")
        return _COMMAND.sub(lambda _: f"{shlex.join(words)} ", text)
