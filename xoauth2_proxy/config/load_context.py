"""What a configuration is loaded with, and what is found out about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.config.validation import validate
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.overrides import Overrides
    from xoauth2_proxy.config.section import Section
    from xoauth2_proxy.strict_json import Json

_S = TypeVar("_S", bound="Section")

# The keys that an option of the command line overrides, by section.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "listener": {
        "host": "host",
        "port": "port",
        "tls_cert": "tls_cert",
        "tls_key": "tls_key",
        "allow_insecure_auth": "allow_insecure_auth",
    },
    "admin": {"host": "admin_host", "port": "admin_port"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadContext:
    """One file, the command line that goes with it, and what is wrong with both."""

    document: dict[str, Json] = field(repr=False)
    overrides: Overrides
    environment: Environment
    known_refreshers: Collection[str]
    problems: Problems = field(default_factory=Problems)
    warnings: list[str] = field(default_factory=list)

    def section(self, model: type[_S], key: str) -> _S | None:
        """Return the object `key` as the command line overrides it.

        None, with what is wrong in `problems`, if it is not right.
        """
        written: object = self.document.get(key, {})
        given = self._given(key)
        if given:
            if validate(model, written, key, self.problems) is None:
                return None  # what is overridden must be right too
            assert isinstance(written, dict)  # noqa: S101 - a section is nothing else
            written = written | given
        found = Problems()
        section = validate(model, written, key, found, self.environment)
        options = {json_path(key, one): option_of(key, one) for one in given}
        self.problems.take(found, renamed=options)
        if section is not None:
            self.warnings.extend(section.warnings())
        return section

    def _given(self, key: str) -> dict[str, object]:
        values = {
            name: getattr(self.overrides, option) for name, option in _OPTIONS.get(key, {}).items()
        }
        return {
            # A file on the command line lies in the working directory.
            name: str(value.absolute()) if name.startswith("tls_") else value
            for name, value in values.items()
            if value is not None
        }

    def place(self, section: str, key: str) -> str:
        """Return where a value was written: a JSON path, or an option."""
        return option_of(section, key) if key in self._given(section) else json_path(section, key)


def option_of(section: str, key: str) -> str:
    """Return the option of the command line that overrides `key`."""
    return "--" + _OPTIONS[section][key].replace("_", "-")
