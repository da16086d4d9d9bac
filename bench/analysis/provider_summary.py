"""A one-line summary of the sandbox's settings in a run: what differs from its profile.

The settings come from a document of any source: values of an unexpected form are shown as they
are or left out, and never raise an error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.analysis.documents import Document
    from xoauth2_proxy.sandbox.behaviour import Behaviour
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings

_MOST_FAULTS = 5  # told one by one
_MOST_LETTERS = 80  # of one fault: a reply's text can be long
_SECONDS = "_seconds"
# Values of a fault that are not shown.
_USUAL: Mapping[str, tuple[object, ...]] = {
    "nth": (None, 1),
    "seconds": (None, 0),
    "retry_after_seconds": (None, 0),
}


def settings(run: Document) -> Mapping[str, object] | None:
    """Return the provider's settings; None if the run does not have them."""
    found = run.get("provider_settings")
    return found if isinstance(found, Mapping) else None


def flat(found: Mapping[str, object]) -> dict[str, object]:
    """Return each setting by its name; nested names are joined by dots."""
    named: dict[str, object] = {}
    for key, one in found.items():
        if isinstance(one, Mapping):
            named |= {f"{key}.{name}": value for name, value in one.items()}
        else:
            named[key] = one
    return named


def summary(found: Mapping[str, object]) -> str:
    """Return the settings in one line: `outlook, rtt 80 ms, faults: end:drop:rate=0.01`."""
    # With pydantic behind them, they would be half of a run's start.
    from xoauth2_proxy.sandbox.behaviour import ProviderProfile
    from xoauth2_proxy.sandbox.profiles import PROFILES
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings

    behaviour, endpoint = (
        one if isinstance(one, Mapping) else {}
        for one in (found.get("behaviour"), found.get("token_endpoint"))
    )
    profile = behaviour.get("dialect", ProviderProfile.UNLIMITED.value)
    usual = _plain(PROFILES[ProviderProfile(profile)]) if profile in list(ProviderProfile) else {}
    words = [
        str(profile),
        *_changed(behaviour, usual),
        *(f"token {one}" for one in _changed(endpoint, _plain(TokenEndpointSettings()))),
    ]
    faults = found.get("faults")
    if isinstance(faults, Sequence) and not isinstance(faults, str) and faults:
        words.append(f"faults: {_faults(faults)}")
        words.append(f"seed {_value(found.get('seed'))}")
    return ", ".join(words)


def _plain(usual: Behaviour | TokenEndpointSettings) -> dict[str, object]:
    plain: dict[str, object] = {}
    for field in fields(usual):
        value = getattr(usual, field.name)
        if isinstance(value, StrEnum):
            value = value.value
        plain[field.name] = sorted(value) if isinstance(value, frozenset) else value
    return plain


def _changed(given: Mapping[str, object], usual: Mapping[str, object]) -> list[str]:
    return [
        _setting(name, value)
        for name, value in given.items()
        if name != "dialect" and (name not in usual or value != usual[name])
    ]


def _setting(name: str, value: object) -> str:
    if name.endswith(_SECONDS) and isinstance(value, int | float) and not isinstance(value, bool):
        shown = f"{value * 1000:g} ms" if 0 < value < 1 else f"{value:g} s"
        return f"{name.removesuffix(_SECONDS)} {shown}"
    return f"{name}={_value(value)}"


def faults(found: Sequence[object]) -> str:
    """Return the first few faults in the syntax of `--fault`."""
    return _faults(found) or "none"


def _faults(faults: Sequence[object]) -> str:
    told = [_fault(fault) for fault in faults[:_MOST_FAULTS]]
    more = len(faults) - _MOST_FAULTS
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _fault(fault: object) -> str:
    """Return a fault in the syntax of `--fault`."""
    if not isinstance(fault, Mapping):
        return _value(fault)
    words = [str(fault.get("step")), str(fault.get("action"))]
    rate = fault.get("rate")
    if fault.get("nth", 1) is None and rate is None:
        words.append("every")
    words += [
        f"{name}={_value(value)}"
        for name, value in fault.items()
        if name not in ("step", "action") and value not in _USUAL.get(name, (None, ""))
    ]
    shown = ":".join(words)
    return shown if len(shown) <= _MOST_LETTERS else f"{shown[: _MOST_LETTERS - 1]}…"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
