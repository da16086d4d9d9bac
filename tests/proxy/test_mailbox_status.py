"""How a mailbox stands, from what is configured and what is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import (
    IS_WELL,
    NEEDS_A_PERSON,
    MailboxStatus,
    State,
    status_of,
)
from xoauth2_proxy.oauth.stores import Failure, StoredGrant

DAY = 86_400.0
NOW = EpochSeconds(1_800_000_000.0)  # 2027-01-15T08:00:00Z
CLIENT = OAuthClient(client_id="id", client_secret="s", refresh_token="rt", idle_days=90)
ACCOUNT = replace(mailbox("Alice@example.com"), provider="work", refresher="outlook", oauth=CLIENT)
HEALTHY = StoredGrant(
    refresh_token="rt",
    signed_in_at=EpochSeconds(NOW - 40 * DAY),
    access_token="at",
    access_token_expires_at=EpochSeconds(NOW + 3000),
    refreshed_at=EpochSeconds(NOW - 600),
)


def seen(grant: StoredGrant | None = HEALTHY, **client: object) -> MailboxStatus:
    account = replace(ACCOUNT, oauth=replace(CLIENT, **client))  # type: ignore[arg-type]
    return status_of(account, grant, NOW, 14)


def failed(kind: str, error: str, text: str, grant: StoredGrant = HEALTHY) -> StoredGrant:
    failure = Failure(kind=kind, oauth_error=error, text=text, at=NOW)  # type: ignore[arg-type]
    return replace(grant, failure=failure)


def test_a_mailbox_that_works_is_ok() -> None:
    found = seen()
    assert found == MailboxStatus(
        mailbox="Alice@example.com",
        provider="work",
        state=State.OK,
        last_success=HEALTHY.refreshed_at,
        next_refresh=EpochSeconds(NOW + 3000 - 600),
    )
    assert not found.needs_a_person


def test_a_short_lived_token_is_due_when_a_quarter_is_left() -> None:
    grant = replace(HEALTHY, refreshed_at=NOW, access_token_expires_at=EpochSeconds(NOW + 400))
    assert seen(grant).next_refresh == NOW + 300


def test_a_grant_at_rest_is_used_daily() -> None:
    grant = replace(
        HEALTHY,
        refreshed_at=EpochSeconds(NOW - 10 * 3600),
        access_token_expires_at=EpochSeconds(NOW - 9 * 3600),
    )
    assert seen(grant).next_refresh == NOW + 14 * 3600
    assert seen(grant).state is State.OK


def test_mailboxes_that_need_no_grant_have_states_of_their_own() -> None:
    assert status_of(mailbox(), None, NOW, 14).state is State.MOCK
    bare = replace(ACCOUNT, oauth=OAuthClient())
    assert status_of(bare, StoredGrant(), NOW, 14).state is State.OWN_TOKEN


def test_a_configured_grant_that_nobody_used_is_unused() -> None:
    fresh = StoredGrant(refresh_token="rt", signed_in_at=NOW)
    assert seen(fresh).state is State.UNUSED
    assert seen(None).state is State.UNUSED


@pytest.mark.parametrize("grant", [None, StoredGrant()])
def test_without_a_grant_somebody_must_sign_in(grant: StoredGrant | None) -> None:
    found = seen(grant, refresh_token="")
    assert found.state is State.SIGN_IN_NEEDED
    assert found.reason == "no one has signed in yet"
    assert found.remedy == "sign in: xoauth2-proxy login Alice@example.com"


@pytest.mark.parametrize(
    "client",
    [
        {"grant_type": GrantType.CLIENT_CREDENTIALS},
        {"grant_type": GrantType.SERVICE_ACCOUNT, "service_account": Path("key.json")},
    ],
)
def test_applications_of_their_own_need_no_sign_in(client: dict[str, object]) -> None:
    assert seen(StoredGrant(), refresh_token="", **client).state is State.UNUSED


def test_a_program_that_prints_tokens_needs_no_sign_in() -> None:
    account = replace(ACCOUNT, refresher="command", oauth=OAuthClient(command=("true",)))
    assert status_of(account, StoredGrant(), NOW, 14).state is State.UNUSED


# Failures.


def test_a_revoked_grant_needs_a_sign_in() -> None:
    found = seen(failed("revoked", "invalid_grant", "the provider said no"))
    assert found.state is State.SIGN_IN_NEEDED
    assert found.days_left == 0.0
    assert found.remedy == "sign in again: xoauth2-proxy login Alice@example.com"
    assert found.last_error == "invalid_grant: the provider said no"
    assert found.next_refresh == 0.0


@pytest.mark.parametrize(
    "grant",
    [
        StoredGrant(),
        failed("revoked", "", "no idea"),
        failed("refused", "", "no idea"),
        failed("revoked", "invalid_grant", "AADSTS50173: The provided grant has expired."),
    ],
)
def test_a_command_can_be_pasted_whatever_the_mailbox_is_called(grant: StoredGrant) -> None:
    odd = '"a b;$(id)"@example.com'
    account = replace(ACCOUNT, email=odd, oauth=replace(CLIENT, refresh_token=""))
    remedy = status_of(account, grant, NOW, 14).remedy
    assert "xoauth2-proxy" in remedy
    assert f"'{odd}'" in remedy


def test_the_provider_s_words_tell_the_reason() -> None:
    words = "invalid_grant: AADSTS50173: The provided grant has expired due to it being revoked."
    found = seen(failed("revoked", "invalid_grant", words))
    assert found.reason.startswith("The sign-in was revoked")
    assert found.last_error == words


def test_words_nobody_knows_are_told_as_they_are() -> None:
    found = seen(failed("revoked", "", "no idea"))
    assert found.reason == "no idea"
    assert found.remedy == "sign in again: xoauth2-proxy login Alice@example.com"


def test_an_application_s_grant_cannot_be_signed_in_again() -> None:
    found = seen(
        failed("revoked", "invalid_grant", "Invalid email or User ID", StoredGrant()),
        grant_type=GrantType.SERVICE_ACCOUNT,
        refresh_token="",
    )
    assert found.state is State.MISCONFIGURED


def test_a_refused_set_up_is_the_operator_s() -> None:
    found = seen(failed("refused", "invalid_client", "AADSTS7000222: The secret is expired."))
    assert found.state is State.MISCONFIGURED
    assert found.reason == "The client secret has expired."
    assert "New client secret" in found.remedy


def test_an_endpoint_out_of_reach_is_nobody_s_duty() -> None:
    found = seen(failed("unavailable", "", "login.example.com: timed out"))
    assert found.state is State.TROUBLE
    assert found.reason == "login.example.com: timed out"
    assert not found.needs_a_person
    assert found.state not in IS_WELL


# Ends that can be foreseen.


def test_the_end_that_the_endpoint_named_is_foreseen() -> None:
    grant = replace(HEALTHY, refresh_token_expires_at=EpochSeconds(NOW + 20 * DAY))
    assert (seen(grant).state, seen(grant).days_left) == (State.OK, 20.0)
    grant = replace(HEALTHY, refresh_token_expires_at=EpochSeconds(NOW + 13.5 * DAY))
    found = seen(grant)
    assert (found.state, found.days_left) == (State.ATTENTION, 13.5)
    assert found.reason == "the sign-in expires on 2027-01-28"
    assert found.remedy == "sign in again: xoauth2-proxy login Alice@example.com"
    ended = replace(HEALTHY, refresh_token_expires_at=EpochSeconds(NOW - 1))
    assert (seen(ended).state, seen(ended).days_left) == (State.SIGN_IN_NEEDED, 0.0)


def test_a_project_in_testing_ends_after_its_days() -> None:
    grant = replace(HEALTHY, signed_in_at=EpochSeconds(NOW - 2 * DAY))
    found = seen(grant, refresh_token_days=7)
    assert (found.state, found.days_left) == (State.ATTENTION, 5.0)
    assert found.reason == "a sign-in lasts 7 days here; this one expires on 2027-01-20"


def test_an_end_that_was_outlived_was_dated_wrongly() -> None:
    # Signed in 40 days ago, and yet it worked ten minutes ago.
    assert seen(refresh_token_days=7).state is State.OK
    assert seen(secret_expires_on=date(2026, 1, 1)).state is State.OK


def test_idleness_counts_from_the_last_success() -> None:
    old = replace(HEALTHY, signed_in_at=at(-200), refreshed_at=at(-80))
    silent = failed("unavailable", "", "timed out", old)
    found = seen(silent)
    assert found.state is State.ATTENTION
    assert found.days_left == pytest.approx(10.0)
    assert "2026-10-27" in found.reason
    assert seen(replace(silent, refreshed_at=at(-91))).state is State.SIGN_IN_NEEDED
    assert seen(replace(silent, refreshed_at=at(-20))).state is State.TROUBLE


def at(days: float) -> EpochSeconds:
    return EpochSeconds(NOW + days * DAY)


def test_a_grant_that_is_kept_alive_does_not_die_of_idleness() -> None:
    assert seen(replace(HEALTHY, refreshed_at=at(-1.5))).days_left is None


@pytest.mark.parametrize(
    ("last_day", "state", "days_left"),
    [
        (date(2027, 1, 20), State.ATTENTION, 5 + 16 / 24),
        (date(2027, 1, 15), State.ATTENTION, 16 / 24),  # its last day
        (date(2027, 3, 1), State.OK, 45 + 16 / 24),
    ],
)
def test_the_client_secret_s_end_is_foreseen(
    last_day: date, state: State, days_left: float
) -> None:
    found = seen(secret_expires_on=last_day)
    assert found.state is state
    assert found.days_left == pytest.approx(days_left)
    if state is State.ATTENTION:
        assert found.reason == f"the client secret expires on {last_day}"


def test_a_client_secret_that_ended_is_a_wrong_set_up() -> None:
    idle = replace(HEALTHY, refreshed_at=at(-10), access_token="")
    found = seen(idle, secret_expires_on=date(2027, 1, 10))
    assert found.state is State.MISCONFIGURED
    assert found.days_left == 0.0


def test_a_certificate_is_named_as_such() -> None:
    found = seen(secret_expires_on=date(2027, 1, 20), certificate=Path("c.pem"))
    assert found.reason == "the client's certificate expires on 2027-01-20"


def test_the_first_end_counts() -> None:
    grant = replace(HEALTHY, refresh_token_expires_at=at(10))
    found = seen(grant, secret_expires_on=date(2027, 1, 17))
    assert "client secret" in found.reason


# As JSON.


def test_json_has_dates_or_null() -> None:
    assert seen().to_json() == {
        "mailbox": "Alice@example.com",
        "provider": "work",
        "state": "ok",
        "last_success": "2027-01-15T07:50:00Z",
        "next_refresh": "2027-01-15T08:40:00Z",
        "days_left": None,
        "reason": "",
        "remedy": "",
        "last_error": "",
    }
    assert seen(None).to_json()["last_success"] is None


@given(
    refreshed=st.floats(-400, 0),
    signed_in=st.floats(-400, 0),
    expires=st.none() | st.floats(-400, 400),
    kind=st.none() | st.sampled_from(["revoked", "refused", "unavailable"]),
    days=st.integers(0, 400),
    warn_days=st.integers(0, 365),
)
def test_whoever_needs_a_person_is_told_what_to_do(
    refreshed: float,
    signed_in: float,
    expires: float | None,
    kind: str | None,
    days: int,
    warn_days: int,
) -> None:
    grant = replace(
        HEALTHY,
        refreshed_at=at(refreshed),
        signed_in_at=at(signed_in),
        refresh_token_expires_at=EpochSeconds(0.0) if expires is None else at(expires),
    )
    if kind is not None:
        grant = failed(kind, "", "x", grant)
    account = replace(ACCOUNT, oauth=replace(CLIENT, refresh_token_days=days))
    found = status_of(account, grant, NOW, warn_days)
    assert found.needs_a_person == (found.state in NEEDS_A_PERSON)
    assert bool(found.reason and found.remedy) == (found.state not in IS_WELL)
    assert found.days_left is None or found.days_left >= 0.0
    if found.days_left is not None and found.days_left <= warn_days:
        assert found.needs_a_person
