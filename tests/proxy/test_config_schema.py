"""The JSON Schema describes the file as it is read."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.config.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = {
    "FileSection",
    "AccountSection",
    "ProviderSection",
    "UpstreamSection",
    "LimitsSection",
    "ListenerSection",
    "AdminSection",
    "RelaySection",
    "StoreSection",
    "AlertsSection",
}


def schema() -> dict[str, Any]:
    return dict(json_schema([]))


def parts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from parts(part)
    elif isinstance(value, list):
        for part in value:
            yield from parts(part)


def test_names_its_dialect_and_title() -> None:
    assert schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema()["title"]


def test_allows_the_object_and_the_bare_list() -> None:
    assert schema()["oneOf"] == [
        {"$ref": "#/$defs/FileSection"},
        {"type": "array", "items": {"$ref": "#/$defs/AccountSection"}},
    ]


def test_every_section_is_closed_and_every_key_described() -> None:
    definitions = schema()["$defs"]
    assert set(definitions) >= SECTIONS
    for name in SECTIONS:
        assert definitions[name]["additionalProperties"] is False, name
        for key, part in definitions[name]["properties"].items():
            assert "description" in part or "$ref" in part, f"{name}.{key}"
    assert all(definitions[name]["description"] for name in SECTIONS)


def test_every_object_allows_comments() -> None:
    for part in parts(schema()):
        if part.get("type") == "object":
            assert part["patternProperties"] == {"^_comment": True}


def test_null_is_nowhere() -> None:
    assert "null" not in json.dumps(schema())


def test_every_reference_leads_somewhere() -> None:
    definitions = schema()["$defs"]
    for part in parts(schema()):
        if isinstance(reference := part.get("$ref"), str):
            assert reference.removeprefix("#/$defs/") in definitions


def test_secrets_are_text_or_a_file() -> None:
    account = schema()["$defs"]["AccountSection"]["properties"]
    store = schema()["$defs"]["StoreSection"]["properties"]
    secrets = [account[key] for key in ("password", "client_id", "client_secret", "refresh_token")]
    for secret in (*secrets, store["url"], store["key"]):
        text, file = secret["oneOf"]
        assert text["type"] == "string"
        assert file["required"] == ["file"]


def test_required_keys_are_the_ones_the_loader_asks_for() -> None:
    definitions = schema()["$defs"]
    required = {name: definitions[name].get("required", []) for name in SECTIONS}
    assert {name: keys for name, keys in required.items() if keys} == {
        "FileSection": ["accounts"],
        "AccountSection": ["email", "provider"],
    }


def test_dates_and_urls_say_so() -> None:
    account = schema()["$defs"]["AccountSection"]["properties"]
    assert account["client_secret_expires"]["format"] == "date"
    for key in ("oauth_token_url", "authorization_url", "issuer", "authority"):
        assert account[key]["format"] == "uri"


def test_accounts_and_providers_have_the_same_oauth_keys() -> None:
    definitions = schema()["$defs"]
    account, provider = (
        definitions[name]["properties"] for name in ("AccountSection", "ProviderSection")
    )
    for key in OAuthSection.model_fields:
        assert account[key] == provider[key], key
