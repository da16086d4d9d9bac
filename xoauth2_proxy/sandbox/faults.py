"""Faults on request: what goes wrong at which step, and at which arrival there.

A script is a list of faults. The first fault that matches an arrival and is due applies.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from itertools import count
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import Field, GetJsonSchemaHandler, TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import CoreSchema

from xoauth2_proxy.sandbox.behaviour import STRICT
from xoauth2_proxy.sandbox.seeded_random import share

MAX_FAULTS = 1000  # in one script


class DocumentedEnum(StrEnum):
    """An enumeration whose members have a `meaning`, given after their value."""

    _value_: str
    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> Self:
        """Return the member of this value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Return the schema with a description of each member."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        schema.pop("enum", None)
        schema["oneOf"] = [{"const": one.value, "description": one.meaning} for one in cls]
        return schema


class Step(DocumentedEnum):
    """The points of a session at which a fault can be placed."""

    CONNECT = "connect", "before the greeting"
    EHLO = "ehlo", "EHLO or HELO"
    STARTTLS = "starttls", "the STARTTLS command"
    AUTH = "auth", "the credentials are complete"
    MAIL = "mail", "MAIL FROM"
    RCPT = "rcpt", "RCPT TO"
    DATA = "data", "the DATA command, before the 354"
    BDAT = "bdat", "the BDAT command, before its octets"
    CONTENT = "content", "the first octets of a message, after the 354"
    END = "end", "the final dot, or the last octet of BDAT LAST"
    RSET = "rset", "RSET"
    QUIT = "quit", "QUIT"


class Action(DocumentedEnum):
    """What goes wrong."""

    REPLY = "reply", "say `text` instead and do nothing; 421 closes"
    REFUSE = "refuse", "refuse for good: 550, at connect 554, at auth 535"
    TEMPFAIL = "tempfail", "refuse for now: 451, at auth 454"
    SHUT_DOWN = "421", "say 421, in the provider's words, and close"
    DROP = "drop", "close the connection without a word (FIN)"
    RESET = "reset", "close the connection with a TCP RST"
    ACCEPT_THEN_DROP = (
        "accept_then_drop",
        "store the message and close without a reply; at end only",
    )
    REPLY_THEN_DROP = "reply_then_drop", "give the usual reply, then close"
    STALL = "stall", "read on, never reply again"
    FREEZE = "freeze", "neither read nor reply again"
    DELAY = "delay", "reply after `seconds`, and read nothing before"
    GARBAGE = "garbage", "say something that is not a reply (`text`, if given)"
    REPLY_TWICE = "reply_twice", "give the usual reply twice"
    # A good token is refused as if it were a bad one.
    EXPIRED = "expired", "treat a good token as expired; at auth only"
    REVOKED = "revoked", "treat it as revoked; at auth only"
    TAMPERED = "tampered", "treat it as altered; at auth only"
    WRONG_MAILBOX = "wrong_mailbox", "treat it as another mailbox's; at auth only"


# The replies of faults without a text of their own.
_TEXTS = {
    Action.REFUSE: "550 5.7.1 Refused on request",
    Action.TEMPFAIL: "451 4.3.0 Temporary failure on request",
    Action.SHUT_DOWN: "421 4.3.2 Closing on request",  # unless the dialect has its own
    Action.GARBAGE: "\x16\x03\x01 this is no reply",
}
_TEXTS_AT = {
    Step.CONNECT: _TEXTS | {Action.REFUSE: "554 5.7.1 Refused on request"},  # RFC 5321 §4.3.2
    Step.AUTH: _TEXTS
    | {
        Action.REFUSE: "535 5.7.8 Refused on request",
        Action.TEMPFAIL: "454 4.7.0 Temporary authentication failure",
    },
}
OTHER_REPLY = frozenset({Action.REPLY, *_TEXTS})  # another reply is sent
CHANGED_REPLY = frozenset(
    {Action.REPLY_TWICE, Action.REPLY_THEN_DROP}
)  # the usual reply is changed
REFUSED_TOKEN = frozenset({Action.EXPIRED, Action.REVOKED, Action.TAMPERED, Action.WRONG_MAILBOX})


@dataclass(frozen=True, slots=True, config=STRICT)
class ScriptedFault:
    """The step of a fault and the arrivals that meet it; it counts those that match."""

    step: str
    nth: int | None = Field(
        default=1,
        kw_only=True,
        ge=1,
        description="The arrival that meets it; 1 is the first. null: every one.",
    )
    rate: float | None = Field(
        default=None,
        kw_only=True,
        ge=0,
        le=1,
        description="Instead of nth: the share of arrivals that meet it, at random.",
    )
    mailbox: str | None = Field(
        default=None, kw_only=True, max_length=320, description="Only arrivals of this mailbox."
    )
    matching: str = Field(
        default="",
        kw_only=True,
        max_length=1000,
        description="A regular expression for the argument.",
    )
    seconds: float = Field(
        default=0.0, kw_only=True, ge=0, le=3600, description="Length of a delay."
    )

    def __post_init__(self) -> None:
        if self.rate is not None and self.nth not in (None, 1):
            raise ValueError("nth and rate exclude each other")
        try:
            re.compile(self.matching)
        except re.error as error:
            raise ValueError(f"matching is no regular expression: {error}") from None

    @property
    def turn(self) -> str:
        """The arrivals that meet the fault, as on the command line."""
        if self.rate is not None:
            turn = f"rate={self.rate:.4g}"
        else:
            turn = "every" if self.nth is None else f"nth={self.nth}"
        return turn if self.mailbox is None else f"{turn} mailbox={self.mailbox}"

    def describe(self, action: str) -> str:
        """Return the fault as the reason of a refusal, similar to its form on the command line."""
        return f"fault {self.step}:{action} {self.turn}"

    def as_document(self) -> dict[str, object]:
        """Return the fault as in a list of faults, without default values."""
        adapter = TypeAdapter(type(self))
        said: dict[str, object] = adapter.dump_python(self, mode="json", exclude_defaults=True)
        return {"step": str(self.step)} | said

    def concerns(self, mailbox: str, argument: str) -> bool:
        """Return whether an arrival of `mailbox` with this argument counts."""
        if self.mailbox is not None and self.mailbox.lower() != mailbox:
            return False
        return not self.matching or re.search(self.matching, argument) is not None


@dataclass(frozen=True, slots=True, config=STRICT)
class Fault(ScriptedFault):
    """One fault of the SMTP server.

    The mailbox is known from AUTH on, the argument is the command's. A reply at CONTENT is sent at
    once and replaces the reply at the end. After a greeting that refuses, only QUIT is accepted.
    """

    step: Annotated[Step, Field(strict=False)]
    action: Annotated[Action, Field(strict=False)]
    text: str = Field(
        default="",
        kw_only=True,
        max_length=10_000,
        description="Lines of the reply, with their codes.",
    )

    def __post_init__(self) -> None:
        ScriptedFault.__post_init__(self)
        if self.action is Action.REPLY and not self.text:
            raise ValueError("the action reply needs a text")
        if self.action is Action.ACCEPT_THEN_DROP and self.step is not Step.END:
            raise ValueError("the action accept_then_drop is for the step end only")
        if self.action in REFUSED_TOKEN and self.step is not Step.AUTH:
            raise ValueError(f"the action {self.action} is for the step auth only")

    @property
    def octets(self) -> bytes:
        """What is sent instead of the reply."""
        texts = _TEXTS_AT.get(self.step, _TEXTS)
        lines = (self.text or texts.get(self.action, "")).splitlines()
        return b"".join(line.encode() + b"\r\n" for line in lines)


class TokenAction(DocumentedEnum):
    """What goes wrong at the token endpoint."""

    RATE_LIMITED = "429", "too many requests, with Retry-After"
    SERVER_ERROR = "500", "server_error"
    UNAVAILABLE = "503", "temporarily_unavailable, with Retry-After"
    HANG = "hang", "no answer"
    DROP = "drop", "the connection ends without an answer"
    DELAY = "delay", "answer after `seconds`"
    GARBAGE = "garbage", "200, and HTML instead of JSON"
    TRUNCATED = "truncated", "the connection ends within the JSON"
    INVALID_GRANT = "invalid_grant", "400: the refresh token is not valid"
    INVALID_CLIENT = "invalid_client", "401: the client is not known"
    INTERACTION_REQUIRED = "interaction_required", "400: a person has to sign in"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable", "400: not now"
    # A good answer with an access token that the SMTP server refuses.
    EXPIRED = "expired", "200, and the access token has expired"
    REVOKED = "revoked", "200, and the access token is revoked"
    TAMPERED = "tampered", "200, and the access token was altered"
    WRONG_MAILBOX = "wrong-mailbox", "200, and the access token is another mailbox's"


@dataclass(frozen=True, slots=True, config=STRICT)
class TokenFault(ScriptedFault):
    """One fault of the token endpoint; the argument is the grant type."""

    step: Literal["token"] = Field(default="token", kw_only=True)
    action: Annotated[TokenAction, Field(strict=False)]
    retry_after_seconds: int = Field(
        default=1,
        kw_only=True,
        ge=0,
        le=86_400,
        description="Retry-After of 429 and 503; zero: none.",
    )


FaultT = TypeVar("FaultT", bound=ScriptedFault)


class FaultScript(Generic[FaultT]):
    """The faults of one server; they may be added and removed at any time."""

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._all: list[FaultT] = []
        # The faults of each step, with the number of their arrivals and the name of their random
        # sequence.
        self._by_step: dict[str, list[tuple[FaultT, Iterator[int], str]]] = {}

    def __iter__(self) -> Iterator[FaultT]:
        return iter(tuple(self._all))

    def add(self, fault: FaultT) -> None:
        """Append a fault; its arrivals are counted from now on.

        Raises `ValueError`: there are too many.
        """
        if len(self._all) >= MAX_FAULTS:
            raise ValueError(f"a script has at most {MAX_FAULTS} faults")
        row = f"{fault.step}/{len(self._all)}"
        self._all.append(fault)
        self._by_step.setdefault(fault.step, []).append((fault, count(1), row))

    def clear(self) -> None:
        """Remove all faults; the random sequences start again."""
        self._by_step.clear()
        self._all.clear()

    @property
    def by_step(self) -> Mapping[str, object]:
        """The faults by step: always the same mapping, which is empty while there are none."""
        return self._by_step

    def next(self, step: str, mailbox: str, argument: str) -> FaultT | None:
        """Return the fault that this arrival meets, or None."""
        if step not in self._by_step:
            return None
        met: FaultT | None = None
        for fault, arrivals, row in self._by_step[step]:
            if not fault.concerns(mailbox, argument):
                continue
            number = next(arrivals)
            if fault.rate is not None:
                is_due = share(self._seed, row, number) < fault.rate
            else:
                is_due = fault.nth in (None, number)
            if is_due and met is None:
                met = fault
        return met
