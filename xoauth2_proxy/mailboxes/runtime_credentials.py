"""Keeps the credentials that were made at run time: they join the accounts of the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.mailboxes.document_files import DocumentFiles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xoauth2_proxy.oauth.stores.encryption import GrantCipher
    from xoauth2_proxy.strict_json import Json

MAILBOX = "mailbox"  # the key, beside those of the configuration, that names the account


class RuntimeCredentials(DocumentFiles):
    """The credentials that were made, by mailbox and name."""

    KIND = "credential"

    @staticmethod
    def key_of(document: Mapping[str, object]) -> str:
        """Return the mailbox and the name of the credential; "" if it does not have both."""
        mailbox, name = document.get(MAILBOX), document.get("name")
        named = isinstance(mailbox, str) and isinstance(name, str)
        return credential_key(str(mailbox), str(name)) if named else ""

    def remove_all_of(self, mailbox: str) -> None:
        """Delete all credentials of a mailbox. Raises `OSError`."""
        prefix = credential_key(mailbox, "")
        for key in self.keys():
            if key.startswith(prefix):
                self.remove(key)


def open_runtime_credentials(state_dir: Path, cipher: GrantCipher) -> RuntimeCredentials:
    """Return the credentials that were made for the proxy of this state directory."""
    return RuntimeCredentials(credentials_directory(state_dir), cipher)


def credentials_directory(state_dir: Path) -> Path:
    """Return the directory of the credentials that were made."""
    return state_dir.absolute() / "credentials"


def credential_key(mailbox: str, name: str) -> str:
    """Return what a credential is known by: no name and no mailbox holds a blank."""
    return f"{login_key(mailbox)} {name}"


def credential_document(mailbox: str, keys: Mapping[str, Json]) -> dict[str, Json]:
    """Return the document of a credential with these keys of the configuration."""
    return {MAILBOX: mailbox, **keys}
