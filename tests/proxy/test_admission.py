"""Who may connect when places are few: the rules, without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xoauth2_proxy.submission.address_table import (
    AddressTable,
    client_block,
    new_key,
    table_bytes,
)
from xoauth2_proxy.submission.admission import (
    GRACE_SECONDS,
    LATELY_SECONDS,
    Admission,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 100_000.0


def admission(
    places: int = 4,
    per_address: int = 4,
    *,
    addresses: AddressTable | None = None,
    count_all: Callable[[int], int] = int,
    max_here: int | None = None,
) -> Admission[str]:
    table = addresses or AddressTable()
    return Admission(places, per_address, table, count_all, max_here)


def block(number: int) -> bytes:
    return client_block(f"192.0.2.{number}")


def full_of_strangers(clients: Admission[str], places: int = 4, now: float = NOW) -> None:
    for number in range(places):
        decision = clients.arrive(f"stranger {number}", block(number), now + number)
        assert decision.verdict is Verdict.ADMITTED


# What one client is.


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("::1", "127.0.0.1", False),
    ],
)
def test_an_ipv4_address_or_a_64_is_one_client(one: str, other: str, *, are_one: bool) -> None:
    assert (client_block(one) == client_block(other)) is are_one


@pytest.mark.parametrize("text", ["", "copier", "192.0.2", "2001:db8", "/run/socket"])
def test_what_is_no_address_is_no_block(text: str) -> None:
    assert client_block(text) == b""


# The limit for each address.


def test_one_address_gets_its_share_and_others_get_in() -> None:
    clients = admission(places=10, per_address=3)
    verdicts = [clients.arrive(f"{n}", block(1), NOW).verdict for n in range(5)]
    assert verdicts == [Verdict.ADMITTED] * 3 + [Verdict.ADDRESS_FULL] * 2
    assert clients.arrive("other", block(2), NOW).verdict is Verdict.ADMITTED
    clients.leave("0")
    assert clients.arrive("again", block(1), NOW).verdict is Verdict.ADMITTED


def test_an_exempt_address_is_not_limited() -> None:
    clients = admission(places=10, per_address=1)
    verdicts = [clients.arrive(f"{n}", block(1), NOW, is_limited=False).verdict for n in range(5)]
    assert verdicts == [Verdict.ADMITTED] * 5


# A full listener.


def test_a_newcomer_does_not_displace_strangers_that_are_logging_in() -> None:
    clients = admission()
    full_of_strangers(clients)
    decision = clients.arrive("new", block(9), NOW + GRACE_SECONDS - 0.1)
    assert (decision.verdict, decision.displaced) == (Verdict.LISTENER_FULL, None)


def test_a_newcomer_displaces_the_stranger_that_has_waited_longest() -> None:
    clients = admission()
    full_of_strangers(clients)
    decision = clients.arrive("new", block(9), NOW + GRACE_SECONDS)
    assert (decision.verdict, decision.displaced) == (Verdict.ADMITTED, "stranger 0")
    assert len(clients) == 4


def test_an_address_that_logged_in_lately_gets_in_at_once() -> None:
    clients = admission()
    clients.arrive("scanner", block(9), NOW)
    clients.log_in("scanner", NOW)
    clients.leave("scanner")
    later = NOW + 3 * 86_400
    full_of_strangers(clients, now=later)
    decision = clients.arrive("scanner", block(9), later + 4)
    assert (decision.verdict, decision.displaced) == (Verdict.ADMITTED, "stranger 0")


def test_after_long_an_address_is_a_stranger_again() -> None:
    clients = admission()
    clients.arrive("scanner", block(9), NOW)
    clients.log_in("scanner", NOW)
    clients.leave("scanner")
    later = NOW + LATELY_SECONDS + 1
    full_of_strangers(clients, now=later)
    assert clients.arrive("scanner", block(9), later + 4).verdict is Verdict.LISTENER_FULL


def test_who_logged_in_is_never_displaced() -> None:
    clients = admission()
    full_of_strangers(clients)
    for number in range(4):
        clients.log_in(f"stranger {number}", NOW + 10)
    assert clients.arrive("new", block(9), NOW + 9_999).verdict is Verdict.LISTENER_FULL


def test_strangers_of_known_addresses_go_last() -> None:
    clients = admission(places=2)
    clients.arrive("known", block(1), NOW)
    clients.log_in("known", NOW)
    clients.leave("known")
    clients.arrive("known", block(1), NOW)
    clients.arrive("unknown", block(2), NOW + 5)
    assert clients.arrive("known too", block(1), NOW + 60).displaced == "unknown"
    assert clients.arrive("stranger", block(3), NOW + 60).verdict is Verdict.LISTENER_FULL
    assert clients.arrive("and again", block(1), NOW + 61).displaced == "known"


def test_a_process_with_few_descriptors_admits_fewer() -> None:
    clients = admission(places=100, max_here=2)
    assert clients.arrive("a", block(1), NOW).verdict is Verdict.ADMITTED
    assert clients.arrive("b", block(2), NOW).verdict is Verdict.ADMITTED
    assert clients.arrive("c", block(3), NOW).verdict is Verdict.LISTENER_FULL


# Behind a load balancer.


def test_behind_a_balancer_the_header_decides() -> None:
    clients = admission(places=4, per_address=1)
    for number in range(3):
        assert clients.arrive_unnamed(f"{number}") is Verdict.ADMITTED
    assert clients.identify("0", block(1), NOW).verdict is Verdict.ADMITTED
    assert clients.identify("1", block(1), NOW).verdict is Verdict.ADDRESS_FULL
    assert clients.identify("2", block(2), NOW).verdict is Verdict.ADMITTED
    assert len(clients) == 2


def test_a_known_client_behind_a_balancer_gets_into_a_full_listener() -> None:
    clients = admission()
    clients.arrive("scanner", block(9), NOW)
    clients.log_in("scanner", NOW)
    clients.leave("scanner")
    full_of_strangers(clients)
    assert clients.arrive_unnamed("scanner") is Verdict.ADMITTED
    assert clients.identify("scanner", block(9), NOW + 5).displaced == "stranger 0"


def test_connections_without_a_header_are_limited_too() -> None:
    clients = admission(places=1)
    verdicts = [clients.arrive_unnamed(f"{n}") for n in range(200)]
    assert verdicts.count(Verdict.ADMITTED) == 65


# Several workers.


def test_workers_share_counts_and_logins_of_addresses() -> None:
    memory = memoryview(bytearray(new_key().ljust(table_bytes(3), b"\0")))
    tables = [AddressTable(memory, worker) for worker in range(3)]
    workers = [admission(places=100, per_address=2, addresses=table) for table in tables]
    assert workers[0].arrive("a", block(1), NOW).verdict is Verdict.ADMITTED
    assert workers[1].arrive("b", block(1), NOW).verdict is Verdict.ADMITTED
    assert workers[2].arrive("c", block(1), NOW).verdict is Verdict.ADDRESS_FULL
    workers[0].log_in("a", NOW)
    assert tables[2].last_login(block(1)) == NOW
    assert tables[2].last_login(block(2)) == 0
    tables[0].forget_counts()  # as the parent does when that worker has died
    assert workers[2].arrive("c", block(1), NOW).verdict is Verdict.ADMITTED
    assert tables[2].last_login(block(1)) == NOW


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["arrive", "log in", "leave"]),
            st.integers(0, 15),  # the client
            st.integers(0, 4),  # its address
            st.floats(0, 30),  # the time that passes
        ),
        max_size=60,
    )
)
def test_the_limits_hold_whatever_happens(steps: list[tuple[str, int, int, float]]) -> None:
    table = AddressTable()
    clients = admission(places=5, per_address=3, addresses=table)
    here: dict[str, int] = {}
    logged_in: set[str] = set()
    now = NOW
    for step, number, address, passed in steps:
        now += passed
        client = f"client {number}"
        if step == "arrive" and client not in here:
            decision = clients.arrive(client, block(address), now)
            if decision.displaced is not None:
                assert decision.displaced not in logged_in
                del here[decision.displaced]
            if decision.verdict is Verdict.ADMITTED:
                here[client] = address
            elif decision.verdict is Verdict.ADDRESS_FULL:
                assert list(here.values()).count(address) == 3
            else:
                assert len(here) == 5
        elif step == "log in" and client in here:
            clients.log_in(client, now)
            logged_in.add(client)
        elif step == "leave":
            clients.leave(client)
            here.pop(client, None)
            logged_in.discard(client)
        assert len(clients) == len(here) <= 5
        for address_seen in range(5):
            count = list(here.values()).count(address_seen)
            assert table.count(block(address_seen)) == count <= 3
