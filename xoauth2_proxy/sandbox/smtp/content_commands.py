"""The transaction: envelope, content, and the reply that takes it over or refuses it.

DATA is RFC 5321 §4.1.1.4, BDAT is RFC 3030.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.dialects import spoken
from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.message_store import Message
from xoauth2_proxy.sandbox.smtp.content_receiver import ContentReceiver, DataDecoder
from xoauth2_proxy.smtp.protocol import Envelope, reply

if TYPE_CHECKING:
    from typing import Literal

    from xoauth2_proxy.sandbox.smtp.session import Session

_MAX_CHUNK_BYTES = 1 << 31  # a larger one is not read to its end

_GO_ON = reply(354, "", "Go ahead").encode()
_NEED_MAIL = reply(503, "5.1", "MAIL first").encode()
_NEED_RCPT = reply(503, "5.1", "RCPT first").encode()
_NO_RECIPIENTS = reply(554, "5.1", "No valid recipients").encode()
_MIXED = reply(503, "5.1", "DATA and BDAT may not be used in one transaction").encode()
_CHUNK_FAILED = reply(503, "5.1", "An earlier chunk was refused").encode()
_BINARY_NEEDS_BDAT = reply(503, "5.1", "BINARYMIME needs BDAT").encode()
_NO_ARGUMENT = reply(501, "5.4", "DATA takes no argument").encode()
_BAD_BDAT = reply(501, "5.4", "Usage: BDAT size [LAST]").encode()
_TOO_LARGE = reply(552, "3.4", "Message exceeds the fixed maximum size").encode()
# In Exchange Online's words.
_BARE_LINE_ENDS = reply(550, "6.11", "SMTPSEND.BareLinefeedsAreIllegal").encode()
_NOT_IMPLEMENTED = reply(502, "5.1", "Command not implemented").encode()


class Transaction:
    """One transaction under way."""

    __slots__ = (
        "envelope",
        "has_content",
        "is_binary",
        "is_failed",
        "reader",
        "receiver",
        "recipients_tried",
        "via",
    )

    def __init__(self, envelope: Envelope, receiver: ContentReceiver) -> None:
        self.envelope = envelope
        self.receiver = receiver
        self.reader = DataDecoder(receiver)
        self.recipients_tried = 0
        self.via: Literal["", "DATA", "BDAT"] = ""
        self.has_content = False
        self.is_binary = False  # BODY=BINARYMIME was declared (RFC 3030 §3)
        self.is_failed = False  # a chunk was refused: nothing but RSET helps (RFC 3030 §2)

    def discard(self) -> None:
        """Let go of the content."""
        self.receiver.discard()


@dataclass(slots=True)
class BdatChunk:
    """One BDAT command's octets."""

    left_bytes: int  # not read so far
    is_last: bool = field(kw_only=True)
    refusal: bytes = field(kw_only=True)  # b"": the octets are wanted
    size_bytes: int = 0

    def __post_init__(self) -> None:
        self.size_bytes = self.left_bytes


def data(session: Session, argument: str) -> None:
    """DATA: ask for the content."""
    transaction = session.transaction
    refusal = _refusal(transaction)
    if argument:
        session.say(_NO_ARGUMENT)
    elif refusal or transaction is None:
        session.say(refusal)
    elif transaction.via == "BDAT":
        session.say(_MIXED)
    elif transaction.is_binary:
        session.say(_BINARY_NEEDS_BDAT)
    elif session.provider.limits is not None and (refusal := _limit(session, transaction)):
        session.say(refusal)
    else:
        transaction.via = "DATA"
        session.say(_GO_ON)
        session.read_data()


def bdat(session: Session, argument: str) -> None:
    """BDAT: take a chunk, even one that will be refused, for its octets follow at once."""
    if "CHUNKING" not in session.provider.extensions:
        session.say(_NOT_IMPLEMENTED)
        return
    size, _, last = argument.upper().partition(" ")
    if not (size.isascii() and size.isdigit()) or len(size) > 18 or last not in ("", "LAST"):
        session.say(_BAD_BDAT)
        session.close()  # where the next command starts cannot be known
        return
    if int(size) > _MAX_CHUNK_BYTES:
        session.say(_TOO_LARGE)
        session.close()
        return
    transaction = session.transaction
    chunk = BdatChunk(int(size), is_last=bool(last), refusal=_chunk_refusal(session))
    if transaction is not None and not chunk.refusal:
        transaction.via = "BDAT"
    session.step(Step.BDAT, argument, lambda session, _: None)
    session.read_chunk(chunk)


def take_chunk(session: Session) -> None:
    """Answer a chunk that is not the last."""
    transaction = session.transaction
    if transaction is not None and transaction.receiver.is_too_large:
        session.why = session.provider.behaviour.told_limit("max_message_bytes")
        fail_chunk(session, _TOO_LARGE)
    else:
        session.say(b"250 2.0.0 OK %d octets\r\n" % session.chunk.size_bytes)


def fail_chunk(session: Session, refusal: bytes) -> None:
    """Answer a refused chunk; after it no other of the transaction is taken (RFC 3030 §2).

    b"" is the refusal of one that had its reply before.
    """
    if refusal:
        session.say(refusal)
    transaction = session.transaction
    if transaction is not None and not transaction.is_failed:
        transaction.is_failed = True
        session.provider.counters.transactions_refused += 1
    if session.chunk.is_last:
        session.end_transaction()


def finish(session: Session, _: str) -> None:
    """The content is whole: keep the message, or say why not."""
    transaction = session.transaction
    if transaction is None:
        return
    receiver, envelope, provider = transaction.receiver, transaction.envelope, session.provider
    refusal = b""
    if receiver.is_too_large:
        session.why = provider.behaviour.told_limit("max_message_bytes")
        refusal = _TOO_LARGE
    elif receiver.has_bare_line_ends and not transaction.is_binary:
        session.why = "the content has line ends that are not CRLF"
        refusal = _BARE_LINE_ENDS
    elif provider.limits is not None:
        count = len(envelope.forward_paths)
        refusal = spoken(provider.limits.refuse_message(session.mailbox, session, count))
        session.why = provider.limits.met if refusal else ""
    if refusal:
        session.say(refusal)
        refuse(session)
        return
    message = Message(
        session.mailbox,
        envelope.reverse_path,
        tuple(envelope.forward_paths),
        receiver.size_bytes,
        receiver.sha256,
        "BDAT" if transaction.via == "BDAT" else "DATA",
        receiver.take_content(),
    )
    provider.received.add(message)
    provider.counters.transactions_accepted += 1
    mark = len(session.replies)
    session.say(b"250 2.0.0 OK %s\r\n" % message.id.encode())
    session.end_transaction()
    if provider.limits is not None or provider.accept_delays is not None:
        _delay(session, mark, len(message.forward_paths))


def refuse(session: Session) -> None:
    """The transaction ends without a message; its reply has been given."""
    session.provider.counters.transactions_refused += 1
    session.end_transaction()


def _refusal(transaction: Transaction | None) -> bytes:
    if transaction is None:
        return _NEED_MAIL
    if transaction.envelope.forward_paths:
        return b""
    return _NO_RECIPIENTS if transaction.recipients_tried else _NEED_RCPT


def _chunk_refusal(session: Session) -> bytes:
    transaction = session.transaction
    if transaction is not None and transaction.is_failed:
        return _CHUNK_FAILED
    refusal = _refusal(transaction)
    if transaction is None or refusal or session.provider.limits is None or transaction.via:
        return refusal
    return _limit(session, transaction)


def _limit(session: Session, transaction: Transaction) -> bytes:
    """Return the refusal of a message before its content, for the sake of a limit."""
    limits, count = session.provider.limits, len(transaction.envelope.forward_paths)
    refusal = spoken(limits.refuse_content(session.mailbox, session, count)) if limits else b""
    session.why = limits.met if limits and refusal else ""
    return refusal


def _delay(session: Session, mark: int, recipients: int) -> None:
    """Let the reply to an accepted message wait for its time."""
    provider = session.provider
    seconds = 0.0
    if provider.limits is not None:
        seconds = provider.limits.accept_message(session.mailbox, recipients)
    if provider.accept_delays is not None:
        seconds = max(seconds, provider.accept_delays.next())
    if seconds > 0.0:
        session.hold(mark, seconds)
