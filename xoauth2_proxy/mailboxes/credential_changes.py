"""Makes and revokes credentials of mailboxes: saves them, then puts them in force.

I1: a generated key is saved as a digest, a password that a person chose as an argon2 hash.
I2: a credential that was answered for is on disk and in force in every process; one that cannot be
put in force is deleted again.
I3: concurrent changes do not overwrite one another.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.accounts.local_password import LocalPassword, digest_of_key, new_key
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.mailboxes.interface import (
    CredentialExists,
    DefinedInFile,
    NeedsAdminToken,
    UnknownCredential,
    UnknownMailbox,
)
from xoauth2_proxy.mailboxes.runtime_credentials import credential_document, credential_key
from xoauth2_proxy.network import network_text

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.accounts.credential import Credential
    from xoauth2_proxy.mailboxes.interface import Document, RelayControl
    from xoauth2_proxy.network import Network

_log = log.logger("mailboxes")


@dataclass(frozen=True, slots=True)
class ListedCredential:
    """A credential of a mailbox, and where it is written."""

    credential: Credential
    source: str  # "account": its own password; "file": the configuration; "made": at run time

    @property
    def state(self) -> str:
        """Whether it can be used: "usable", "disabled" or "expired"."""
        if not self.credential.enabled:
            return "disabled"
        return "expired" if self.credential.is_expired(time.time()) else "usable"

    @property
    def proof(self) -> str:
        """What proves it: a generated "key", a "password" or the client's "address"."""
        password = self.credential.password
        return "address" if password is None else "key" if password.key_digest else "password"

    def to_json(self) -> dict[str, object]:
        """Return it as interfaces show it; without secrets."""
        one = self.credential
        return {
            "name": one.name,
            "login": one.login or None,
            "proof": self.proof,
            "state": self.state,
            "source": self.source,
            "networks": [network_text(network) for network in one.networks],
            "senders": list(one.senders),
            "messages_per_minute": one.messages_per_minute,
            "messages_per_day": one.messages_per_day,
            "max_connections": one.max_connections,
            "expires": one.expires.isoformat() if one.expires else None,
            "enabled": one.enabled,
        }


@dataclass(frozen=True, slots=True)
class MadeCredential:
    """A credential that is in force now."""

    account: Account
    credential: Credential
    password: str = field(repr=False)  # generated, and not saved in clear; "": none was


class CredentialChanges:
    """The credentials of the running relay's mailboxes."""

    def __init__(self, relay: RelayControl, lock: asyncio.Lock) -> None:
        self._relay = relay
        self._lock = lock  # held while the set of accounts changes

    def listing(self, mailbox: str) -> tuple[Account, list[ListedCredential]]:
        """Return the account and its credentials, its own password first.

        Raises `UnknownMailbox`.
        """
        account = self._account(mailbox)
        return account, listed_credentials(account, self._relay.made)

    async def add(
        self, mailbox: str, document: Document, *, has_password: bool = True
    ) -> MadeCredential:
        """Make a credential with these keys of the configuration; it is in force on return.

        Without a password in the document, one is generated, unless `has_password` is False.

        Raises:
            UnknownMailbox: there is none.
            NeedsAdminToken: any user of this machine could ask for this.
            CredentialExists: the mailbox has one of this name.
            ConfigError: some keys are not valid.
            OSError: it cannot be saved.
        """
        document, key = with_key(document) if has_password else (document, "")
        async with self._lock:
            account = self._account(mailbox)
            self._check_may_change(account)
            name = str(document.get("name", ""))
            if any(one.name == name for one in account.credentials):
                raise CredentialExists(f"{account.email} has a credential {name} already")
            credential = await asyncio.to_thread(self._relay.check_credential, document, account)
            self._check_takes_nobody(account, credential)
            document, credential = await asyncio.to_thread(hashed, document, credential)
            files, place = self._relay.credential_files, credential_key(account.key, name)
            await asyncio.to_thread(files.add, credential_document(account.key, document))
            try:
                await self._use(account, [*account.credentials, credential], {*self._made, place})
            except BaseException:
                # It is not in force, and must not be at the next start either.
                await asyncio.to_thread(files.remove, place)
                raise
        return MadeCredential(account, credential, key)

    async def revoke(self, mailbox: str, name: str) -> Account:
        """Delete a credential that was made at run time; return its account.

        Clients that logged in with it are turned away at their next MAIL.

        Raises:
            UnknownMailbox, UnknownCredential: there is none.
            DefinedInFile: it can be removed only there.
            OSError: it cannot be deleted, and stays in force.
        """
        async with self._lock:
            account = self._account(mailbox)
            key = credential_key(account.key, name)
            left = [one for one in account.credentials if one.name != name]
            if len(left) == len(account.credentials):
                if login_key(name) == account.key and account.password is not None:
                    raise DefinedInFile(
                        f"{name} is the mailbox's own password: change it where the account is "
                        "written"
                    )
                raise UnknownCredential(f"{account.email} has no credential {name}")
            if key not in self._made:
                raise DefinedInFile(
                    f"the credential {name} is defined in the configuration file: remove it "
                    'there, or write "enabled": false, and reload'
                )
            await asyncio.to_thread(self._relay.credential_files.remove, key)
            await self._use(account, left, self._made - {key})
        return account

    async def forget_mailbox(self, key: str) -> None:
        """Delete the credentials of a mailbox that was removed, so that none outlives it."""
        try:
            await asyncio.to_thread(self._relay.credential_files.remove_all_of, key)
        except OSError as error:
            _log.event(logging.ERROR, "credentials not deleted", account=key, error=error)

    async def _use(
        self, account: Account, credentials: Sequence[Credential], made: set[str]
    ) -> None:
        await self._relay.use_credentials(account.key, credentials, made)

    @property
    def _made(self) -> set[str]:
        return set(self._relay.made)

    def _account(self, mailbox: str) -> Account:
        account = self._relay.accounts.get(login_key(mailbox))
        if account is None:
            raise UnknownMailbox(f"there is no mailbox {mailbox}")
        return account

    def _check_may_change(self, account: Account) -> None:
        """Raise `NeedsAdminToken` where anyone on this machine could get to send as the mailbox."""
        is_written = account.key not in self._relay.added
        if is_written and not self._relay.has_token and account.refresher != MOCK:
            raise NeedsAdminToken(
                f"{account.email} is defined in the configuration file, and no admin.token is "
                "set: any user of this machine could send as it; set admin.token and restart, or "
                "use `xoauth2-proxy credential add` as the user who runs the proxy"
            )

    def _check_takes_nobody(self, account: Account, credential: Credential) -> None:
        """Raise `NeedsAdminToken` where anyone on this machine could divert a device's mail.

        Of several networks the smallest decides to which mailbox a device without a login belongs.
        """
        if self._relay.has_token or credential.password is not None:
            return
        for other in self._relay.accounts.values():
            if other.key != account.key and any(
                one.password is None and _overlap(one.networks, credential.networks)
                for one in other.credentials
            ):
                raise NeedsAdminToken(
                    f"devices of these networks send as {other.email} without a password, and no "
                    "admin.token is set: any user of this machine could have their mail; set "
                    "admin.token and restart, or write the credential into the configuration file"
                )


def _overlap(some: Sequence[Network], others: Sequence[Network]) -> bool:
    return any(
        one.version == other.version and one.overlaps(other) for one in some for other in others
    )


def listed_credentials(account: Account, made: Collection[str]) -> list[ListedCredential]:
    """Return an account's credentials, its own password first.

    `made` are the keys of all that were made at run time.
    """
    own = [ListedCredential(account.own_credential, "account")] if account.password else []
    return own + [
        ListedCredential(one, "made" if credential_key(account.key, one.name) in made else "file")
        for one in account.credentials
    ]


def with_key(document: Document) -> tuple[Document, str]:
    """Return the document with a password, and the key if that was generated here."""
    if "password" in document:
        return document, ""
    key = new_key()
    return document | {"password": digest_of_key(key)}, key


def hashed(document: Document, credential: Credential) -> tuple[Document, Credential]:
    """Return both with a hash in the place of a password that a person chose. It blocks."""
    if credential.password is None or not credential.password.clear_text:
        return document, credential
    import argon2  # not above: most credentials have a generated key

    kept = argon2.PasswordHasher().hash(credential.password.clear_text)
    password = LocalPassword(argon2_hash=kept)
    return document | {"password": kept}, replace(credential, password=password)
