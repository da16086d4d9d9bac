"""Whatever goes wrong at whatever step upstream, the client's reply is true and mail goes on.

A 2yz means that the provider kept the message exactly once. After any doubt the connection is not
used again. The next message works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.sandbox import Sandbox, reply_fault
from tests.support.smtp_client import message
from tests.support.upstream_patience import COMMANDS, FINAL_REPLIES, PIECES, wait_only
from tests.support.waiting import seconds_for
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.upstream import connector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

CHUNKING = frozenset({"CHUNKING"})
PIPELINING = frozenset({"PIPELINING"})

# Steps of a message, and how the provider must be for the step to be reached.
OPENING = (Step.CONNECT, Step.EHLO, Step.STARTTLS, Step.AUTH)
ONE_FLIGHT = (Step.MAIL, Step.RCPT, Step.BDAT, Step.CONTENT, Step.END)
TWO_FLIGHTS = (Step.MAIL, Step.RCPT, Step.DATA, Step.CONTENT, Step.END)
PLACES = [
    *((step, frozenset[str]()) for step in OPENING + ONE_FLIGHT),
    *((step, CHUNKING) for step in TWO_FLIGHTS),
    *((step, PIPELINING) for step in (*ONE_FLIGHT, Step.RSET)),
    (Step.RSET, frozenset[str]()),
    (Step.RSET, CHUNKING),
]

ACTIONS = {
    "drop": (Action.DROP, ""),
    "reset": (Action.RESET, ""),
    "4xx": (Action.REPLY, "451 4.7.1 Not now"),
    "5xx": (Action.REPLY, "554 5.7.1 Not at all"),
    "421": (Action.REPLY, "421 4.7.0 Closing"),
    "garbage": (Action.GARBAGE, ""),
    "truncated reply": (Action.GARBAGE, "25"),
    "another code": (Action.REPLY, "220 2.0.0 Ready"),
    "intermediate": (Action.REPLY, "334 "),
    "twice": (Action.REPLY_TWICE, ""),
    "accept then drop": (Action.ACCEPT_THEN_DROP, ""),
    "late": (Action.DELAY, ""),
}
IN_DOUBT = {"drop", "reset", "421", "garbage", "truncated reply", "accept then drop"}
LOST = "451 4.4.2 Connection to the provider lost"
UNREACHABLE = "451 4.4.1 The provider cannot be reached"


@dataclass(frozen=True, slots=True)
class Case:
    """One fault at one step of one kind of transaction."""

    step: Step
    name: str
    withhold: frozenset[str] = field(default=frozenset())

    @property
    def fault(self) -> Fault:
        action, text = ACTIONS[self.name]
        return Fault(self.step, action, text=text, seconds=0.01)

    @property
    def told(self) -> str:
        """What the client is told; "" where more than one answer is true."""
        is_opening = self.step in OPENING
        if self.name == "late":
            return "250"
        if self.name == "accept then drop":
            return LOST
        if self.name in {"drop", "reset"}:
            # Before any content has left the message is sent again on a new connection. Behind
            # RSET it never goes along.
            may_fly = not self.withhold and self.step is not Step.RSET
            has_sent = may_fly or self.step in {Step.BDAT, Step.CONTENT, Step.END}
            return UNREACHABLE if is_opening else LOST if has_sent else "250"
        if self.name in {"4xx", "5xx"} and self.step in ONE_FLIGHT + TWO_FLIGHTS:
            return ACTIONS[self.name][1]
        return "250" if (self.step, self.name) == (Step.MAIL, "421") else ""

    def __str__(self) -> str:
        way = {CHUNKING: "by DATA", PIPELINING: "in lock step"}.get(self.withhold, "by BDAT")
        return f"{self.step} {self.name} {way}"


# Not a fault one can tell from the truth: a 2yz in place of the final reply.
BELIEVED = {(step, "another code") for step in (Step.BDAT, Step.CONTENT, Step.END)}
# The replies are out of order when the message's own comes, so nobody knows which it is.
CONFUSING = {"garbage", "truncated reply", "twice"}


def cases() -> Iterator[ParameterSet]:
    for step, withhold in PLACES:
        for name in ACTIONS:
            if (step, name) in BELIEVED or (name == "accept then drop" and step is not Step.END):
                continue
            case = Case(step, name, withhold)
            yield pytest.param(case, id=str(case))


async def sent_with_fault(relay: Relay, client: Client, case: Case) -> Reply:
    """Send a message that meets the fault, and return its final reply."""
    if case.step is Step.RSET:
        # A refused transaction leaves the connection in need of RSET.
        relay.sandbox.add_fault(reply_fault(Step.RCPT, "550 5.1.1 No such user"))
        assert (await client.send(message("before"))).code == 550
    relay.sandbox.add_fault(case.fault)
    return await client.send(message("first"))


def is_delivered(relay: Relay, subject: str) -> bool:
    """Whether the sandbox kept that message, once."""
    kept = [one for one in relay.sandbox.received if one.content == message(subject)]
    assert len(kept) <= 1
    return bool(kept)


@pytest.mark.parametrize("case", list(cases()))
async def test_the_reply_is_true_and_the_next_message_works(
    start_relay: StartRelay, tmp_path: Path, case: Case
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=case.withhold))
    async with await relay.log_in() as client:
        answer = await sent_with_fault(relay, client, case)
        assert str(answer).startswith(case.told)
        if case.name == "accept then drop":
            assert is_delivered(relay, "first")
        elif case.name in CONFUSING and str(answer) == LOST:
            pass  # nothing is claimed
        else:
            assert answer.is_positive == is_delivered(relay, "first"), str(answer)
        assert (await client.send(message("next"))).code == 250
    assert is_delivered(relay, "next")
    assert relay.sandbox.received.total == sum(
        is_delivered(relay, subject) for subject in ("first", "next")
    )
    if case.name in IN_DOUBT:
        assert relay.sandbox.counters.connections_opened >= 2


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT])
async def test_a_reply_too_many_never_makes_a_refusal_a_success(relay: Relay, step: Step) -> None:
    relay.sandbox.add_fault(Fault(step, Action.REPLY_TWICE))
    relay.sandbox.add_fault(reply_fault(Step.END, "550 5.7.1 Looks like spam"))
    async with await relay.log_in() as client:
        answer = await client.send(message())
    assert relay.sandbox.received.total == 0
    assert not answer.is_positive, str(answer)


# A provider that falls silent. The limits are minutes; here they are moments.


@pytest.fixture
async def _short_limits(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    relay = await start_relay()
    async with await relay.log_in() as client:
        took_seconds = await seconds_for(client.send(message()))
    moment = max(0.2, 20 * took_seconds)  # none of the steps of a message takes as long by itself
    for name in ("_CONNECT_SECONDS", "_AUTH_SECONDS"):
        monkeypatch.setattr(connector, name, moment)
    wait_only(moment, (*COMMANDS, *PIECES, *FINAL_REPLIES), monkeypatch)


SILENCES = [
    *((step, frozenset[str](), UNREACHABLE) for step in OPENING),
    *((step, frozenset[str](), LOST) for step in ONE_FLIGHT),
    *((step, CHUNKING, "250 ") for step in (Step.MAIL, Step.RCPT, Step.DATA)),
    *((step, CHUNKING, LOST) for step in (Step.CONTENT, Step.END)),
]


@pytest.mark.usefixtures("_short_limits")
@pytest.mark.parametrize("action", [Action.STALL, Action.FREEZE])
@pytest.mark.parametrize(("step", "withhold", "told"), SILENCES)
async def test_a_silent_provider_is_not_waited_for_without_end(
    start_relay: StartRelay,
    tmp_path: Path,
    step: Step,
    withhold: frozenset[str],
    told: str,
    action: Action,
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(Fault(step, action))
    async with await relay.log_in() as client:
        answer = await client.send(message("first"))
        assert str(answer).startswith(told)
        assert answer.is_positive == is_delivered(relay, "first")
        assert (await client.send(message("next"))).code == 250
    assert relay.sandbox.counters.connections_opened == 2


@pytest.mark.usefixtures("_short_limits")
@pytest.mark.parametrize("withhold", [frozenset[str](), CHUNKING], ids=["BDAT", "DATA"])
async def test_a_provider_that_stops_reading_is_given_up(
    start_relay: StartRelay, tmp_path: Path, withhold: frozenset[str]
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=withhold))
    relay.sandbox.add_fault(Fault(Step.CONTENT, Action.FREEZE))
    async with await relay.log_in() as client:
        answer = await client.send(message("first", size_bytes=16_000_000))
        assert str(answer) == LOST
        assert relay.sandbox.received.total == 0
        assert (await client.send(message("next"))).code == 250


@pytest.mark.usefixtures("_short_limits")
async def test_a_reply_too_many_never_stands_in_for_the_one_to_come(relay: Relay) -> None:
    relay.sandbox.add_fault(Fault(Step.MAIL, Action.REPLY_TWICE))
    relay.sandbox.add_fault(Fault(Step.END, Action.STALL))
    async with await relay.log_in() as client:
        answer = await client.send(message())
    assert relay.sandbox.received.total == 0
    assert not answer.is_positive, str(answer)
