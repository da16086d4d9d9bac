"""Finds the account that a command names, and says why a command failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.commands.suggestions import unknown

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.config import Config

DONE, FAILED, WRONG_USAGE = 0, 1, 2  # exit codes


class Failed(Exception):
    """Nothing was changed; the text says why."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.code = code


def configured_account(mailbox: str, config: Config) -> Account:
    """Return the enabled account of this address. Raises `Failed`."""
    key = login_key(mailbox)
    for account in config.accounts:
        if account.key == key:
            return account
    known = [one.email for one in config.accounts]
    raise Failed(unknown("enabled account", mailbox, known), WRONG_USAGE)
