"""The JSON Schema of the configuration file, for editors; made from the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xoauth2_proxy.config.sections import FileSection
from xoauth2_proxy.strict_json import COMMENT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo

_NULL = {"type": "null"}


def json_schema(refreshers: Iterable[RefresherInfo]) -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of both forms of the file, object and bare list.

    `options` of accounts and providers are those of one of the refreshers.
    """
    schema = FileSection.model_json_schema()
    definitions = schema.pop("$defs")
    definitions["FileSection"] = schema
    declared = []
    for refresher in refreshers:
        if refresher.options is not None:
            options: dict[str, Any] = refresher.options.model_json_schema()
            definitions |= options.pop("$defs", {})
            options.pop("required", None)  # its provider may have one part, and an account another
            declared.append(options | {"description": f"Of the refresher {refresher.name}."})
    for section in ("AccountSection", "ProviderSection"):
        options = definitions[section]["properties"]["options"]
        options |= {"anyOf": declared or [{"type": "object", "maxProperties": 0}]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "xoauth2-proxy configuration",
        "description": "The accounts that xoauth2-proxy relays for, and how it runs.",
        "oneOf": [
            {"$ref": "#/$defs/FileSection"},
            {"type": "array", "items": {"$ref": "#/$defs/AccountSection"}},
        ],
        "$defs": {name: _as_read(part) for name, part in sorted(definitions.items())},
    }


def _as_read(part: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Say what reading does beside the models: comments are ignored, null is refused."""
    if isinstance(part, list):
        return [_as_read(item) for item in part]
    if not isinstance(part, dict):
        return part
    part = {key: _as_read(value) for key, value in part.items() if not _is_noise(key, value)}
    choices = part.get("anyOf", [])
    if _NULL in choices:
        del part["anyOf"]
        (choice,) = (choice for choice in choices if choice != _NULL)
        part |= choice
    if "$ref" in part:
        part.pop("default", None)  # a section's defaults are its keys' defaults
    if part.get("type") == "object":
        part["patternProperties"] = {f"^{COMMENT_PREFIX}": True}
    return part


def _is_noise(key: str, value: object) -> bool:
    if key == "default":
        return value in (None, "", ".")  # the description says what holds where the key is left out
    return key == "title" and isinstance(value, str)
