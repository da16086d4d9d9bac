"""Derives a mailbox's status: whether it can send, until when, and what a person must do. Pure."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.accounts.refresher_info import MOCK
from xoauth2_proxy.diagnostics import explain
from xoauth2_proxy.oauth.grant import EpochSeconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.stores import Failure, StoredGrant

_DAY_SECONDS = 86_400.0
_NEVER = EpochSeconds(0.0)
_UNREAD = "the token store cannot be read"
# The relay uses every grant daily, so none expires unused while that works.
_KEPT_ALIVE_SECONDS = 2 * _DAY_SECONDS
# Refreshers whose mailboxes need a person's sign-in first.
MEND_PLUG_IN = "install or correct the plug-in, and restart the proxy"
# What authenticates the client, and how to replace it: for a secret, and for a certificate.
_CREDENTIALS = {
    False: (
        "client secret",
        'create a new client secret at the provider; put it into "client_secret" and its last day '
        'into "client_secret_expires"',
    ),
    True: (
        "client's certificate",
        'create a certificate, upload it at the provider, then replace the file of "certificate"',
    ),
}


class State(StrEnum):
    """A mailbox's status in one word."""

    OK = "ok"
    UNUSED = "unused"  # configured; no token was requested yet
    ATTENTION = "attention"  # works, but needs a person soon
    SIGN_IN_NEEDED = "sign_in_needed"
    MISCONFIGURED = "misconfigured"
    TROUBLE = "trouble"  # the token endpoint or the store is unavailable; no one need act yet
    OWN_TOKEN = "own_token"  # noqa: S105 - its clients bring their own tokens
    MOCK = "mock"


NEEDS_A_PERSON = frozenset({State.ATTENTION, State.SIGN_IN_NEEDED, State.MISCONFIGURED})
IS_WELL = frozenset({State.OK, State.UNUSED, State.OWN_TOKEN, State.MOCK})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailboxStatus:
    """The status of one mailbox."""

    mailbox: str
    provider: str
    state: State
    last_success: EpochSeconds = _NEVER  # when the last access token was issued
    next_refresh: EpochSeconds = _NEVER  # when the next one is due; never: none is scheduled
    days_left: float | None = None  # until a person must act; None: no end is known
    reason: str = ""  # why it does not work, or soon will not
    remedy: str = ""  # what a person must do
    last_error: str = ""  # the provider's words at the last attempt; "": it succeeded

    @property
    def needs_a_person(self) -> bool:
        """Whether a person must act, now or soon."""
        return self.state in NEEDS_A_PERSON

    @property
    def is_unread(self) -> bool:
        """Whether the status is unknown, because the store could not be read."""
        return self.state is State.TROUBLE and self.reason.startswith(_UNREAD)

    def to_json(self) -> dict[str, object]:
        """Return the status as a JSON object: dates as in RFC 3339, null for never."""
        shown = asdict(self) | {
            "last_success": rfc3339(self.last_success),
            "next_refresh": rfc3339(self.next_refresh),
        }
        if self.days_left is not None:
            shown["days_left"] = round(self.days_left, 2)
        return shown

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MailboxStatus:
        """Return the status that `to_json` wrote; other keys are ignored. Raises `ValueError`."""
        try:
            days_left = values.get("days_left")
            return cls(
                mailbox=str(values["mailbox"]),
                provider=str(values["provider"]),
                state=State(values["state"]),
                last_success=_moment(values.get("last_success")),
                next_refresh=_moment(values.get("next_refresh")),
                days_left=None if days_left is None else float(days_left),
                **{key: str(values.get(key, "")) for key in ("reason", "remedy", "last_error")},
            )
        except (KeyError, TypeError) as error:
            raise ValueError("not a mailbox status") from error


@dataclass(frozen=True, slots=True)
class _Expiry:
    """Something that stops working at a known time."""

    at: float  # seconds since the epoch
    state: State  # once it has come
    reason: str
    remedy: str


def rfc3339(moment: float) -> str | None:
    """Return a date in UTC as in RFC 3339; None for never."""
    if not moment:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(date: str | None) -> EpochSeconds:
    return EpochSeconds(datetime.fromisoformat(date).timestamp()) if date else _NEVER


def status_of(
    account: Account, grant: StoredGrant | None, now: EpochSeconds, warn_days: int
) -> MailboxStatus:
    """Return the account's status; `grant` is the one in force (`refresh.current_grant`)."""
    status = MailboxStatus(mailbox=account.email, provider=account.provider, state=State.UNUSED)
    if account.refresher == MOCK:
        return replace(status, state=State.MOCK)
    if not account.keeps_tokens:
        return replace(status, state=State.OWN_TOKEN)
    if fault := account.refresher_info.fault:
        reason = f"the refresher {account.refresher} is disabled: {fault}"
        return replace(status, state=State.MISCONFIGURED, reason=reason, remedy=MEND_PLUG_IN)
    if not account.oauth.refresh_token and account.needs_sign_in and not _was_signed_in(grant):
        return replace(
            status,
            state=State.SIGN_IN_NEEDED,
            reason="no one has signed in yet",
            remedy=_sign_in(account, "sign in"),
            last_error=_words(grant.failure) if grant and grant.failure else "",
        )
    if grant is None:
        return status
    state, days_left, (reason, remedy) = _assess(account, grant, now, warn_days)
    return replace(
        status,
        state=state,
        last_success=grant.refreshed_at,
        next_refresh=_next_refresh(account, grant, now),
        days_left=days_left,
        reason=reason,
        remedy=remedy,
        last_error=_words(grant.failure) if grant.failure else "",
    )


def unreadable_status(account: Account, why: str) -> MailboxStatus:
    """Return the status of an account whose grant cannot be read."""
    return MailboxStatus(
        mailbox=account.email,
        provider=account.provider,
        state=State.TROUBLE,
        reason=f"{_UNREAD}: {why}",
        remedy='check "store" in the configuration, and the directory or server it names',
        last_error=why,
    )


def _was_signed_in(grant: StoredGrant | None) -> bool:
    return grant is not None and bool(grant.refresh_token or grant.refreshed_at)


def _has_grant(account: Account) -> bool:
    """Whether a person gave it, who can give it again."""
    is_plug_in = account.plug_in is not None
    return account.needs_sign_in or account.oauth.can_sign_in or is_plug_in


def _renewal(account: Account) -> str:
    """Return what a person does about a grant that has ended."""
    if account.needs_sign_in or account.oauth.can_sign_in:
        return _sign_in(account)
    where = account.refresher_info.kept_in
    kept = f", which are kept in {where}" if where else ""
    return f"renew the credentials of {account.refresher_info.label}{kept}"


def _sign_in(account: Account, words: str = "sign in again") -> str:
    return f"{words}: xoauth2-proxy login {shlex.quote(account.email)}"


def _assess(
    account: Account, grant: StoredGrant, now: EpochSeconds, warn_days: int
) -> tuple[State, float | None, tuple[str, str]]:
    """Return state, days left, and the reason with its remedy."""
    failure = grant.failure
    if failure is not None and failure.kind != "unavailable":
        if failure.kind == "revoked" and _has_grant(account):
            return State.SIGN_IN_NEEDED, 0.0, _advice(account, failure, _renewal(account))
        doctor = f"xoauth2-proxy doctor {shlex.quote(account.email)}"
        usual = f"correct the account's settings; {doctor} names the wrong one"
        return State.MISCONFIGURED, 0.0, _advice(account, failure, usual)
    # If a refresh worked after an end, that end was wrong.
    ends = [end for end in _expiries(account, grant, now) if end.at > grant.refreshed_at]
    first = min(ends, key=lambda end: end.at, default=None)
    days_left = None if first is None else max(0.0, (first.at - now) / _DAY_SECONDS)
    if first is not None and days_left is not None and days_left <= warn_days:
        state = State.ATTENTION if first.at > now else first.state
        return state, days_left, (first.reason, first.remedy)
    if failure is not None:
        usual = "wait; the proxy tries again"
        return State.TROUBLE, days_left, _advice(account, failure, usual)
    return (State.OK if grant.refreshed_at else State.UNUSED), days_left, ("", "")


def _advice(account: Account, failure: Failure, usual: str) -> tuple[str, str]:
    advice = explain(_words(failure), account.refresher)
    if advice is None:
        return _words(failure), usual
    return advice.cause, advice.remedy_for(account.email)


def _words(failure: Failure) -> str:
    """Return the provider's words, with the OAuth error."""
    if not failure.oauth_error or failure.oauth_error in failure.text:
        return failure.text
    return f"{failure.oauth_error}: {failure.text}"


def _expiries(account: Account, grant: StoredGrant, now: EpochSeconds) -> Iterator[_Expiry]:
    client = account.oauth
    if client.grant_type is GrantType.REFRESH_TOKEN and grant.refresh_token:
        yield from _refresh_token_expiries(account, grant, now)
    day = client.secret_expires_on
    if day is None:
        return
    name, remedy = _CREDENTIALS[client.certificate is not None]
    # It still works on its last day.
    at = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY_SECONDS
    yield _Expiry(at, State.MISCONFIGURED, f"the {name} expires on {day}", remedy)


def _refresh_token_expiries(
    account: Account, grant: StoredGrant, now: EpochSeconds
) -> Iterator[_Expiry]:
    client, ended, remedy = account.oauth, State.SIGN_IN_NEEDED, _sign_in(account)
    if grant.refresh_token_expires_at:
        at: float = grant.refresh_token_expires_at
        yield _Expiry(at, ended, f"the sign-in expires on {_day(at)}", remedy)
    if client.refresh_token_days and grant.signed_in_at:
        at = grant.signed_in_at + client.refresh_token_days * _DAY_SECONDS
        reason = f"a sign-in lasts {client.refresh_token_days} days here; this one expires"
        yield _Expiry(at, ended, f"{reason} on {_day(at)}", remedy)
    used_at = max(grant.refreshed_at, grant.signed_in_at)
    if client.idle_days and used_at and now - used_at > _KEPT_ALIVE_SECONDS:
        at = used_at + client.idle_days * _DAY_SECONDS
        reason = f"no token was fetched since {_day(used_at)}, and an unused sign-in expires"
        yield _Expiry(
            at,
            ended,
            f"{reason} on {_day(at)}",
            "make sure that the proxy runs and reaches the provider",
        )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _next_refresh(account: Account, grant: StoredGrant, now: EpochSeconds) -> EpochSeconds:
    """Return when the next token is due: before this one expires, or daily if it is not in use."""
    if grant.failure is not None and grant.failure.kind != "unavailable":
        return _NEVER
    lifetime_seconds = grant.access_token_expires_at - grant.refreshed_at
    window_seconds = min(account.oauth.refresh_window_seconds, max(0.0, lifetime_seconds / 4))
    due = grant.access_token_expires_at - window_seconds if grant.access_token else 0.0
    if due < now and account.oauth.grant_type is GrantType.REFRESH_TOKEN and grant.refreshed_at:
        due = grant.refreshed_at + _DAY_SECONDS
    return EpochSeconds(due) if due >= now else _NEVER
