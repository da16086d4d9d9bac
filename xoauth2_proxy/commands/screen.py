"""Where a command shows its answer, and where it complains."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Screen:
    """Standard output and standard error, or what a test has in their place."""

    out: Console
    err: Console

    @classmethod
    def of_process(cls) -> Screen:
        """Return the process's own standard output and standard error."""
        return cls(Console(), Console(stderr=True))

    def say(self, text: str, style: str = "") -> None:
        """Show a line as it is: brackets in addresses and replies are no markup."""
        self.out.print(Text(text, style=style), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Say what is wrong."""
        self.err.print(Text(f"xoauth2-proxy: {text}"), soft_wrap=True)
