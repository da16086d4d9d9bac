"""What follows from what is known of a token: arithmetic, without a clock."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.errors import (
    GrantRevoked,
    OwnTokenRequired,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
    TokenStoreUnavailable,
)
from xoauth2_proxy.oauth.grant import AccessToken, Monotonic
from xoauth2_proxy.oauth.token_state import TokenState, back_off_seconds, fresh_copy

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400.0
NOW = 1_000_000.0

chances = st.floats(0.0, 1.0)
failures = st.integers(1, 10_000)
seconds = st.floats(0.0, 100_000.0)
errors = st.sampled_from(
    [
        GrantRevoked("invalid_grant"),
        TokenEndpointRefused("invalid_client"),
        TokenEndpointUnavailable("503"),
        TokenEndpointUnavailable("429", 40.0),
        TokenStoreUnavailable("disk full"),
        TokenError("other"),
    ]
)


def token(lifetime_seconds: float = 3600.0, at: float = NOW) -> AccessToken:
    return AccessToken.with_lifetime("ya29.secret", Monotonic(at), lifetime_seconds)


def used(at: float = NOW) -> TokenState:
    cached = TokenState()
    cached.note_use(at)
    return cached


# A token's three moments.


@pytest.mark.parametrize(
    ("lifetime", "window", "margin", "last"),
    [
        (3600.0, 600.0, 600.0, 60.0),
        (3600.0, 100.0, 100.0, 50.0),
        (3600.0, 3600.0, 900.0, 60.0),
        (600.0, 600.0, 150.0, 60.0),
        (2.0, 600.0, 0.5, 0.25),
        (3600.0, 0.0, 0.0, 0.0),
    ],
)
def test_a_token_is_renewed_before_its_end(
    lifetime: float, window: float, margin: float, last: float
) -> None:
    one = AccessToken.with_lifetime("ya29.secret", Monotonic(1000.0), lifetime, window)
    assert one.expires_at == 1000.0 + lifetime
    assert one.refresh_at == one.expires_at - margin
    assert one.stale_at == one.expires_at - last
    assert "secret" not in repr(one)


# Back-off.


@given(retry_after=seconds, count=failures, jitter=chances)
def test_an_endpoint_is_left_in_peace_for_as_long_as_it_asked_but_an_hour_at_most(
    retry_after: float, count: int, jitter: float
) -> None:
    delay = back_off_seconds(TokenEndpointUnavailable("429", retry_after), count, jitter)
    assert delay >= min(retry_after, 3600.0)
    assert delay <= max(300.0, min(retry_after, 3600.0))


@given(count=failures, jitter=chances)
def test_back_off_grows_with_each_failure_up_to_five_minutes(count: int, jitter: float) -> None:
    delays = [
        back_off_seconds(TokenEndpointUnavailable("503"), number, jitter)
        for number in (count, count + 1)
    ]
    assert 0.5 <= delays[0] <= delays[1] <= 300.0
    assert delays[1] == pytest.approx(min(delays[0] * 2, 300.0 * (0.5 + jitter / 2)))


@given(count=failures)
def test_back_off_of_many_mailboxes_is_spread_over_half_of_it(count: int) -> None:
    earliest, latest = (
        back_off_seconds(TokenEndpointUnavailable("503"), count, jitter) for jitter in (0.0, 1.0)
    )
    assert latest == 2 * earliest


@given(count=failures, jitter=chances)
def test_a_store_is_asked_again_soon(count: int, jitter: float) -> None:
    assert 0.5 <= back_off_seconds(TokenStoreUnavailable("disk full"), count, jitter) <= 10.0


@given(count=failures, jitter=chances)
def test_what_a_person_must_mend_is_tried_at_a_fixed_pace(count: int, jitter: float) -> None:
    assert back_off_seconds(GrantRevoked("x"), count, jitter) == 300.0
    assert back_off_seconds(TokenEndpointRefused("x"), count, jitter) == 60.0


# When to renew although nobody asks.


@given(lifetime=st.floats(0.001, 100_000.0), jitter=chances)
def test_a_mailbox_in_use_gets_its_next_token_before_anyone_waits(
    lifetime: float, jitter: float
) -> None:
    cached, one = used(), token(lifetime)
    cached.note_token(one)
    delay = cached.background_refresh_delay(NOW, jitter, is_kept_alive=False)
    assert delay is not None
    window = one.expires_at - one.refresh_at
    assert delay >= 1.0, "an endpoint is asked in a circle"
    assert delay == 1.0 or NOW + delay <= one.refresh_at + 1e-6
    assert NOW + delay >= one.refresh_at - 0.2 * window - 1e-6


def test_tokens_that_came_together_are_not_renewed_together() -> None:
    cached = used()
    cached.note_token(token())
    delays = [
        cached.background_refresh_delay(NOW, jitter, is_kept_alive=True)
        for jitter in (0.0, 0.5, 1.0)
    ]
    assert delays == [3000.0, 2940.0, 2880.0]


@given(jitter=chances)
def test_a_mailbox_not_used_for_a_day_has_its_grant_kept_alive_once_a_day(jitter: float) -> None:
    cached = used(NOW - DAY - 1)
    cached.note_token(token())
    delay = cached.background_refresh_delay(NOW, jitter, is_kept_alive=True)
    assert delay is not None
    assert 0.8 * DAY <= delay <= DAY
    assert cached.background_refresh_delay(NOW, jitter, is_kept_alive=False) is None


def _any_state(cached: TokenState, error: TokenError | None, lifetime: float | None) -> TokenState:
    if lifetime is not None:
        cached.note_token(token(lifetime))
    if error is not None:
        cached.note_failure(error, NOW, 0.5)
    return cached


@given(
    idle=st.floats(0.0, 10 * DAY),
    error=st.none() | errors,
    lifetime=st.none() | st.floats(0.0, 100_000.0),
    later=seconds,
    jitter=chances,
    is_kept_alive=st.booleans(),
)
def test_nothing_wakes_in_a_hurry_and_no_grant_is_forgotten(
    idle: float,
    error: TokenError | None,
    lifetime: float | None,
    later: float,
    jitter: float,
    is_kept_alive: bool,
) -> None:
    cached = _any_state(used(NOW - idle), error, lifetime)
    delay = cached.background_refresh_delay(NOW + later, jitter, is_kept_alive=is_kept_alive)
    if is_kept_alive:
        assert delay is not None
    if delay is not None:
        assert delay >= 1.0
        # 100,000 s is the longest life of a token here.
        assert delay <= max(DAY, 100_000.0)
        if cached.failure is not None:
            assert NOW + later + delay >= cached.retry_at


@pytest.mark.parametrize(
    ("error", "idle", "at_least", "at_most"),
    [
        (TokenEndpointUnavailable("503"), 0.0, 1.0, 1.1),
        (TokenEndpointUnavailable("429", 100.0), 0.0, 100.0, 110.0),
        (TokenEndpointUnavailable("503"), 2 * DAY, 2880.0, 3600.0),
        (TokenStoreUnavailable("disk full"), 2 * DAY, 1.0, 1.1),
        (GrantRevoked("x"), 0.0, 0.8 * DAY, DAY),
        (TokenEndpointRefused("x"), 0.0, 0.8 * DAY, DAY),
    ],
)
@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_after_a_failure_the_next_attempt_comes_in_time(
    error: TokenError, idle: float, at_least: float, at_most: float, jitter: float
) -> None:
    cached = used(NOW - idle)
    cached.note_failure(error, NOW, 1.0)
    delay = cached.background_refresh_delay(NOW, jitter, is_kept_alive=True)
    assert delay is not None
    assert at_least <= delay <= at_most + 1e-6


# Refused tokens.


def test_a_refused_token_is_given_up_once() -> None:
    cached, first, second = used(), token(), token()
    cached.note_token(first)
    assert cached.discard(first, NOW)
    assert (cached.token, cached.replaced_token) == (None, "ya29.secret")
    assert cached.discard(first, NOW)
    cached.note_token(second)
    assert cached.discard(first, NOW), "an old report costs the new token"
    assert (cached.token, cached.refused_token) == (second, "")


@given(gaps=st.lists(st.floats(0.0, 200.0), min_size=1, max_size=50))
def test_a_provider_that_refuses_every_token_gets_one_new_one_a_minute(gaps: list[float]) -> None:
    cached, now, given_up = used(), NOW, []
    for gap in gaps:
        now += gap
        one = token(at=now)
        if cached.token is None:
            cached.note_token(one)
        held = cached.token
        assert held is not None
        if cached.discard(held, now):
            given_up.append(now)
        else:
            assert cached.token is held
    # A token that is about to end is replaced anyway.
    assert all(later - earlier >= 60.0 for earlier, later in pairwise(given_up))


def test_a_token_in_its_last_minute_may_be_refused_without_harm() -> None:
    cached, one = used(), token(at=NOW - 3550.0)
    cached.note_token(token())
    assert cached.discard(cached.token or one, NOW)
    cached.note_token(one)
    assert cached.discard(one, NOW), "a token that had ended counts as refused"


# Failures.


def test_the_store_is_looked_at_once_a_second() -> None:
    cached = used()
    cached.note_failure(GrantRevoked("x"), NOW, 0.0)
    looks = [cached.may_check_store(NOW + tenths / 10) for tenths in range(35)]
    assert [number for number, look in enumerate(looks) if look] == [10, 20, 30]


def test_a_store_in_trouble_is_not_looked_at() -> None:
    cached = used()
    cached.note_failure(TokenStoreUnavailable("x"), NOW, 0.0)
    assert not cached.may_check_store(NOW + 100.0)


@pytest.mark.parametrize(
    "make",
    [
        GrantRevoked,
        OwnTokenRequired,
        TokenEndpointRefused,
        TokenEndpointUnavailable,
        TokenStoreUnavailable,
        TokenError,
    ],
)
def test_an_error_told_again_says_the_same_and_holds_nobodys_frames(
    make: Callable[..., TokenError],
) -> None:
    class Special(make):  # type: ignore[misc, valid-type]
        """A plug-in's own."""

        def __init__(self, strange: int) -> None:
            super().__init__(f"number {strange}", oauth_error="word")

    with pytest.raises(TokenError) as caught:
        raise Special(7)
    again = fresh_copy(caught.value)
    assert type(again) is make
    assert (str(again), again.oauth_error) == ("number 7", "word")
    assert again.is_transient is make("x").is_transient
    assert (again.__traceback__, again.__context__, again.__cause__) == (None, None, None)
