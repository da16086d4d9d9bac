"""What is known of one mailbox's access token, and what follows from it: no I/O, no clock.

Moments (`now`) are `Monotonic` and given by the caller. `chance`, from 0 to 1, spreads what would
otherwise happen everywhere at once: each mailbox draws its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import AccessToken

# A grant is used at least so often, so that it does not die of idleness (90 days at Microsoft, six
# months at Google), and its death is known before mail needs it.
KEEP_ALIVE_SECONDS = 86_400.0
REVOKED_SECONDS = 300.0  # how long a dead grant is not tried again; a new sign-in ends it at once
# One renewal a mailbox in this time for tokens refused upstream: a provider may refuse them all.
FORCED_SECONDS = 60.0

_IN_USE_SECONDS = 86_400.0  # a mailbox used within a day has its next token ready
_REFUSED_SECONDS = 60.0  # how long an endpoint that named the set-up wrong is not asked again
_LOOK_SECONDS = 1.0  # how often the store is looked at for a grant that somebody has mended
_MIN_BACK_OFF_SECONDS = 1.0  # doubled with each failure in a row
_MAX_BACK_OFF_SECONDS = 300.0
_MAX_STORE_BACK_OFF_SECONDS = 10.0  # the store is near, and cheap to ask
_MAX_RETRY_AFTER_SECONDS = 3600.0  # an endpoint that names a longer time is asked again earlier
_IDLE_RETRY_SECONDS = 3600.0  # nobody waits for a mailbox that is only kept alive
_EARLY = 0.2  # a renewal begins up to a fifth of its window earlier
_LATE = 0.1  # a retry that nobody asks for comes up to a tenth later
_MIN_WAKE_SECONDS = 1.0  # whatever an endpoint says of its tokens, it is not asked in a circle
_REFUSAL_KEPT_SECONDS = 3600.0  # a renewal, which knows nothing of it, comes about as often
_NEVER = float("-inf")
_FAMILIES = (GrantRevoked, TokenEndpointRefused, TokenEndpointUnavailable, TokenStoreUnavailable)


@dataclass(slots=True, kw_only=True)
class Cached:
    """A mailbox's token, when it was used and refused, and the failure to get the next."""

    token: AccessToken | None = None
    refused: str = field(default="", repr=False)  # upstream, and nothing has taken its place
    failure: TokenError | None = None  # of the last attempt
    failures: int = 0  # in a row
    retry_at: float = _NEVER
    _used_at: float = _NEVER
    _forced_at: float = _NEVER  # when a token was last given up because it was refused
    _looked_at: float = _NEVER  # into the store, for a mended grant
    _login_refusal: str = ""  # by the mail server, at the last login; "": it let the mailbox in
    _refusal_kept_at: float = _NEVER

    @property
    def unwanted(self) -> str:
        """The access token that is to be replaced: it is due, or was refused."""
        return self.refused if self.token is None else self.token.value

    def is_in_use(self, now: float) -> bool:
        """Whether the mailbox is to have its next token ready."""
        return now - self._used_at < _IN_USE_SECONDS

    def note_use(self, now: float) -> bool:
        """Note that a token is asked for; return whether that was to be expected."""
        was_in_use, self._used_at = self.is_in_use(now), now
        return was_in_use

    def note_token(self, token: AccessToken) -> None:
        """Take a token in place of what was there."""
        self.token, self.refused = token, ""
        self.failure, self.failures, self.retry_at = None, 0, _NEVER

    def note_failure(self, error: TokenError, now: float, chance: float) -> float:
        """Note why there is no new token; return in how many seconds to try again."""
        self.failures += 1
        retry_seconds = back_off_seconds(error, self.failures, chance)
        self.failure, self.retry_at, self._looked_at = anew(error), now + retry_seconds, now
        return retry_seconds

    def give_up(self, token: AccessToken, now: float) -> bool:
        """Give up a token that was refused upstream; return whether another is worth a try."""
        if self.token is not token:
            return True  # it has been given up already, however many connections report it
        if now < token.stale_at:  # else it was about to be replaced anyway
            if now - self._forced_at < FORCED_SECONDS:
                return False
            self._forced_at = now
        self.token, self.refused = None, token.value
        return True

    def note_login(self, refusal: str, now: float) -> bool:
        """Note whether the mail server refused the mailbox; return whether that is worth keeping.

        It is when something has changed, and for a refusal that goes on once an hour.
        """
        is_news = refusal != self._login_refusal
        if not is_news and (not refusal or now - self._refusal_kept_at < _REFUSAL_KEPT_SECONDS):
            return False
        self._login_refusal, self._refusal_kept_at = refusal, now
        return True

    def may_look(self, now: float) -> bool:
        """Whether to look for a mended grant now; it is noted as done."""
        if isinstance(self.failure, TokenStoreUnavailable) or now < self._looked_at + _LOOK_SECONDS:
            return False
        self._looked_at = now
        return True

    def wake_seconds(self, now: float, chance: float, *, is_kept_alive: bool) -> float | None:
        """Return in how long to renew although nobody asks; None: when somebody does.

        `is_kept_alive` says that the grant would die of idleness.
        """
        delay: float | None = None
        is_in_use = self.is_in_use(now)
        if self.failure is not None and self.failure.is_transient:
            # What the store did not take may exist nowhere else, so it is brought there soon.
            if is_in_use or isinstance(self.failure, TokenStoreUnavailable):
                delay = (self.retry_at - now) * (1.0 + _LATE * chance)
            elif is_kept_alive:
                delay = max(self.retry_at - now, _IDLE_RETRY_SECONDS * (1.0 - _EARLY * chance))
        elif self.failure is None and self.token is not None and is_in_use:
            window_seconds = self.token.expires_at - self.token.refresh_at
            delay = self.token.refresh_at - _EARLY * chance * window_seconds - now
        elif is_kept_alive:
            delay = KEEP_ALIVE_SECONDS * (1.0 - _EARLY * chance)
        return None if delay is None else max(delay, _MIN_WAKE_SECONDS)


def back_off_seconds(error: TokenError, failures: int, chance: float) -> float:
    """Return how long not to try again after `failures` in a row, the last of which is `error`."""
    if isinstance(error, GrantRevoked):
        return REVOKED_SECONDS
    if isinstance(error, TokenEndpointRefused):
        return _REFUSED_SECONDS
    is_store = isinstance(error, TokenStoreUnavailable)
    most = _MAX_STORE_BACK_OFF_SECONDS if is_store else _MAX_BACK_OFF_SECONDS
    own = min(_MIN_BACK_OFF_SECONDS * 2.0 ** min(failures - 1, 16), most) * (0.5 + chance / 2)
    # RFC 9110 §10.2.3
    asked = error.retry_after_seconds if isinstance(error, TokenEndpointUnavailable) else 0.0
    return max(own, min(asked, _MAX_RETRY_AFTER_SECONDS))


def anew(error: TokenError) -> TokenError:
    """Return the same error, never raised yet: one raised again and again gathers stack frames."""
    family = next((one for one in _FAMILIES if isinstance(error, one)), TokenError)
    return family(str(error), oauth_error=error.oauth_error)
