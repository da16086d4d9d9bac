"""Reads the providers of the file: changes to the built-in ones, and others of its own."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING

from xoauth2_proxy.config.account_sections import ProviderSection
from xoauth2_proxy.config.built_in_providers import blank_provider, built_in_providers
from xoauth2_proxy.config.oauth_rules import misfits
from xoauth2_proxy.config.problems import Problems
from xoauth2_proxy.config.validation import validate
from xoauth2_proxy.config.values import WORD, WORD_RULE
from xoauth2_proxy.strict_json import json_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xoauth2_proxy.config.load_context import LoadContext
    from xoauth2_proxy.config.providers import Provider
    from xoauth2_proxy.strict_json import Json

# What people call the providers that are built in under another name.
_OTHER_NAMES = {
    **dict.fromkeys(("office365", "office", "o365", "m365", "microsoft", "exchange"), "outlook"),
    **dict.fromkeys(("microsoft365", "exchange-online", "entra", "azure"), "outlook"),
    **dict.fromkeys(("hotmail", "live", "msn", "outlook.com"), "outlook-personal"),
    **dict.fromkeys(("google", "googlemail", "gsuite", "workspace"), "gmail"),
    **dict.fromkeys(("google-workspace", "gmail.com"), "gmail"),
}


def load_providers(context: LoadContext) -> dict[str, Provider | None]:
    """Return the providers by name; None: its entry is wrong, which is told."""
    built_in = built_in_providers(context.environment.state_dir)
    providers: dict[str, Provider | None] = dict(built_in)
    entries = context.document.get("providers", {})
    if not isinstance(entries, dict):
        context.problems.add("providers", "must be an object")
        return providers
    for name, value in entries.items():
        problems = Problems()
        provider = _provider(context, built_in.get(name), name, value, problems)
        providers[name] = None if problems else provider
        context.problems.take(problems)
    return providers


def unknown_provider(name: str, known: Iterable[str]) -> str:
    """Return the words for a provider that is not one of `known`."""
    names = sorted(known)
    likely = _OTHER_NAMES.get(name.lower().replace(" ", ""))
    near = [likely] if likely else difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no {name}; there are {', '.join(names)}{hint}"


def _provider(
    context: LoadContext, base: Provider | None, name: str, value: Json, problems: Problems
) -> Provider | None:
    path = json_path("providers", name)
    if not WORD.fullmatch(name):
        problems.add(path, f"the name {WORD_RULE}")
    section = validate(ProviderSection, value, path, problems)
    if section is None:
        return None
    known = context.known_refreshers
    if section.refresher is not None and section.refresher not in known:
        problems.add(
            json_path(path, "refresher"),
            f"there is no refresher {section.refresher}; there are {', '.join(sorted(known))}",
        )
    if base is None:
        problems.add_faults(path, _missing_of_new(section))
        base = blank_provider(name, section.refresher or "")
    missing = Problems()
    complete = validate(ProviderSection, value, path, missing, context.environment)
    provider = replace(
        base.changed_by(complete or section),
        client_fields=complete.client_fields() if complete else {},
        missing=missing,
    )
    problems.add_faults(path, provider.faults_of_use(provider.upstream, provider.limits))
    problems.add_faults(path, misfits(section, provider))
    return provider


def _missing_of_new(section: ProviderSection) -> Iterator[tuple[str, str]]:
    if section.refresher is None:
        yield "refresher", "is required for a provider of your own"
    for key in ("host", "port"):
        if getattr(section.upstream, key, None) is None:
            yield f"upstream.{key}", "is required for a provider of your own"
