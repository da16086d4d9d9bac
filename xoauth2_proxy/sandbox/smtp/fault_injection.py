"""Runs a step of a session, or does what the fault placed at that step says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.faults import (
    CHANGED_REPLY,
    OTHER_REPLY,
    REFUSED_TOKEN,
    Action,
    Fault,
    Step,
)
from xoauth2_proxy.sandbox.smtp.session_state import Ending, Input

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.smtp.session_state import Run, SessionState

# What the record of refusals shows in place of a reply.
_DONE = {
    Action.DROP: b"(closed without a word)",
    Action.RESET: b"(reset)",
    Action.FREEZE: b"(neither read nor answered)",
    Action.STALL: b"(not answered)",
    Action.GARBAGE: b"(garbage)",
    Action.ACCEPT_THEN_DROP: b"(kept, and closed without a word)",
    Action.REPLY_THEN_DROP: b"(the usual reply, then closed)",
    Action.REPLY_TWICE: b"(the usual reply, twice)",
}
_BEFORE_THEIR_REPLY = (Step.BDAT, Step.CONTENT)  # the reply comes once all octets are there


def run_step(session: SessionState, step: Step, argument: str, run: Run) -> None:
    """Count the arrival at `step`; say what `run` replies, or do what the fault there says."""
    fault = session.provider.arrive(step, session.mailbox, argument)
    if fault is None:
        session.say(run(session, argument))
        return
    action, reason = fault.action, fault.describe(fault.action)
    if action in _DONE:
        session.note_refusal(_DONE[action], reason)
    if action in OTHER_REPLY:
        _reply_instead(session, fault, reason)
    elif action is Action.DROP:
        session.close()
    elif action is Action.RESET:
        session.end(Ending.ABORT)
    elif action is Action.FREEZE:
        session.is_silent = True
        session.end(Ending.FREEZE)
    elif action is Action.STALL:
        session.is_silent = True
        session.input = Input.NOTHING
    elif action in REFUSED_TOKEN:
        session.refuses_token = True
        session.why = f"{reason}: the token is treated as such, whatever it is"
        session.say(run(session, argument))
        session.refuses_token = False
    elif action in CHANGED_REPLY and step in _BEFORE_THEIR_REPLY:
        session.pending_faults.append(fault)
        session.say(run(session, argument))
    else:
        run_and_alter(session, fault, argument, run)


def run_and_alter(session: SessionState, fault: Fault, argument: str, run: Run) -> None:
    """Say what `run` replies, changed as the fault says."""
    said, held = len(session.replies), len(session.held)
    session.say(run(session, argument))
    # The replies of `run`, which it may have put on hold.
    replies, mark = (session.held, held) if session.is_held else (session.replies, said)
    match fault.action:
        case Action.DELAY:
            session.hold(said, fault.seconds)
        case Action.REPLY_TWICE:
            replies += replies[mark:]
        case Action.REPLY_THEN_DROP if not session.is_silent:
            if session.is_held:
                session.held_ending = Ending.CLOSE
            else:
                session.close()
        case Action.ACCEPT_THEN_DROP:
            del replies[mark:]
            session.close()


def _reply_instead(session: SessionState, fault: Fault, reason: str) -> None:
    octets, dialect = fault.octets, session.provider.dialect
    session.why = reason
    if fault.action is Action.SHUT_DOWN and not fault.text:
        octets = dialect.encode(dialect.shut_down)
    is_refusal = octets[:1] in (b"4", b"5")
    session.say_verbatim(octets)
    if fault.step in _BEFORE_THEIR_REPLY:
        session.is_answered = True
    elif fault.step is Step.END:
        session.end_transaction(is_refused=True)
    elif fault.step is Step.AUTH and is_refusal:
        session.provider.counters.auth_refused += 1
    elif fault.step is Step.CONNECT and is_refusal:
        session.is_turned_away = True  # RFC 5321 §3.1
    if octets.startswith(b"421"):  # RFC 5321 §3.8: the server closes
        session.close()
