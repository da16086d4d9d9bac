"""Turns the OAuth keys of an account and of its provider into one client.

The account beats the provider's entry, which beats what is built in, key by key; but a client id
comes with its own secret or certificate, and an issuer with its own endpoints.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.config.credential_files import (
    certificate_end,
    check_service_account,
    found_program,
)
from xoauth2_proxy.config.environment import Surroundings, check_authorities
from xoauth2_proxy.config.oauth_rules import check_grant_keys
from xoauth2_proxy.config.problems import Problems, join
from xoauth2_proxy.config.secret import SecretReference

if TYPE_CHECKING:
    from xoauth2_proxy.config.model import AccountSection
    from xoauth2_proxy.config.providers import Provider

# The client's fields that are called otherwise than the file's keys.
_FIELDS = {
    "grant": "grant_type",
    "oauth_token_url": "token_endpoint",
    "authorization_url": "authorization_endpoint",
    "client_secret_expires": "secret_expires_on",
}
_KEYS = (*OAuthSection.model_fields, "refresh_token", "sign_in_as")
_FILES = frozenset({"ca_file", "certificate", "service_account"})

_Layer = dict[str, Any]  # the fields of a client that one section writes


class OAuthReader:
    """Reads accounts' clients; what a provider's entry writes is read once, at its first use."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._entries: dict[str, tuple[_Layer, Problems]] = {}

    def of_entry(self, provider: Provider, problems: Problems) -> _Layer | None:
        """Return what the provider's entry writes, or None with what is wrong in `problems`."""
        if provider.entry is None:
            return {}
        if provider.name not in self._entries:
            found = Problems()
            layer = self._layer(provider.entry, join("providers", provider.name), found)
            self._entries[provider.name] = layer, found
        layer, found = self._entries[provider.name]
        problems.take(found)
        return None if found else layer

    def of_provider(self, provider: Provider) -> OAuthClient:
        """Return the client of an account that writes nothing of its own.

        Where the entry's secrets cannot be had, it is as if there were no entry.
        """
        entry = self.of_entry(provider, Problems())
        return _completed(_overlaid(provider.oauth, entry or {}), provider, entry or {})

    def client(
        self,
        provider: Provider,
        entry: _Layer,
        section: AccountSection,
        path: str,
        problems: Problems,
    ) -> OAuthClient:
        """Return the account's client; `entry` is what the provider's entry writes."""
        own = self._layer(section, path, problems)
        client = _overlaid(_overlaid(provider.oauth, entry), own)
        client = _completed(client, provider, entry | own)
        check_grant_keys(client, section, path, problems)
        return client

    def _layer(self, section: OAuthSection, path: str, problems: Problems) -> _Layer:
        layer: _Layer = {}
        for key in _KEYS:
            value = getattr(section, key, None)
            if value is not None:
                field = _FIELDS.get(key, key)
                layer[field] = self._read(key, value, join(path, key), problems)
        if section.certificate is not None:
            if section.client_secret is not None:
                problems.add(join(path, "certificate"), "contradicts client_secret; remove one")
            where = join(path, "certificate")
            layer.setdefault(
                "secret_expires_on", certificate_end(layer["certificate"], where, problems)
            )
        return layer

    def _read(self, key: str, value: Any, path: str, problems: Problems) -> object:  # noqa: ANN401
        if isinstance(value, SecretReference):
            return self._surroundings.secret(value, path, problems)
        directory = self._surroundings.directory
        if key == "parameters":
            return tuple(value.items())
        if key == "command":
            return found_program(value, directory, self._surroundings.environ, path, problems)
        if key in _FILES:
            file = directory / value
            if key == "ca_file":
                check_authorities(file, path, problems)
            elif key == "service_account":
                check_service_account(file, path, problems)
            return file
        return value


def _overlaid(base: OAuthClient, layer: _Layer) -> OAuthClient:
    is_another_client = base.client_id != layer.get("client_id", base.client_id)
    if (base.client_id and is_another_client) or layer.keys() & {"client_secret", "certificate"}:
        base = replace(base, client_secret="", certificate=None, secret_expires_on=None)
    if "issuer" in layer:
        base = replace(base, token_endpoint="", authorization_endpoint="")
    return replace(base, **layer)


def _completed(client: OAuthClient, provider: Provider, written: _Layer) -> OAuthClient:
    """Return the client with what follows from the rest."""
    if "grant_type" not in written and client.service_account is not None:
        client = replace(client, grant_type=GrantType.SERVICE_ACCOUNT)
    if "scopes" not in written and client.grant_type is GrantType.CLIENT_CREDENTIALS:
        client = replace(client, scopes=provider.application_scopes)
    return client
