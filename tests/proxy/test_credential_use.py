"""The limits of a credential: messages a minute and a day, sessions; in all workers together."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.credential import Credential
from xoauth2_proxy.submission.credential_use import CredentialBusy, CredentialUse

ACCOUNT = mailbox()
DAY = 86_400.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Workers:
    """Workers that hear each other at once."""

    def __init__(self, number: int = 1) -> None:
        self.clock = Clock()
        self.uses: list[CredentialUse] = []
        for worker in range(number):
            self.start(worker)

    def start(self, worker: int) -> None:
        def tell(line: str) -> None:
            for other, use in enumerate(self.uses):
                if other != worker:
                    assert use.heard(line)

        made = CredentialUse(worker, tell, self.clock)
        self.uses[worker : worker + 1] = [made]

    def sends(self, credential: Credential, worker: int = 0) -> bool:
        try:
            self.uses[worker].count_message(ACCOUNT, credential)
        except CredentialBusy:
            return False
        return True

    def begins(self, credential: Credential, worker: int = 0) -> str:
        try:
            return self.uses[worker].begin_session(ACCOUNT, credential)
        except CredentialBusy as busy:
            return "" if busy.reply.code == 421 else str(busy)


def limited(**limits: float) -> Credential:
    return replace(Credential(name="copier"), **limits)  # type: ignore[arg-type]


@pytest.mark.parametrize(("per_minute", "burst"), [(1, 1), (2, 1), (6, 3), (60, 30)])
def test_half_of_a_minutes_messages_may_come_at_once(per_minute: int, burst: int) -> None:
    workers, credential = Workers(), limited(messages_per_minute=per_minute)
    assert [workers.sends(credential) for _ in range(burst + 1)] == [True] * burst + [False]
    workers.clock.now += 60 / per_minute
    assert workers.sends(credential)
    assert not workers.sends(credential)


def test_the_reply_names_the_credential_and_the_limit() -> None:
    workers, credential = Workers(), limited(messages_per_minute=2, messages_per_day=1)
    assert workers.sends(credential)
    with pytest.raises(CredentialBusy) as caught:
        workers.uses[0].count_message(ACCOUNT, credential)
    assert str(caught.value) == "451 4.7.1 The login copier may send 2 messages a minute; wait"
    workers.clock.now += 60
    with pytest.raises(CredentialBusy) as caught:
        workers.uses[0].count_message(ACCOUNT, credential)
    assert str(caught.value) == "452 4.7.1 The login copier may send 1 message in 24 hours"


@pytest.mark.parametrize("number", [1, 3])
def test_a_days_messages_are_counted_in_all_workers(number: int) -> None:
    workers, credential = Workers(number), limited(messages_per_day=10)
    sent = [workers.sends(credential, turn % number) for turn in range(12)]
    assert sent == [True] * 10 + [False] * 2
    workers.clock.now += DAY - 600
    assert not workers.sends(credential)
    workers.clock.now += 600
    assert workers.sends(credential)


@given(
    st.lists(st.floats(0, 7200), min_size=1, max_size=100),
    st.integers(1, 20),
    st.lists(st.integers(0, 2), min_size=1, max_size=7),
)
def test_no_24_hours_have_more_messages_than_allowed(
    pauses: list[float], limit: int, turns: list[int]
) -> None:
    workers, credential = Workers(3), limited(messages_per_day=limit)
    accepted: list[float] = []
    for number, pause in enumerate(pauses):
        workers.clock.now += pause
        if workers.sends(credential, turns[number % len(turns)]):
            accepted.append(workers.clock.now)
        else:  # a refusal is right: so many were accepted within the last 24 hours and a step
            since = workers.clock.now - DAY - 300
            assert sum(at >= since for at in accepted) >= limit
    for at in accepted:
        # A step is counted as a whole: what it began with may be older than 24 hours by 5 minutes.
        within = sum(at - DAY + 300 < one <= at for one in accepted)
        assert within <= limit


@given(st.lists(st.floats(0, 30), max_size=200), st.sampled_from([1.0, 6.0, 30.0]))
def test_no_minute_has_more_than_one_and_a_half_times_the_rate(
    pauses: list[float], rate: float
) -> None:
    workers, credential = Workers(), limited(messages_per_minute=rate)
    accepted: list[float] = []
    for pause in pauses:
        workers.clock.now += pause
        if workers.sends(credential):
            accepted.append(workers.clock.now)
    for at in accepted:
        assert sum(at - 60 < one <= at for one in accepted) <= 1.5 * rate + 1


def test_sessions_are_counted_in_all_workers_and_freed() -> None:
    workers, credential = Workers(2), limited(max_connections=2)
    first, second = workers.begins(credential, 0), workers.begins(credential, 1)
    assert first
    assert second
    assert not workers.begins(credential, 0)
    assert not workers.begins(credential, 1)
    workers.uses[1].end_session(second)
    assert workers.begins(credential, 0)
    assert not workers.begins(credential, 1)


def test_the_sessions_of_a_worker_that_ended_are_forgotten() -> None:
    workers, credential = Workers(2), limited(max_connections=2, messages_per_day=2)
    assert workers.begins(credential, 1)
    assert workers.begins(credential, 1)
    assert workers.sends(credential, 1)
    assert not workers.begins(credential, 0)
    workers.start(1)
    assert workers.begins(credential, 0)
    assert workers.sends(credential, 0)
    assert not workers.sends(credential, 0)


def test_credentials_do_not_share_their_limits() -> None:
    workers = Workers()
    for name in ("copier", "fax"):
        credential = Credential(name=name, messages_per_day=1)
        assert workers.sends(credential)
        assert not workers.sends(credential)


def test_what_is_remembered_is_bounded() -> None:
    workers = Workers()
    for number in range(5000):
        workers.sends(Credential(name=f"device-{number}", messages_per_day=1))
        workers.clock.now += DAY
    assert len(workers.uses[0]._uses) <= 1024


def test_other_lines_are_left_to_others() -> None:
    assert not CredentialUse().heard("wanted 1234 5")
