"""The map of modules in ARCHITECTURE.md: the first paragraph of each module's docstring.

`python -m tests.support.module_map` writes it anew; a house rule keeps it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "ARCHITECTURE.md"
_BEGIN, _END = "<!-- module map -->\n", "<!-- end of module map -->\n"


def summary(module: Path) -> str:
    """Return the first paragraph of a module's docstring, as one line."""
    docstring = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def expected_map() -> str:
    """Return the map as the modules' docstrings make it."""
    lines = []
    for top in ("xoauth2_proxy", "bench"):
        packages = sorted(path.parent for path in (ROOT / top).rglob("__init__.py"))
        for package in packages:
            name = package.relative_to(ROOT).as_posix()
            lines += ["", f"**`{name}/`** {summary(package / '__init__.py')}", ""]
            lines += [
                f"- `{module.stem}`: {summary(module)}"
                for module in sorted(package.glob("*.py"))
                if module.name != "__init__.py"
            ]
    return "\n".join(lines).lstrip("\n") + "\n"


def written_map() -> str:
    """Return the map as ARCHITECTURE.md has it."""
    return DOCUMENT.read_text("utf-8").partition(_BEGIN)[2].partition(_END)[0]


def write() -> None:
    """Write the map into ARCHITECTURE.md."""
    before, _, rest = DOCUMENT.read_text("utf-8").partition(_BEGIN)
    after = rest.partition(_END)[2]
    DOCUMENT.write_text(before + _BEGIN + expected_map() + _END + after, "utf-8")


if __name__ == "__main__":
    write()
    sys.exit(0)
