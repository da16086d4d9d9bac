"""`options`: the keys of an account or provider that a plug-in declares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xoauth2_proxy.config.section import Section, validate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.refresher_info import RefresherInfo
    from xoauth2_proxy.config.environment import Environment
    from xoauth2_proxy.config.problems import Problem

_REQUIRED = "is required"


def read_options(
    written: Mapping[str, Any] | None,
    refresher: RefresherInfo,
    environment: Environment | None,
    *,
    is_whole: bool = True,
) -> tuple[Section | None, list[Problem]]:
    """Return the options as the refresher's model, and what is wrong with them.

    Without an environment, only their shape is checked. They are not whole in a provider: an
    account may add what is missing there.
    """
    model = refresher.options
    if model is None:
        fault = f"are not for the refresher {refresher.name}: it declares none; remove them"
        return None, [("options", fault)] if written and not refresher.fault else []
    assert issubclass(model, Section)  # noqa: S101 - as `RefresherInfo` requires
    options, problems = validate(model, dict(written or {}), "options", environment)
    if not is_whole:
        problems = [one for one in problems if one[1] != _REQUIRED]
    return options, problems
