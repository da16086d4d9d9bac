"""Carries out a fault that a session has met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.dialects import spoken
from xoauth2_proxy.sandbox.faults import AROUND, PRESUMED, REPLIES, Action, Fault, Step
from xoauth2_proxy.sandbox.smtp import content_commands

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.sandbox.smtp.session import Session

# What stands in place of a reply in the record of refusals.
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
_BEFORE_THEIR_REPLY = (Step.BDAT, Step.CONTENT)  # which comes when the octets are there


def meet(
    session: Session, fault: Fault, argument: str, run: Callable[[Session, str], None]
) -> None:
    """Do what the fault says in place of `run`, or around it."""
    if fault.action in _DONE:
        session.note_refusal(_DONE[fault.action], fault.told(fault.action))
    match fault.action:
        case action if action in REPLIES:
            _reply_instead(session, fault)
        case Action.DROP:
            session.close()
        case Action.RESET:
            session.abort()
        case Action.FREEZE:
            session.freeze()
        case Action.STALL:
            session.stall()
        case action if action in PRESUMED:
            session.presumed = action.value
            session.why = f"{fault.told(action)}: the token is taken for that, whatever it is"
            run(session, argument)
            session.presumed = ""
        case action if action in AROUND and fault.step in _BEFORE_THEIR_REPLY:
            session.answer_spoiled(fault)
            run(session, argument)
        case _:
            run_and_spoil(session, fault, argument, run)


def run_and_spoil(
    session: Session, fault: Fault, argument: str, run: Callable[[Session, str], None]
) -> None:
    """Let `run` answer, and do to its replies what the fault says."""
    said, held = len(session.replies), len(session.held)
    run(session, argument)
    # What `run` has said; it may have put it off already.
    pile, mark = (session.held, held) if session.is_held else (session.replies, said)
    match fault.action:
        case Action.DELAY:
            session.hold(said, fault.seconds)
        case Action.REPLY_TWICE:
            pile += pile[mark:]
        case Action.REPLY_THEN_DROP:
            session.close_in_turn()
        case Action.ACCEPT_THEN_DROP:
            del pile[mark:]
            session.close()


def _reply_instead(session: Session, fault: Fault) -> None:
    octets = fault.octets
    session.why = fault.told(fault.action)
    if fault.action is Action.SHUT_DOWN and not fault.text:
        octets = session.provider.dialect.worded(spoken(session.provider.dialect.shut_down))
    is_refusal = octets[:1] in (b"4", b"5")
    session.say_verbatim(octets)
    if fault.step in _BEFORE_THEIR_REPLY:
        session.answer_early()
    elif fault.step is Step.END:
        content_commands.refuse(session)
    elif fault.step is Step.AUTH and is_refusal:
        session.provider.counters.auth_refused += 1
    elif fault.step is Step.CONNECT and is_refusal:
        session.turn_away()
    if octets.startswith(b"421"):  # RFC 5321 §3.8: the server closes
        session.close()
