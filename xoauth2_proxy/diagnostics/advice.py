"""One row of the refusal table: a provider's words, their cause and the remedy."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

MAILBOX = "{mailbox}"  # placeholder for the mailbox's address in a remedy

_MAX_TEXT = 4096  # characters that are looked at; a reply line has some 500
_WORD = re.compile(r"[0-9]+(?:\.[0-9]+)+|[a-z0-9_#]+")
_VENDORS = frozenset({"gmail", "outlook"})  # rows of one never apply to the other


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What a provider says, what it means and what to do. `refusals.toml` explains each field."""

    says: tuple[str, ...]
    cause: str
    remedy: str
    source: str
    provider: str = ""
    mark: str = ""
    is_for_provider_alone: bool = False

    def remedy_for(self, mailbox: str) -> str:
        """Return the remedy with the mailbox's address in its commands, quoted for a shell."""
        return self.remedy.replace(MAILBOX, shlex.quote(mailbox))

    def fits(self, words: str, provider: str) -> bool:
        """Whether the row explains these words (`normalised`) of this provider."""
        if self.provider and provider in _VENDORS and provider != self.provider:
            return False
        if self.is_for_provider_alone and provider != self.provider:
            return False
        is_marked = not self.mark or provider == self.provider or _has_one_of(self.mark, words)
        return is_marked and all(_has_one_of(part, words) for part in self.says)


def normalised(text: str) -> str:
    """Return the words of `text` in lower case, with single spaces; dots stay in numbers."""
    return f" {' '.join(_WORD.findall(text[:_MAX_TEXT].lower()))} "


def _has_one_of(phrases: str, words: str) -> bool:
    return any(_occurs(one, words) for one in phrases.split(" | "))


def _occurs(phrase: str, words: str) -> bool:
    if phrase.startswith("^"):
        return words.startswith(f" {phrase[1:]} ")
    return f" {phrase} " in words
