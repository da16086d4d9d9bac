"""The events of a client's dialogue: what its caller must do for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.message import Message
    from xoauth2_proxy.smtp.content import Content
    from xoauth2_proxy.smtp.protocol import Reply
    from xoauth2_proxy.smtp.sasl import Credentials


class Signal(Enum):
    """An event without data. Only `TLS_REQUESTED` must be answered."""

    TLS_UNASKED = auto()  # the client's first octets are TLS; `ENDED` follows
    TLS_REQUESTED = auto()  # write, shake hands, then `secured`
    CONTENT_UNACCEPTABLE = auto()  # the message being streamed will be refused once it has ended
    TRANSACTION_DROPPED = auto()  # the client gave up the message being streamed
    OCTETS_NEEDED = auto()  # inside the dialogue only: `next_event` returns None
    TURN_OVER = auto()  # there is more to do, but other sessions are to have their turn
    ENDED = auto()  # write, and close the connection


@dataclass(slots=True)
class LoginAttempt:
    """The client's credentials are to be checked. Answer: `logged_in` or `login_failed`."""

    mechanism: str
    credentials: Credentials


@dataclass(slots=True)
class LoginMalformed:
    """An AUTH exchange ended without credentials, and was answered."""

    mechanism: str


@dataclass(slots=True)
class RecipientAdded:
    """The provider is to judge the envelope's last recipient. Answer: `recipient_answered`."""

    message: Message


@dataclass(slots=True)
class ContentArrived:
    """A part of a message that is sent while it arrives. Answer: `content_sent`, or `finish`."""

    message: Message
    octets: bytes
    is_stuffed: bool  # as DATA carries it, without the end
    is_last: bool


@dataclass(slots=True)
class MessageComplete:
    """A message received whole. Answer: `finish`."""

    message: Message
    content: Content


@dataclass(slots=True)
class MessageRefused:
    """A message was refused because of its content; the client has its reply."""

    message: Message
    reply: Reply


Event = (
    Signal
    | LoginAttempt
    | LoginMalformed
    | RecipientAdded
    | ContentArrived
    | MessageComplete
    | MessageRefused
)
