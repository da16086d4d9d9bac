"""`xoauth2-proxy check`: warns of what would stop mail although the configuration is valid.

It sends and writes nothing. Remote stores and keyrings are not asked: a keyring may prompt a
person.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.files import fault_of_readers
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.oauth.expiry_monitor import mailbox_statuses
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import State
from xoauth2_proxy.oauth.stores import StoreKind
from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.service.components import open_configured_store, unusable_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.config import Config
    from xoauth2_proxy.oauth.mailbox_status import MailboxStatus

_USUAL_TLS = {25: TlsMode.STARTTLS, 465: TlsMode.IMPLICIT, 587: TlsMode.STARTTLS}


def warnings_of(config: Config, *, has_sandbox: bool) -> Iterator[str]:
    """Yield a sentence for each thing that the operator should fix. Blocks."""
    yield from config.warnings
    yield from _unusual_ports(config.accounts)
    yield from _readable_token_files(config.accounts)
    if config.sandbox_accounts and not has_sandbox:
        yield (
            f"{len(config.sandbox_accounts)} account(s) use the sandbox, which runs only with "
            "--sandbox: add that option"
        )
    if problem := unusable_store(config):
        yield problem
    elif config.store.kind is StoreKind.FILE and not config.store.keyring:
        not_signed_in = [
            one for one in asyncio.run(_statuses(config)) if one.state is State.SIGN_IN_NEEDED
        ]
        if not_signed_in:
            yield (
                f"{len(not_signed_in)} mailbox(es) cannot send until a person signs in; "
                f"the first: xoauth2-proxy login {not_signed_in[0].mailbox}"
            )


def _unusual_ports(accounts: Iterable[Account]) -> Iterator[str]:
    """Yield the upstreams whose port is known for the other way to begin TLS (RFC 8314 §3.3)."""
    upstreams = {account.upstream: account.email for account in reversed(list(accounts))}
    for upstream, mailbox in upstreams.items():
        usual = _USUAL_TLS.get(upstream.port, upstream.tls)
        if usual is not upstream.tls and not is_loopback(upstream.host):
            yield (
                f'{mailbox}: port {upstream.port} of {upstream.host} is usually for "tls": '
                f'"{usual}", and upstream.tls is {upstream.tls}; doctor tells which it is'
            )


def _readable_token_files(accounts: Iterable[Account]) -> Iterator[str]:
    """Yield a warning for each file of tokens that a refresher's `cat` prints for every user.

    What other programs read, or whether a script holds a secret, cannot be known.
    """
    files = set()
    for account in accounts:
        program, *words = account.oauth.command or ("",)
        if Path(program).name == "cat":
            files |= {Path(word.replace("{mailbox}", account.email)) for word in words}
    for file in sorted(files):
        with suppress(OSError, ValueError):
            if fault := fault_of_readers(file):
                yield fault


async def _statuses(config: Config) -> list[MailboxStatus]:
    # Opening the file store would make its directory.
    store = (
        open_configured_store(config.store) if config.store.directory.is_dir() else MemoryStore()
    )
    try:
        now = EpochSeconds(time.time())
        return await mailbox_statuses(config.accounts, store, now, config.alerts.warn_days)
    finally:
        await store.close()
