"""The record of client addresses, the sentences about them, and their log lines."""

from __future__ import annotations

import json
import logging
from string import Formatter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.turned_away import turned_away
from xoauth2_proxy import replies
from xoauth2_proxy.clients.causes import CAUSES, Fix, explain
from xoauth2_proxy.clients.forwarding import CLIENT, MAX_LINE, Forwarding, receive
from xoauth2_proxy.clients.interface import ConnectedClient, Refused
from xoauth2_proxy.clients.log_limit import LINES_OF_ALL, LINES_OF_ONE, LogLimit, network_of
from xoauth2_proxy.clients.masking import KnownLogins
from xoauth2_proxy.clients.record import ClientRecord, ClientSeen, Outcome
from xoauth2_proxy.clients.watch import ClientWatch
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.smtp.protocol import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

DELAYED = Reply(451, "4.3.0", ("Later",))


def client(
    address: str = "192.0.2.1", reason: Refused | None = None, **facts: str
) -> ConnectedClient:
    """Return a client that would be turned away for `reason`."""
    made = ConnectedClient(address, "office", "abcd")
    if reason is not None:
        made.refuse(reason, facts.pop("detail", ""))
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def ticking() -> Callable[[], float]:
    times = iter(range(1, 1_000_000))
    return lambda: float(next(times))


# The record.


def test_record_tells_what_a_client_did_last() -> None:
    record = ClientRecord(clock=ticking())
    record.turned_away(client(reason=Refused.AUTH_REQUIRED, greeting="KM-C258"))
    record.finished(client(login="scan", credential="copier"), "scan@example.com", 2000, replies.OK)
    record.finished(client(), "scan@example.com", 10, DELAYED)
    (seen,) = record.newest_first()
    assert (seen.first_seen, seen.last_seen, seen.last_sent) == (1.0, 3.0, 2.0)
    assert (seen.messages, seen.refusals) == (1, 2)
    assert (seen.outcome, seen.reply) == (Outcome.DELAYED, "451 4.3.0 Later")


def test_client_that_only_left_is_still_shown_with_what_it_was_refused_for() -> None:
    record, workers = ClientRecord(clock=ticking()), ClientRecord()
    record.turned_away(client(reason=Refused.TOO_MANY_FOR_ADDRESS))
    record.turned_away(client(reason=Refused.LEFT))
    (seen,) = record.newest_first()
    assert (seen.reason, seen.last_seen, seen.refusals) == (Refused.TOO_MANY_FOR_ADDRESS, 2.0, 1)
    workers.turned_away(client(reason=Refused.LEFT))
    record.merge(workers.take())
    (seen,) = record.newest_first()
    assert (seen.reason, seen.refusals) == (Refused.TOO_MANY_FOR_ADDRESS, 1)


def test_message_that_was_sent_ends_what_a_client_was_refused_for() -> None:
    record, workers = ClientRecord(clock=ticking()), ClientRecord(clock=ticking())
    record.turned_away(client(reason=Refused.TOO_MANY_FOR_ADDRESS))
    workers.finished(client(), "a@example.com", 1, replies.OK)
    workers.turned_away(client(reason=Refused.LEFT))
    record.merge(workers.take())
    (seen,) = record.newest_first()
    assert (seen.reason, seen.messages, seen.refusals) == (Refused.LEFT, 1, 1)


def test_newest_client_comes_first() -> None:
    record = ClientRecord(clock=ticking())
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1"):
        record.turned_away(client(address, Refused.BAD_COMMANDS))
    assert [one.address for one in record.newest_first()] == ["192.0.2.1", "192.0.2.2"]


def test_strangers_from_many_addresses_do_not_displace_a_device() -> None:
    record = ClientRecord(max_clients=20, clock=ticking())
    record.finished(client("192.0.2.1"), "scan@example.com", 10, replies.OK)
    for number in range(1000):
        record.turned_away(client(f"2001:db8::{number:x}", Refused.PASSWORD_WRONG))
    kept = [one.address for one in record.newest_first()]
    assert len(kept) == 11
    assert "192.0.2.1" in kept


def test_texts_are_short_and_on_one_line() -> None:
    record = ClientRecord()
    record.turned_away(client(reason=Refused.BAD_COMMANDS, greeting="x\r\ny\x1b[31m" + "z" * 500))
    (seen,) = record.newest_first()
    assert len(seen.greeting) == 128
    assert seen.greeting.isprintable()


_TEXTS = st.text(max_size=400)


@given(_TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS)
def test_what_a_worker_saw_arrives_at_its_parent(
    greeting: str, login: str, sender: str, detail: str, reply: str
) -> None:
    lines: list[str] = []
    forwarding, record = Forwarding(lines.append), ClientRecord()
    seen = client(reason=Refused.LOGIN_UNKNOWN, greeting=greeting, login=login, detail=detail)
    seen.sender, seen.reply = sender, Reply(535, "5.7.8", (reply,))
    seen.mechanism = seen.account = seen.credential = greeting
    forwarding.record.turned_away(seen)
    expected = forwarding.record.newest_first()
    forwarding.send()
    (line,) = lines
    assert len(line) <= MAX_LINE
    assert forwarding.record.newest_first() == []
    receive(record, " ".join(line.split()).removeprefix(CLIENT))
    assert record.newest_first() == expected


def test_two_workers_add_up_and_the_newer_one_is_shown() -> None:
    clock, record = ticking(), ClientRecord()
    one, other = ClientRecord(clock=clock), ClientRecord(clock=clock)
    one.finished(client(), "a@example.com", 1, replies.OK)
    other.turned_away(client(reason=Refused.PASSWORD_WRONG))
    record.merge(one.take())
    record.merge(other.take())
    (seen,) = record.newest_first()
    assert (seen.messages, seen.refusals, seen.outcome) == (1, 1, Outcome.TURNED_AWAY)
    assert (seen.first_seen, seen.last_sent) == (1.0, 1.0)


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '{"address": 1}'])
def test_broken_line_of_a_worker_is_ignored(text: str) -> None:
    record = ClientRecord()
    receive(record, text)
    assert record.newest_first() == []


# The sentences.


@pytest.mark.parametrize("reason", Refused)
def test_every_reason_has_sentences_that_name_only_known_facts(reason: Refused) -> None:
    row = CAUSES[reason]
    facts = ClientSeen.__slots__
    for text in (row.cause, row.more, row.remedy):
        assert all(name in facts for _, name, _, _ in Formatter().parse(text) if name)
    assert explain(reason, ClientSeen("192.0.2.1")).cause
    assert explain(reason, client(detail="what it said")).cause


@pytest.mark.parametrize(
    ("seen", "cause", "fix"),
    [
        (client(reason=Refused.AUTH_REQUIRED), "sends no AUTH", Fix.ADD_ADDRESS),
        (
            client(reason=Refused.LOGIN_UNKNOWN, login="copier3", detail="copier-3"),
            "its login copier3 is unknown; did you mean 'copier-3'?",
            Fix.ADD_KEY,
        ),
        (
            client(reason=Refused.SENDER_NOT_ALLOWED, detail="old@example.com"),
            "sends as an address that its credential may not use: old@example.com",
            Fix.NONE,
        ),
        (
            client(reason=Refused.TLS_TOO_OLD),
            "speaks only TLS versions older than the listener office allows",
            Fix.NONE,
        ),
        (
            client(reason=Refused.MECHANISM_UNKNOWN, mechanism="NTLM"),
            "wants to log in with NTLM, which the listener office does not offer",
            Fix.NONE,
        ),
    ],
)
def test_sentence_says_what_would_let_the_client_in(
    seen: ConnectedClient, cause: str, fix: Fix
) -> None:
    assert seen.reason is not None
    said = explain(seen.reason, seen)
    assert (said.cause, said.fix) == (cause, fix)
    assert said.remedy


def test_braces_that_a_client_sends_are_no_placeholders() -> None:
    seen = client(reason=Refused.MECHANISM_UNKNOWN, mechanism="{LOGIN}{0.__class__}")
    assert "{LOGIN}{0.__class__}" in explain(Refused.MECHANISM_UNKNOWN, seen).cause


# What was typed as the login.

KNOWN = KnownLogins(["copier-3", "copier-14", "scanner@example.com", "x@example.net"])


@pytest.mark.parametrize(
    ("typed", "shown", "nearest"),
    [
        ("copier3", "copier3", "copier-3"),
        ("Copier 3", "Copier 3", "copier-3"),
        ("scanner", "scanner", "scanner@example.com"),
        ("scaner@example.com", "***@example.com", "scanner@example.com"),
        ("old@example.com", "***@example.com", ""),
        ("copier-15", "******** (9 characters)", "copier-14"),
        ("hunter2", "******* (7 characters)", ""),
        ("P@ssw0rd", "******** (8 characters)", ""),
        ("co", "** (2 characters)", ""),
        ("OFFICE\\copier-3", "******** (15 characters)", "copier-3"),
        ("copier-3@example.com", "***@example.com", "copier-3"),
    ],
)
def test_unknown_login_is_masked_unless_it_says_nothing_new(
    typed: str, shown: str, nearest: str
) -> None:
    assert (KNOWN.shown(typed), KNOWN.nearest(typed)) == (shown, nearest)


@given(st.text(max_size=80))
def test_mask_hides_every_text_that_is_no_login_but_for_punctuation(typed: str) -> None:
    shown = KNOWN.shown(typed)
    letters = "".join(filter(str.isalnum, typed.lower()))
    logins = {"copier3", "copier14", "scanner", "scannerexamplecom", "x", "xexamplenet"}
    assert shown != typed or letters in logins or not typed.strip("*")


# The log.


async def test_client_turned_away_has_one_line_with_cause_and_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    watch = ClientWatch(ClientRecord(), metrics.clients_turned_away)
    watch.turned_away(client(reason=Refused.LOGIN_UNKNOWN, greeting="KM-C258", login="copier3"))
    (line,) = turned_away(caplog)
    assert line["client"] == "192.0.2.1"
    assert line["listener"] == "office"
    assert line["reason"] == "login_unknown"
    assert line["greeting"] == "KM-C258"
    assert line["cause"] == "its login copier3 is unknown"
    count = metrics.registry.get_sample_value(
        "xoauth2_proxy_clients_turned_away_total",
        {"reason": "login_unknown", "listener": "office"},
    )
    assert count == 1.0
    watch.close()


async def test_guessing_writes_few_lines_and_the_number_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    watch = ClientWatch(ClientRecord(), Metrics().clients_turned_away)
    for _ in range(10_000):
        watch.turned_away(client(reason=Refused.PASSWORD_WRONG))
    assert len(turned_away(caplog)) == LINES_OF_ONE
    watch.close()
    (last,) = (vars(one)["fields"] for one in caplog.records if "more clients" in one.message)
    assert last == {"client": "192.0.2.1", "left_out": 10_000 - LINES_OF_ONE}


async def test_test_of_the_connection_is_recorded_without_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = ClientRecord()
    ClientWatch(record, Metrics().clients_turned_away).turned_away(client(reason=Refused.LEFT))
    assert caplog.records == []
    assert [one.reason for one in record.newest_first()] == ["left"]


def test_limit_holds_for_the_network_of_an_ipv6_subscriber() -> None:
    limit = LogLimit()
    allowed = sum(limit.allows(f"2001:db8:1:2::{number:x}") for number in range(100))
    assert allowed == LINES_OF_ONE
    assert list(limit.end_period()) == [("2001:db8:1:2::/64", 100 - LINES_OF_ONE)]


def test_limit_holds_for_all_addresses_together() -> None:
    limit = LogLimit()
    count = 3 * LINES_OF_ALL
    allowed = sum(limit.allows(f"10.1.{number // 256}.{number % 256}") for number in range(count))
    assert allowed == LINES_OF_ALL
    assert sum(left_out for _, left_out in limit.end_period()) == count - LINES_OF_ALL
    assert limit.allows("10.1.0.0")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a:b", "a:b"),
    ],
)
def test_one_subscriber_is_an_ipv4_address_or_a_64(address: str, network: str) -> None:
    assert network_of(address) == network


def test_record_as_json_holds_no_more_than_its_fields() -> None:
    seen = ClientSeen("192.0.2.1", greeting="x")
    assert ClientSeen.from_json(json.loads(json.dumps(seen.to_json()))) == seen
