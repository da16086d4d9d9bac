"""Whatever goes wrong at whatever step upstream, the client's reply is true and mail goes on.

A 2yz means that the provider kept the message exactly once. After any doubt the connection is not
used again. The next message works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import message
from xoauth2_proxy.sandbox import Action, Fault, Sandbox, Step
from xoauth2_proxy.upstream import opener, transaction

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp import Reply

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

    def __str__(self) -> str:
        way = {CHUNKING: "by DATA", PIPELINING: "in lock step"}.get(self.withhold, "by BDAT")
        return f"{self.step} {self.name} {way}"


CASES = [
    Case(step, name, withhold)
    for step, withhold in PLACES
    for name in ACTIONS
    if name != "accept then drop" or step is Step.END
]


async def sent_with_fault(relay: Relay, client: Client, case: Case) -> Reply:
    """Send a message that meets the fault, and return its final reply."""
    if case.step is Step.RSET:
        # A refused transaction leaves the connection in need of RSET.
        relay.sandbox.add_fault(Fault.reply(Step.RCPT, "550 5.1.1 No such user"))
        assert (await client.send(message("before"))).code == 550
    relay.sandbox.add_fault(case.fault)
    return await client.send(message("first"))


def is_delivered(relay: Relay, subject: str) -> bool:
    """Whether the sandbox kept that message, once."""
    kept = [one for one in relay.sandbox.received if one.content == message(subject)]
    assert len(kept) <= 1
    return bool(kept)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_reply_is_true_and_the_next_message_works(
    start_relay: StartRelay, tmp_path: Path, case: Case
) -> None:
    relay = await start_relay(sandbox=Sandbox(tmp_path, withhold=case.withhold))
    async with await relay.log_in() as client:
        answer = await sent_with_fault(relay, client, case)
        print("RESULT", case, "->", answer, is_delivered(relay, "first"))
        if case.name == "accept then drop":
            assert str(answer) == "451 4.4.2 Connection to the provider lost"
            assert is_delivered(relay, "first")
        else:
            assert answer.is_positive == is_delivered(relay, "first"), str(answer)
        opened = relay.sandbox.counters.connections_opened
        assert (await client.send(message("next"))).code == 250
    assert is_delivered(relay, "next")
    assert relay.sandbox.received.total == sum(
        is_delivered(relay, subject) for subject in ("first", "next")
    )
    if case.name in IN_DOUBT:
        assert relay.sandbox.arrivals(Step.CONNECT) >= 2, opened
