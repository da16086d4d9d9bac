"""Reads the providers of the file: changes to the built-in ones, and others of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from xoauth2_proxy.accounts.accounts import Limits, Upstream
from xoauth2_proxy.accounts.built_in_providers import blank_provider, built_in_providers
from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, RefresherInfo
from xoauth2_proxy.config.account_sections import LimitsSection, ProviderSection, UpstreamSection
from xoauth2_proxy.config.oauth_rules import unsupported_keys
from xoauth2_proxy.config.plug_in_options import read_options
from xoauth2_proxy.config.problems import Fault, Problem, beneath
from xoauth2_proxy.config.section import validate
from xoauth2_proxy.config.values import WORD, WORD_RULE
from xoauth2_proxy.strict_json import Json, json_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.accounts.providers import Provider
    from xoauth2_proxy.config.environment import Environment

_Values = TypeVar("_Values", Upstream, Limits)

_CLIENT = {"client_id", "client_secret", "certificate", "service_account", "command", "options"}


def load_providers(
    entries: Mapping[str, Json], environment: Environment, refreshers: Mapping[str, RefresherInfo]
) -> tuple[dict[str, Provider | None], list[Problem]]:
    """Return the providers by name, None for an entry that is wrong; and what is wrong."""
    built_in = built_in_providers(environment.state_dir)
    providers: dict[str, Provider | None] = {**built_in}
    problems: list[Problem] = []
    for name, value in entries.items():
        path = json_path("providers", name)
        section, found = validate(ProviderSection, value, path)
        if not WORD.fullmatch(name):
            found.insert(0, (path, f"the name {WORD_RULE}"))
        provider = None
        if section:
            complete, missing = validate(ProviderSection, value, path, environment)
            base = built_in.get(name) or blank_provider(name, section.refresher or "")
            provider = _changed(base, complete or section, missing, refreshers)
            faults = [*_faults(section, provider, refreshers, is_new=name not in built_in)]
            if not faults:
                info = provider.refresher_info
                faults += read_options(section.options, info, environment, is_whole=False)[1]
            found += beneath(path, faults)
        providers[name] = None if found else provider
        problems += found
    return providers, problems


def with_changes(base: _Values, section: UpstreamSection | LimitsSection | None) -> _Values:
    """Return `base` with what `section` writes."""
    return replace(base, **section.model_dump(exclude_unset=True)) if section else base


def is_written(section: UpstreamSection | None) -> bool:
    """Whether the file says anything about the upstream."""
    return section is not None and bool(section.model_fields_set)


def _changed(
    base: Provider,
    section: ProviderSection,
    missing: list[Problem],
    refreshers: Mapping[str, RefresherInfo],
) -> Provider:
    name, client = section.refresher or base.refresher, base.built_in_client
    plug_in = None if name in BUILT_IN_REFRESHERS else refreshers.get(name)
    if plug_in and plug_in.scopes:
        client = replace(client, scopes=plug_in.scopes)
    return replace(
        base,
        refresher=name,
        plug_in=plug_in,
        built_in_client=client,
        upstream=with_changes(base.upstream, section.upstream),
        limits=with_changes(base.limits, section.limits),
        is_upstream_written=is_written(section.upstream),
        client_fields={} if missing else section.client_fields(),
        has_own_client=bool(section.model_fields_set & _CLIENT),
        opens_every_mailbox=section.service_account is not None
        or section.grant not in (None, GrantType.REFRESH_TOKEN),
        missing=tuple(missing),
    )


def _faults(
    section: ProviderSection,
    provider: Provider,
    refreshers: Mapping[str, RefresherInfo],
    *,
    is_new: bool,
) -> Iterator[Fault]:
    if section.refresher not in (None, *refreshers):
        known = ", ".join(sorted(refreshers))
        yield "refresher", f"there is no refresher {section.refresher}; there are {known}"
    if is_new:
        values = {
            "refresher": section.refresher,
            "upstream.host": section.upstream and section.upstream.host,
            "upstream.port": section.upstream and section.upstream.port,
        }
        for key in (key for key, value in values.items() if value is None):
            yield key, "is required for a provider of your own"
    yield from provider.faults_of_use(provider.upstream, provider.limits)
    yield from unsupported_keys(section, provider)
