"""Builds the list of mailboxes to create for a run from the command line's options."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import typer

from bench.targets.mailboxes import MailboxesToAdd, is_prefix
from bench.targets.target_request import DEFAULT_PORT

if TYPE_CHECKING:
    from bench.options.run_options import RunOptions


def accounts_of(options: RunOptions) -> MailboxesToAdd | None:
    """Return the mailboxes to create; None if the run uses existing ones.

    Raises:
        typer.BadParameter: an option is invalid or conflicts with another.
    """
    if options.accounts is None:
        for name in ("user_prefix", "min_accounts"):
            if getattr(options, name):
                _refuse(f"--{name.replace('_', '-')}", "requires --accounts.")
        return None
    for name, value in (("from", options.from_emails), ("password", options.password)):
        if value is not None:
            _refuse("--accounts", f"creates its own mailboxes; omit --{name}.")
    if options.no_auth:
        _refuse("--accounts", "needs logins; omit --no-auth.")
    is_elsewhere = options.host is not None or options.port not in (None, DEFAULT_PORT)
    if is_elsewhere and options.admin_url is None:
        _refuse(
            "--admin-url", "is required: the admin server of the proxy that gets the --accounts."
        )
    if options.user_prefix is not None and not is_prefix(options.user_prefix):
        _refuse(
            "--user-prefix",
            f"{options.user_prefix!r} cannot begin a mail address: a-z, 0-9 and . _ - within.",
        )
    try:
        return MailboxesToAdd(
            count=options.accounts,
            user_prefix=options.user_prefix or "bench",
            min_count=options.min_accounts,
            is_kept=options.no_cleanup,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--accounts") from None


def _refuse(option: str, reason: str) -> NoReturn:
    raise typer.BadParameter(reason, param_hint=option)
