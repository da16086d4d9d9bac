"""Mailboxes as a page shows them."""

from __future__ import annotations

import pytest

from tests.support.accounts import mailbox
from xoauth2_proxy.admin.health import ListenerState
from xoauth2_proxy.admin.views import (
    PAGE_SIZE,
    STATE_LABELS,
    DateText,
    date_text,
    listener_settings,
    mailbox_table,
    row,
)
from xoauth2_proxy.mailboxes.interface import Mailbox
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.mailbox_status import MailboxStatus, State

NOW = 1_790_000_000.0


def shown(email: str, state: State = State.OK, **more: object) -> Mailbox:
    status = MailboxStatus(mailbox=email, provider="gmail", state=state, **more)  # type: ignore[arg-type]
    return Mailbox(mailbox(email), status, is_added=False)


def test_every_state_has_a_word_and_a_symbol_of_its_own_kind() -> None:
    assert set(STATE_LABELS) == set(State)
    assert all(look.word and look.symbol for look in STATE_LABELS.values())
    assert len({look.word for look in STATE_LABELS.values()}) == len(STATE_LABELS)


def test_who_needs_a_person_comes_first() -> None:
    mailboxes = [
        shown("a@example.com"),
        shown("b@example.com", State.SIGN_IN_NEEDED),
        shown("c@example.com", State.ATTENTION),
    ]
    found = mailbox_table(mailboxes, "", "", 1, NOW)
    assert [one["address"][0] for one in found["rows"]] == ["b", "c", "a"]
    assert [(state, count) for state, _, count in found["counts"]] == [
        (State.SIGN_IN_NEEDED, 1),
        (State.ATTENTION, 1),
        (State.OK, 1),
    ]


def test_search_finds_every_word_in_address_or_provider() -> None:
    mailboxes = [shown("Sales@north.example"), shown("sales@south.example")]
    assert mailbox_table(mailboxes, "SALES", "", 1, NOW)["found"] == 2
    assert mailbox_table(mailboxes, "north sales", "", 1, NOW)["found"] == 1
    assert mailbox_table(mailboxes, "mock south", "", 1, NOW)["found"] == 1
    assert mailbox_table(mailboxes, "west", "", 1, NOW)["found"] == 0


def test_a_state_narrows_the_list_but_not_the_counts() -> None:
    mailboxes = [shown("a@example.com"), shown("b@example.com", State.TROUBLE)]
    found = mailbox_table(mailboxes, "", State.TROUBLE, 1, NOW)
    assert (found["found"], found["total"], len(found["counts"])) == (1, 2, 2)


def test_thousands_come_in_pages_and_any_number_is_a_page() -> None:
    mailboxes = [shown(f"m{number:04}@example.com") for number in range(2000)]
    found = mailbox_table(mailboxes, "", "", 40, NOW)
    assert (found["pages"], len(found["rows"])) == (2000 // PAGE_SIZE, PAGE_SIZE)
    assert found["rows"][-1]["address"] == "m1999@example.com"
    assert mailbox_table(mailboxes, "", "", 10**6, NOW)["page"] == found["pages"]
    assert mailbox_table(mailboxes, "", "", 0, NOW)["page"] == 1
    assert mailbox_table([], "", "", 5, NOW)["page"] == 1


@pytest.mark.parametrize(
    ("offset", "words"),
    [
        (0, "just now"),
        (-59, "just now"),
        (30, "now"),
        (-60, "1 minute ago"),
        (-3599, "59 minutes ago"),
        (3600, "in 1 hour"),
        (-2 * 86400, "2 days ago"),
        (40 * 86400, "2026-10-31"),
    ],
)
def test_moments_are_said_as_a_person_says_them(offset: float, words: str) -> None:
    assert date_text(NOW + offset, NOW).words == words


def test_never_is_no_moment() -> None:
    assert date_text(0.0, NOW) == DateText()
    assert date_text(NOW, NOW).exact == "2026-09-21T14:13:20Z"


@pytest.mark.parametrize(
    ("days", "words"),
    [(None, ""), (0.0, "0"), (0.5, "less than 1"), (1.9, "1"), (89.0, "89")],
)
def test_days_left_are_never_rounded_up(days: float | None, words: str) -> None:
    assert row(shown("a@example.com", days_left=days), NOW)["days_left"] == words


def test_the_providers_words_are_not_said_twice() -> None:
    same = shown("a@example.com", State.TROUBLE, reason="no answer", last_error="no answer")
    more = shown("a@example.com", State.TROUBLE, reason="it is off", last_error="AADSTS1")
    assert row(same, NOW)["last_error"] == ""
    assert row(more, NOW)["last_error"] == "AADSTS1"


def test_what_cannot_be_done_is_not_offered() -> None:
    one = row(shown("a@example.com", State.MOCK, last_success=EpochSeconds(NOW)), NOW)
    assert (one["can_sign_in"], one["can_revoke"], one["can_remove"]) == (False, False, False)
    assert one["can_refresh"]
    assert not row(shown("a@example.com", State.OWN_TOKEN), NOW)["can_refresh"]
    assert not row(shown("a@example.com", State.SIGN_IN_NEEDED), NOW)["can_refresh"]


@pytest.mark.parametrize(
    ("address", "tls", "expected"),
    [
        ("127.0.0.1:2525", "none", ("127.0.0.1", "2525", "none")),
        ("[::1]:587", "starttls", ("::1", "587", "STARTTLS")),
        ("[::]:465", "implicit", ("the address of this machine", "465", "SSL/TLS from the start")),
    ],
)
def test_listener_is_shown_as_a_mail_program_asks_for_it(
    address: str, tls: str, expected: tuple[str, str, str]
) -> None:
    told = listener_settings(ListenerState("default", (address,), tls, lambda: None))
    assert (told["server"], told["port"], told["encryption"]) == expected
