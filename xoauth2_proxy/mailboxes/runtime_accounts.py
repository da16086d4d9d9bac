"""Keeps the accounts that were added at run time, which are read beside the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.mailboxes.document_files import DocumentFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xoauth2_proxy.oauth.stores.encryption import GrantCipher


class RuntimeAccounts(DocumentFiles):
    """The accounts that were added, by the mailbox's key."""

    KIND = "account"

    @staticmethod
    def key_of(document: Mapping[str, object]) -> str:
        """Return the key of the account that the document describes; "" if it names no mailbox."""
        return account_key(document)


def open_runtime_accounts(state_dir: Path, cipher: GrantCipher) -> RuntimeAccounts:
    """Return the accounts that were added to the proxy of this state directory."""
    return RuntimeAccounts(accounts_directory(state_dir), cipher)


def accounts_directory(state_dir: Path) -> Path:
    """Return the directory of the added accounts."""
    return state_dir.absolute() / "accounts"


def account_key(document: Mapping[str, object]) -> str:
    """Return the key of the account that the document describes; "" if it names no mailbox."""
    email = document.get("email")
    return login_key(email) if isinstance(email, str) else ""
