"""One mailbox's access token, its failures and refusals, and when to request the next one. Pure.

`now` is the caller's monotonic clock. `jitter` is a random number from 0 to 1 that spreads the
requests of many mailboxes over time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import (
    GrantRevoked,
    OwnTokenRequired,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import AccessToken

# A grant is used at least this often. Unused ones expire (after 90 days at Microsoft, six months at
# Google), and a revoked one is noticed before mail needs it.
KEEP_ALIVE_SECONDS = 86_400.0
# A revoked grant is tried again after this time, or after a new sign-in.
REVOKED_RETRY_SECONDS = 300.0
# Tokens that the mail server refuses cause one refresh in this time: it may refuse them all.
FORCED_REFRESH_SECONDS = 60.0

_IN_USE_SECONDS = 86_400.0  # the next token of a mailbox used within a day is fetched ahead
_REFUSED_SECONDS = 60.0  # how long an endpoint that refused the client is not asked again
_STORE_CHECK_SECONDS = 1.0  # how often the store is checked for a new grant after a failure
_MIN_BACK_OFF_SECONDS = 1.0  # doubled with each failure in a row
_MAX_BACK_OFF_SECONDS = 300.0
_MAX_STORE_BACK_OFF_SECONDS = 10.0  # asking the store is cheap
_MAX_RETRY_AFTER_SECONDS = 3600.0  # a longer time named by an endpoint is cut to this
_IDLE_RETRY_SECONDS = 3600.0  # for a mailbox that is not in use
_EARLY = 0.2  # a refresh begins up to a fifth of its window earlier
_LATE = 0.1  # a background retry begins up to a tenth later
_MIN_WAKE_SECONDS = 1.0  # an endpoint whose tokens expire at once is not asked in a loop
_REFUSAL_KEPT_SECONDS = 3600.0  # a refresh, which overwrites it, happens about as often
_NEVER = float("-inf")
_FAMILIES = (  # a subclass before its base
    GrantRevoked,
    OwnTokenRequired,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenStoreUnavailable,
)


@dataclass(slots=True, kw_only=True)
class TokenState:
    """A mailbox's token, its use, its refusals, and the last failure to refresh it."""

    token: AccessToken | None = None
    refused_token: str = field(default="", repr=False)  # by the mail server, and not replaced yet
    failure: TokenError | None = None  # of the last attempt
    failures: int = 0  # in a row
    retry_at: float = _NEVER
    _used_at: float = _NEVER
    _forced_at: float = _NEVER  # when a token was last discarded because it was refused
    _store_checked_at: float = _NEVER  # when the store was last checked for a new grant
    _login_refusal: str = ""  # by the mail server, at the last login; "": it succeeded
    _refusal_kept_at: float = _NEVER

    @property
    def replaced_token(self) -> str:
        """The access token to be replaced, which is due or was refused."""
        return self.refused_token if self.token is None else self.token.value

    def is_in_use(self, now: float) -> bool:
        """Whether the next token is fetched ahead."""
        return now - self._used_at < _IN_USE_SECONDS

    def note_use(self, now: float) -> bool:
        """Note a use; return whether the mailbox was in use before."""
        was_in_use, self._used_at = self.is_in_use(now), now
        return was_in_use

    def note_token(self, token: AccessToken) -> None:
        """Store a new token."""
        self.token, self.refused_token = token, ""
        self.failure, self.failures, self.retry_at = None, 0, _NEVER

    def note_failure(self, error: TokenError, now: float, jitter: float) -> float:
        """Store a failure; return the seconds until the next attempt."""
        self.failures += 1
        self.failure, self._store_checked_at = fresh_copy(error), now
        retry_seconds = back_off_seconds(error, self.failures, jitter)
        self.retry_at = now + retry_seconds
        return retry_seconds

    def discard(self, token: AccessToken, now: float) -> bool:
        """Discard a token that the mail server refused; return whether to try another."""
        if self.token is not token:
            return True  # discarded already: several connections may report it
        if now < token.stale_at:  # otherwise it was about to be replaced
            if now - self._forced_at < FORCED_REFRESH_SECONDS:
                return False
            self._forced_at = now
        self.token, self.refused_token = None, token.value
        return True

    def note_login(self, refusal: str, now: float) -> bool:
        """Note the result of a login at the mail server; return whether to save it.

        It is saved when it changes, and once an hour while refusals continue.
        """
        is_news = refusal != self._login_refusal
        if not is_news and (not refusal or now - self._refusal_kept_at < _REFUSAL_KEPT_SECONDS):
            return False
        self._login_refusal, self._refusal_kept_at = refusal, now
        return True

    def may_check_store(self, now: float) -> bool:
        """Whether to check the store for a new grant now; this notes the check as done."""
        is_due = now >= self._store_checked_at + _STORE_CHECK_SECONDS
        if isinstance(self.failure, TokenStoreUnavailable) or not is_due:
            return False
        self._store_checked_at = now
        return True

    def background_refresh_delay(
        self, now: float, jitter: float, *, is_kept_alive: bool
    ) -> float | None:
        """Return the seconds until the next background refresh; None: there is none.

        `is_kept_alive`: the grant would expire if it were not used.
        """
        delay: float | None = None
        is_in_use = self.is_in_use(now)
        if self.failure is not None and self.failure.is_transient:
            # A grant that was not saved may exist only here, so saving is tried again soon.
            if is_in_use or isinstance(self.failure, TokenStoreUnavailable):
                delay = (self.retry_at - now) * (1.0 + _LATE * jitter)
            elif is_kept_alive:
                delay = max(self.retry_at - now, _IDLE_RETRY_SECONDS * (1.0 - _EARLY * jitter))
        elif self.failure is None and self.token is not None and is_in_use:
            window_seconds = self.token.expires_at - self.token.refresh_at
            delay = self.token.refresh_at - _EARLY * jitter * window_seconds - now
        elif is_kept_alive:
            delay = KEEP_ALIVE_SECONDS * (1.0 - _EARLY * jitter)
        return None if delay is None else max(delay, _MIN_WAKE_SECONDS)


def back_off_seconds(error: TokenError, failures: int, jitter: float) -> float:
    """Return the pause after `failures` in a row, the last of which is `error`."""
    if isinstance(error, GrantRevoked):
        return REVOKED_RETRY_SECONDS
    if isinstance(error, TokenEndpointRefused):
        return _REFUSED_SECONDS
    is_store = isinstance(error, TokenStoreUnavailable)
    most = _MAX_STORE_BACK_OFF_SECONDS if is_store else _MAX_BACK_OFF_SECONDS
    own = min(_MIN_BACK_OFF_SECONDS * 2.0 ** min(failures - 1, 16), most) * (0.5 + jitter / 2)
    # RFC 9110 §10.2.3
    asked = error.retry_after_seconds if isinstance(error, TokenEndpointUnavailable) else 0.0
    return max(own, min(asked, _MAX_RETRY_AFTER_SECONDS))


def fresh_copy(error: TokenError) -> TokenError:
    """Return a copy of the error: one that is raised repeatedly collects stack frames."""
    family = next((one for one in _FAMILIES if isinstance(error, one)), TokenError)
    copy = family(str(error), oauth_error=error.oauth_error)
    if isinstance(error, TokenEndpointUnavailable) and isinstance(copy, TokenEndpointUnavailable):
        copy.retry_after_seconds = error.retry_after_seconds
    return copy
