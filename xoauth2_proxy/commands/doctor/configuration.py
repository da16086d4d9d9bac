"""What is configured and what is stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.commands.doctor.context import NotNeeded, Trouble
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import status_of
from xoauth2_proxy.oauth.refresh import current_grant

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.commands.doctor.context import DoctorContext

_OTHER_CLIENT = (
    "what is stored was granted to another client or by another provider than the account names "
    "now, so it does not count"
)
_GRANTS = {
    GrantType.REFRESH_TOKEN: "a person's sign-in",
    GrantType.CLIENT_CREDENTIALS: "the application's own credentials",
    GrantType.SERVICE_ACCOUNT: "a service account",
}


async def configuration(context: DoctorContext) -> str:
    """Say what is configured, which was read without problems."""
    account = context.account
    upstream = account.upstream
    words = [f"provider {account.provider}"]
    if account.refresher != account.provider:
        words.append(f"tokens from {account.refresher}")
    if account.refresher != MOCK:
        words.append(_grant(account) if account.keeps_tokens else "clients' own tokens")
    words.append(f"mail by {upstream.host}:{upstream.port} ({upstream.tls})")
    return ", ".join(words)


def _grant(account: Account) -> str:
    """Return with what right tokens are requested."""
    plug_in = account.plug_in
    if plug_in is not None and account.oauth.grant_type is GrantType.REFRESH_TOKEN:
        return f"the plug-in {plug_in.label} of {plug_in.origin}"
    return "a program" if account.oauth.command else _GRANTS[account.oauth.grant_type]


async def stored_grant(context: DoctorContext) -> str:
    """Say what the store has, or that a person must sign in first."""
    account = context.account
    if not account.keeps_tokens:
        raise NotNeeded("no grant is kept for this account")
    if not context.given.is_store_shared:
        return _unshared(context)
    try:
        kept = await context.given.store.load(account.key)
    except TokenStoreUnavailable as error:
        raise Trouble(
            f"the store cannot be read: {error}",
            'look at "store" in the configuration and at what it names',
        ) from None
    grant = current_grant(account, kept, EpochSeconds(context.clock.time()))
    found = status_of(account, grant, EpochSeconds(context.clock.time()), 0)
    if not grant.refresh_token and not grant.refreshed_at and found.needs_a_person:
        is_anothers = kept is not None and kept.refresh_token and grant is not kept
        raise Trouble(_OTHER_CLIENT if is_anothers else found.reason, found.remedy)
    words = []
    if kept is not None and grant is not kept:
        words.append(_OTHER_CLIENT)
    if grant.signed_in_at and grant is kept:
        words.append(f"signed in {_date(grant.signed_in_at)}")
    words.append(
        f"last token {_date(grant.refreshed_at)}" if grant.refreshed_at else "no token yet"
    )
    if found.days_left is not None and not grant.failure:
        words.append(f"{found.days_left:.0f} days left")
    if grant.failure is not None:
        words.append(f"last attempt failed {_date(grant.failure.at)}: {found.last_error}")
    return "; ".join(words)


def _unshared(context: DoctorContext) -> str:
    client = context.account.oauth
    if client.grant_type is GrantType.REFRESH_TOKEN and not client.command:
        # A second refresh with a token that was replaced meanwhile can end the whole sign-in.
        raise Trouble(
            "the sign-in lives in the running proxy's memory, and cannot be tried without risk",
            'set "store": {"kind": "file"}; or ask the running proxy: xoauth2-proxy status '
            f"{context.account.email}",
        )
    return "nothing is kept beyond a process"


def _date(moment: float) -> str:
    shown = datetime.fromtimestamp(moment, UTC).isoformat(sep=" ", timespec="minutes")
    return shown.replace("+00:00", "Z")
