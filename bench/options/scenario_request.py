"""Builds a run from a scenario file and the command line's options."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from bench.options import request_builder, scenario_file
from bench.options.scenario_schema import LoadSection
from bench.targets.mailboxes import BenchMailbox
from bench.targets.target_request import PrivateProxyOptions

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from bench.options.run_options import RunOptions
    from bench.runs.run_request import RunRequest

_NOT_WITH_FILE = frozenset(
    {
        *("host", "port", "admin_url", "tls", "ca_file", "allow_remote", "state_dir"),
        *("password", "no_auth", "accounts", "users", "user_prefix", "min_accounts", "sign_in"),
    }
)
_PASSWORD = "secret"  # noqa: S105 - of mailboxes that log in with tokens; unused


def applied(
    path: Path, options: RunOptions, given: Collection[str]
) -> tuple[RunOptions, RunRequest]:
    """Return the file's options, overridden by those on the command line, and the run.

    Raises:
        typer.BadParameter: the file is not a scenario, or an option conflicts with it.
    """
    for name in given:
        if name in _NOT_WITH_FILE:
            raise typer.BadParameter(
                "cannot be used with a scenario file, which starts its own proxy and provider.",
                param_hint=f"--{name.replace('_', '-')}",
            )
    try:
        case = scenario_file.read(path)
    except scenario_file.ScenarioFileError as error:
        raise typer.BadParameter(str(error), param_hint="--scenario-file") from None
    load = {
        name: getattr(case.options, name) for name in LoadSection.model_fields if name not in given
    }
    merged = replace(
        options,
        **load,
        use_mock_tokens=True,
        assertions=[*case.assertions, *(options.assertions or ())] or None,
    )
    request = request_builder.request_of(merged)
    mailboxes = tuple(
        BenchMailbox(address, request.secret or _PASSWORD) for address in request.plan.mailboxes
    )
    private_options = PrivateProxyOptions(
        mailboxes=mailboxes,
        provider=case.provider,
        limits=case.limits,
        is_kept=options.no_cleanup,
    )
    return merged, replace(
        request,
        plan=replace(request.plan, scenario=case.name),
        target=replace(request.target, is_private=True, private_options=private_options),
    )
