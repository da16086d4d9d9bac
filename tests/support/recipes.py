"""The recipes of docs/clients.md as tests follow them: settings, variations, words seen."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

GUIDE = Path(__file__).parents[2] / "docs" / "clients.md"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_POINT = re.compile(r"^- \*([^*]+)\*: (.+(?:\n  .+)*)", re.MULTILINE)
_INSTEAD = re.compile(r"`([^`]+)` instead of\s+`([^`]+)`")
_BEFORE = re.compile(r"`([^`]+)` before\s+`([^`]+)`")
_WITHOUT = re.compile(r"without\s+`([^`]+)`")
_FILE = re.compile(r"(?:#|//|--|;;) (\S*[./]\S*)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of code: commands to type, lines of a program, or a file if `path` names one."""

    language: str
    text: str
    path: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the guide says of one client."""

    name: str
    blocks: tuple[Block, ...]
    points: dict[str, str]

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the recipe under the heading `name`."""
        section = _sections()[name]
        blocks = []
        for language, text in _BLOCK.findall(section):
            named = _FILE.match(text)
            if named:
                blocks.append(Block(language, text[named.end() :], named[1]))
            else:
                blocks.append(Block(language, text))
        points = {point: " ".join(said.split()) for point, said in _POINT.findall(section)}
        return cls(name, tuple(blocks), points)

    @property
    def commands(self) -> str:
        """What a person types into a shell."""
        return "".join(
            block.text for block in self.blocks if block.language == "sh" and not block.path
        )

    @property
    def code(self) -> str:
        """The lines that go into a program."""
        (code,) = (one.text for one in self.blocks if not one.path and one.language != "sh")
        return code

    @property
    def files(self) -> dict[str, str]:
        """The settings, by the file that they are in."""
        return {block.path: block.text for block in self.blocks if block.path}

    def varied(self, point: str) -> Self:
        """Return the recipe with the changes that one of its points asks for."""
        said = self.points[point]
        changes = {old: new for new, old in _INSTEAD.findall(said)}
        changes |= {old: f"{new}\n{old}" for new, old in _BEFORE.findall(said)}
        changes |= dict.fromkeys(_WITHOUT.findall(said), "")
        assert changes, f"{self.name}: {point} changes nothing"
        for old in changes:
            assert any(old in block.text for block in self.blocks), f"{self.name}: no {old!r}"
        return self.replaced(changes)

    def replaced(self, changes: dict[str, str]) -> Self:
        """Return the recipe with other words in all its blocks; none is replaced twice."""
        pattern = re.compile("|".join(re.escape(old) for old in sorted(changes, key=len)[::-1]))
        return replace(
            self,
            blocks=tuple(
                replace(one, text=pattern.sub(lambda found: changes[found[0]], one.text))
                for one in self.blocks
            ),
        )

    def shown(self, point: str, by_default: str) -> str:
        """Return what a point quotes first, which a person sees; without that point the default."""
        said = self.points.get(point)
        return by_default if said is None else re.findall(r"`([^`]+)`", said)[0]


def _sections() -> dict[str, str]:
    parts = re.split(r"^### (.+)$", GUIDE.read_text(), flags=re.MULTILINE)
    # A part ends where the next heading begins, of whatever level.
    return {
        name: re.split(r"^## ", text, flags=re.MULTILINE)[0]
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def names() -> list[str]:
    """Return the clients that the guide has recipes for."""
    return list(_sections())
