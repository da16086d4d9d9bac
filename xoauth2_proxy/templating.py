"""Renders a package's Jinja2 templates and serves its static files."""

from __future__ import annotations

import mimetypes
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Environment


class PackagePages:
    """The templates and static files of one package."""

    def __init__(
        self, package: str, filters: Mapping[str, Callable[..., object]] | None = None
    ) -> None:
        self._package = package
        self._filters = dict(filters or {})
        self.is_loaded = False

    def load(self) -> None:
        """Read the templates and the static files. Blocking; may run in a thread."""
        self._environment.list_templates()
        self._static.keys()
        self.is_loaded = True

    def render(self, template: str, **values: object) -> str:
        """Return the HTML of a template; inserted values are escaped."""
        return self._environment.get_template(template).render(values)

    def static(self, name: str) -> tuple[bytes, str] | None:
        """Return the octets and the content type of a static file; None if there is none."""
        octets = self._static.get(name)
        if octets is None:
            return None
        return octets, mimetypes.guess_type(name)[0] or "application/octet-stream"

    # Both are loaded completely at first use, so later requests never wait for the disk.

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import Environment, PackageLoader, StrictUndefined  # 55 ms, 5 MB: when used

        environment = Environment(
            loader=PackageLoader(self._package),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.filters |= self._filters
        for name in environment.list_templates():
            environment.get_template(name)
        return environment

    @cached_property
    def _static(self) -> dict[str, bytes]:
        folder = resources.files(self._package).joinpath("static")
        files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        shared = resources.files("xoauth2_proxy").joinpath("base.css")
        return files | {shared.name: shared.read_bytes()}
