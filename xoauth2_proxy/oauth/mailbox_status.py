"""How a mailbox stands: whether it can send, until when, and what somebody must do.

Pure: everything comes in as values, and nothing is asked of anyone.
"""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.accounts.oauth_client import GrantType
from xoauth2_proxy.diagnostics import explain
from xoauth2_proxy.oauth.grant import EpochSeconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.stores import Failure, StoredGrant

_DAY_SECONDS = 86_400.0
_NEVER = EpochSeconds(0.0)
_UNREAD = "the token store cannot be read"
# The relay uses every grant daily, so idleness is no danger while that works.
_KEPT_ALIVE_SECONDS = 2 * _DAY_SECONDS
# Refreshers whose mailboxes need a person's sign-in before anything works.
_SIGNED_IN = frozenset({"gmail", "outlook", "oidc"})
# What authenticates the client, and how it is replaced: by whether it is a certificate.
_CREDENTIALS = {
    False: (
        "client secret",
        'make a new client secret at the provider; put it into "client_secret" and its last day '
        'into "client_secret_expires"',
    ),
    True: (
        "client's certificate",
        'make a new certificate, upload it at the provider, then replace the file of "certificate"',
    ),
}


class State(StrEnum):
    """How a mailbox stands, in one word."""

    OK = "ok"
    UNUSED = "unused"  # configured, and no token was asked for yet
    ATTENTION = "attention"  # works, and needs a person soon
    SIGN_IN_NEEDED = "sign_in_needed"
    MISCONFIGURED = "misconfigured"
    TROUBLE = "trouble"  # the token endpoint or the store is not available; nobody's duty yet
    OWN_TOKEN = "own_token"  # noqa: S105 - its clients bring their own tokens
    MOCK = "mock"


NEEDS_A_PERSON = frozenset({State.ATTENTION, State.SIGN_IN_NEEDED, State.MISCONFIGURED})
IS_WELL = frozenset({State.OK, State.UNUSED, State.OWN_TOKEN, State.MOCK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one mailbox stands."""

    mailbox: str
    provider: str
    state: State
    last_success: EpochSeconds = _NEVER  # when the last access token was got
    next_refresh: EpochSeconds = _NEVER  # when the next one is due; never: none is planned
    days_left: float | None = None  # until a person is needed; None: no end is known
    reason: str = ""  # why it does not, or will not, work
    remedy: str = ""  # what somebody must do
    last_error: str = ""  # the provider's words at the last attempt; "": it succeeded

    @property
    def needs_a_person(self) -> bool:
        """Whether somebody has to do something, now or soon."""
        return self.state in NEEDS_A_PERSON

    @property
    def is_unread(self) -> bool:
        """Whether nothing is known, because the store could not be read."""
        return self.state is State.TROUBLE and self.reason.startswith(_UNREAD)

    def to_json(self) -> dict[str, object]:
        """Return the standing as JSON has it: dates as in RFC 3339, null for never."""
        shown = asdict(self) | {
            "last_success": rfc3339(self.last_success),
            "next_refresh": rfc3339(self.next_refresh),
        }
        if self.days_left is not None:
            shown["days_left"] = round(self.days_left, 2)
        return shown

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Standing:
        """Return the standing that `to_json` gave, whatever else stands beside it.

        Raises `ValueError`.
        """
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
            raise ValueError("not a standing") from error


@dataclass(frozen=True, slots=True)
class _End:
    """Something that will stop working at a known time."""

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


def standing(
    account: Account, grant: StoredGrant | None, now: EpochSeconds, warn_days: int
) -> Standing:
    """Return how the account stands, given what is stored of its grant (None: nothing).

    `grant` is the one that counts (`renewal.current_grant`).
    """
    if account.refresher == "mock":
        return _bare(account, State.MOCK)
    if account.oauth.is_empty:
        return _bare(account, State.OWN_TOKEN)
    if grant is None:
        return _unsigned(account) or _bare(account, State.UNUSED)
    state, days_left, reason, remedy = _judged(account, grant, now, warn_days)
    return Standing(
        mailbox=account.email,
        provider=account.provider,
        state=state,
        last_success=grant.refreshed_at,
        next_refresh=_next_refresh(account, grant, now),
        days_left=days_left,
        reason=reason,
        remedy=remedy,
        last_error=_words(grant.failure) if grant.failure else "",
    )


def unreadable(account: Account, why: str) -> Standing:
    """Return the standing of an account whose grant cannot be read."""
    return Standing(
        mailbox=account.email,
        provider=account.provider,
        state=State.TROUBLE,
        reason=f"{_UNREAD}: {why}",
        remedy='look at "store" in the configuration and at what it names',
        last_error=why,
    )


def _bare(account: Account, state: State, reason: str = "", remedy: str = "") -> Standing:
    return Standing(
        mailbox=account.email, provider=account.provider, state=state, reason=reason, remedy=remedy
    )


def _unsigned(account: Account) -> Standing | None:
    """Return the standing of a mailbox that nobody signed in yet; None if it needs no sign-in."""
    if not _needs_sign_in(account) or account.oauth.refresh_token:
        return None
    return _bare(
        account, State.SIGN_IN_NEEDED, "nobody has signed in yet", _sign_in(account, "sign in")
    )


def _needs_sign_in(account: Account) -> bool:
    return account.oauth.grant_type is GrantType.REFRESH_TOKEN and account.refresher in _SIGNED_IN


def _sign_in(account: Account, words: str = "sign in again") -> str:
    return f"{words}: xoauth2-proxy login {shlex.quote(account.email)}"


def _judged(
    account: Account, grant: StoredGrant, now: EpochSeconds, warn_days: int
) -> tuple[State, float | None, str, str]:
    """Return state, days left, reason and remedy."""
    if not grant.refresh_token and not grant.refreshed_at and (bare := _unsigned(account)):
        return bare.state, None, bare.reason, bare.remedy
    failure = grant.failure
    if failure is not None and failure.kind != "unavailable":
        return _failed(account, failure)
    # What has ended already, and yet worked afterwards, was dated wrongly.
    ends = [end for end in _ends(account, grant, now) if end.at > grant.refreshed_at]
    first = min(ends, key=lambda end: end.at, default=None)
    days_left = None if first is None else max(0.0, (first.at - now) / _DAY_SECONDS)
    if first is not None and days_left is not None and days_left <= warn_days:
        state = State.ATTENTION if first.at > now else first.state
        return state, days_left, first.reason, first.remedy
    if failure is not None:
        return State.TROUBLE, days_left, *_advice(account, failure, "wait; it is tried again")
    return (State.OK if grant.refreshed_at else State.UNUSED), days_left, "", ""


def _failed(account: Account, failure: Failure) -> tuple[State, float | None, str, str]:
    is_for_person = failure.kind == "revoked" and (
        _needs_sign_in(account) or account.oauth.can_sign_in
    )
    if is_for_person:
        return State.SIGN_IN_NEEDED, 0.0, *_advice(account, failure, _sign_in(account))
    doctor = f"xoauth2-proxy doctor {shlex.quote(account.email)}"
    usual = f"look at the account's settings; {doctor} names the one"
    return State.MISCONFIGURED, 0.0, *_advice(account, failure, usual)


def _advice(account: Account, failure: Failure, usual: str) -> tuple[str, str]:
    advice = explain(_words(failure), account.refresher)
    if advice is None:
        return _words(failure), usual
    return advice.cause, advice.remedy_for(account.email)


def _words(failure: Failure) -> str:
    """Return the provider's words, the OAuth error among them."""
    if not failure.oauth_error or failure.oauth_error in failure.text:
        return failure.text
    return f"{failure.oauth_error}: {failure.text}"


def _ends(account: Account, grant: StoredGrant, now: EpochSeconds) -> Iterator[_End]:
    client = account.oauth
    if client.grant_type is GrantType.REFRESH_TOKEN and grant.refresh_token:
        yield from _refresh_token_ends(account, grant, now)
    day = client.secret_expires_on
    if day is None:
        return
    name, remedy = _CREDENTIALS[client.certificate is not None]
    # It is the last day on which it works.
    at = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() + _DAY_SECONDS
    yield _End(at, State.MISCONFIGURED, f"the {name} ends on {day}", remedy)


def _refresh_token_ends(account: Account, grant: StoredGrant, now: EpochSeconds) -> Iterator[_End]:
    client, ended, remedy = account.oauth, State.SIGN_IN_NEEDED, _sign_in(account)
    if grant.refresh_token_expires_at:
        at: float = grant.refresh_token_expires_at
        yield _End(at, ended, f"the sign-in ends on {_day(at)}", remedy)
    if client.refresh_token_days and grant.signed_in_at:
        at = grant.signed_in_at + client.refresh_token_days * _DAY_SECONDS
        reason = f"a sign-in lasts {client.refresh_token_days} days here; this one ends"
        yield _End(at, ended, f"{reason} on {_day(at)}", remedy)
    used_at = max(grant.refreshed_at, grant.signed_in_at)
    if client.idle_days and used_at and now - used_at > _KEPT_ALIVE_SECONDS:
        at = used_at + client.idle_days * _DAY_SECONDS
        reason = f"no token was got since {_day(used_at)}, and an unused sign-in ends"
        yield _End(
            at, ended, f"{reason} on {_day(at)}", "see that the relay runs and reaches the provider"
        )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _next_refresh(account: Account, grant: StoredGrant, now: EpochSeconds) -> EpochSeconds:
    """Return when the next token is due: before this one ends, or daily for a grant at rest."""
    if grant.failure is not None and grant.failure.kind != "unavailable":
        return _NEVER
    lifetime_seconds = grant.access_token_expires_at - grant.refreshed_at
    window_seconds = min(account.oauth.refresh_window_seconds, max(0.0, lifetime_seconds / 4))
    due = grant.access_token_expires_at - window_seconds if grant.access_token else 0.0
    if due < now and account.oauth.grant_type is GrantType.REFRESH_TOKEN and grant.refreshed_at:
        due = grant.refreshed_at + _DAY_SECONDS
    return EpochSeconds(due) if due >= now else _NEVER
