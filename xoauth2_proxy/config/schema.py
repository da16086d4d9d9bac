"""The JSON Schema of the configuration file, for editors; made from the models."""

from __future__ import annotations

from typing import Any

from xoauth2_proxy.config.sections import FileSection
from xoauth2_proxy.strict_json import COMMENT_PREFIX

_NULL = {"type": "null"}


def json_schema() -> dict[str, object]:
    """Return the JSON Schema (draft 2020-12) of both forms of the file, object and bare list."""
    schema = FileSection.model_json_schema()
    definitions = schema.pop("$defs")
    definitions["FileSection"] = schema
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
