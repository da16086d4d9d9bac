"""Describes a mailbox's stored access token without showing it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.oauth.mailbox_status import rfc3339

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.grant import EpochSeconds
    from xoauth2_proxy.oauth.stores import StoredGrant

TOKEN_TYPE = "Bearer"  # noqa: S105 - RFC 6750, the only type that XOAUTH2 and OAUTHBEARER carry


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenInfo:
    """What is known of an access token, without the token."""

    name: str  # the mailbox, or the name that a program gave
    provider: str
    token_type: str = ""  # "": there is no token
    scope: str = ""  # as the endpoint said; "": it did not, which means the one asked for
    expires_at: datetime | None = None  # UTC
    remaining_seconds: float = 0.0
    refreshed_at: datetime | None = None  # UTC, the last success
    last_error: str = ""  # "": the last attempt succeeded

    @property
    def has_token(self) -> bool:
        """Whether there is a token, perhaps an expired one."""
        return bool(self.token_type)

    def to_json(self) -> dict[str, object]:
        """Return a JSON object: dates as in RFC 3339, null for what is not known."""
        facts: dict[str, object] = {
            "mailbox": self.name,
            "provider": self.provider,
            "type": self.token_type or None,
        }
        if self.has_token:
            facts |= {
                "scope": self.scope,
                "expires_at": _shown(self.expires_at),
                "remaining_seconds": round(self.remaining_seconds),
                "refreshed_at": _shown(self.refreshed_at),
            }
        return facts | {"last_error": self.last_error or None}


def info_of(account: Account, grant: StoredGrant | None, now: EpochSeconds) -> TokenInfo:
    """Return what is known of the account's stored token."""
    failure = grant.failure if grant is not None else None
    last_error = failure.text if failure is not None else ""
    if grant is None or not grant.access_token:
        return TokenInfo(name=account.email, provider=account.provider, last_error=last_error)
    return TokenInfo(
        name=account.email,
        provider=account.provider,
        token_type=TOKEN_TYPE,
        scope=grant.scope,
        expires_at=_moment(grant.access_token_expires_at),
        remaining_seconds=max(0.0, grant.access_token_expires_at - now),
        refreshed_at=_moment(grant.refreshed_at),
        last_error=last_error,
    )


def brings_own_token(account: Account) -> bool:
    """Whether no token can be requested for the account: its clients bring their own."""
    return account.refresher != MOCK and not account.keeps_tokens


def _moment(seconds: EpochSeconds) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _shown(moment: datetime | None) -> str | None:
    return rfc3339(moment.timestamp()) if moment else None
