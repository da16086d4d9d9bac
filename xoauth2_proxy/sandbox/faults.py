"""Faults on request: what the sandbox does wrong, at which step, for which arrival there.

A script is a list of `Fault`; the first that matches an arrival and whose turn it is decides it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from xoauth2_proxy.sandbox.tally import Tally


class Step(StrEnum):
    """The points of a session at which a fault can be placed."""

    CONNECT = "connect"  # before the greeting
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"  # the credentials are complete
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"  # the DATA command
    BDAT = "bdat"  # the BDAT command, before its octets
    CONTENT = "content"  # the first octets of a message's content
    END = "end"  # the final dot, or the last octet of BDAT LAST
    RSET = "rset"
    QUIT = "quit"

    __hash__ = str.__hash__  # Enum's own is a Python function, and this is asked at every step


class Action(StrEnum):
    """What goes wrong."""

    REPLY = "reply"  # `text` is the reply; the step has no other effect. After 421 it closes
    DROP = "drop"  # close the connection
    RESET = "reset"  # close it with a TCP RST
    ACCEPT_THEN_DROP = "accept_then_drop"  # END only: keep the message, then close unanswered
    STALL = "stall"  # read on, never answer again
    FREEZE = "freeze"  # neither read nor answer again
    DELAY = "delay"  # answer after `seconds`; nothing behind it is looked at before
    GARBAGE = "garbage"  # send octets that are no reply (`text`, if given)
    REPLY_TWICE = "reply_twice"  # the reply, and the same once more


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    It counts the arrivals at its step that match it, from the moment it is added. A reply at
    CONTENT is sent at once, and takes the place of the reply at the end.
    """

    step: Step
    action: Action
    nth: int | None = field(default=1, kw_only=True)  # 1-based; None: every one
    mailbox: str | None = field(default=None, kw_only=True)  # None: any; known from AUTH on
    matching: str = field(default="", kw_only=True)  # regular expression on the argument
    text: str = field(default="", kw_only=True)  # lines of the reply, with their codes
    seconds: float = field(default=0.0, kw_only=True)

    def __post_init__(self) -> None:
        if self.action is Action.REPLY and not self.text:
            raise ValueError("a reply needs its text")
        if self.action is Action.ACCEPT_THEN_DROP and self.step is not Step.END:
            raise ValueError("only the end of a message can be accepted and then dropped")

    @classmethod
    def reply(
        cls,
        step: Step,
        text: str,
        *,
        nth: int | None = 1,
        mailbox: str | None = None,
        matching: str = "",
    ) -> Fault:
        """Return the fault that answers `text` at `step`."""
        return cls(step, Action.REPLY, text=text, nth=nth, mailbox=mailbox, matching=matching)

    @property
    def octets(self) -> bytes:
        """What goes on the wire in place of the reply."""
        lines = self.text.splitlines() or ["\x16\x03\x01 this is no reply"]
        return b"".join(line.encode() + b"\r\n" for line in lines)

    def concerns(self, mailbox: str, argument: str) -> bool:
        """Return whether an arrival of `mailbox` with this argument is one to count."""
        if self.mailbox is not None and self.mailbox.lower() != mailbox:
            return False
        return not self.matching or re.search(self.matching, argument) is not None


class Faults:
    """The script: mutable, and consulted at every step."""

    __slots__ = ("_by_step",)

    def __init__(self) -> None:
        self._by_step: dict[Step, list[tuple[Fault, Tally]]] = {}

    def add(self, fault: Fault) -> None:
        """Append a fault; its arrivals are counted from now on."""
        self._by_step.setdefault(fault.step, []).append((fault, Tally()))

    def clear(self) -> None:
        """Forget every fault."""
        self._by_step.clear()

    def next(self, step: Step, mailbox: str, argument: str) -> Fault | None:
        """Return the fault that this arrival meets, or None."""
        if not self._by_step or step not in self._by_step:
            return None
        met: Fault | None = None
        for fault, arrivals in self._by_step[step]:
            if not fault.concerns(mailbox, argument):
                continue
            is_due = fault.nth in (None, arrivals.add())
            met = met or (fault if is_due else None)
        return met
