"""Installed distributions of other people's, as the relay meets them: real files, real metadata."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GOOD = """
    from xoauth2_proxy.oauth.grant import Issued

    class Acme:
        def __init__(self, threads):
            self.threads = threads

        async def refresh(self, grant):
            return Issued(access_token=f"acme-{grant.mailbox}", lifetime_seconds=60.0)
"""


def install(
    place: Path, distribution: str, module: str, source: str, offers: Mapping[str, str]
) -> None:
    """Put a module and its distribution's metadata into a directory of the import path.

    `offers` are entry points of the relay's group: name to object, as `acme` to `module:Acme`.
    """
    (place / f"{module}.py").write_text(dedent(source))
    info = place / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    lines = [f"{name} = {what}" for name, what in offers.items()]
    (info / "entry_points.txt").write_text("\n".join(["[xoauth2_proxy.refreshers]", *lines, ""]))
