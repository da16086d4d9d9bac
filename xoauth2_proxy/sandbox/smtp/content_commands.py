"""DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030): the content, and the reply at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.faults import Step
from xoauth2_proxy.sandbox.message_store import Message
from xoauth2_proxy.sandbox.smtp.fault_injection import run_step
from xoauth2_proxy.sandbox.smtp.session_state import BdatChunk, Input

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.smtp.session_state import SessionState, Transaction

_MAX_CHUNK_BYTES = 1 << 31  # the octets of a larger one are not read

_TOO_LARGE = "552 5.3.4 Message exceeds the fixed maximum size"


def data(session: SessionState, argument: str) -> str:
    """DATA: ask for the content."""
    transaction = session.transaction
    if argument:
        return "501 5.5.4 DATA takes no argument"
    refusal = _envelope_refusal(transaction)
    if transaction is None or refusal:
        return refusal
    if transaction.via == "BDAT":
        return "503 5.5.1 DATA and BDAT may not be used in one transaction"
    if transaction.is_binary:
        return "503 5.5.1 BINARYMIME needs BDAT"
    if refusal := _limit_refusal(session, transaction):
        return refusal
    transaction.via = "DATA"
    session.input = Input.DATA
    return "354 Go ahead"


def bdat(session: SessionState, argument: str) -> str:
    """BDAT: read a chunk, even one that will be refused: its octets follow at once."""
    if "CHUNKING" not in session.provider.extensions:
        return "502 5.5.1 Command not implemented"
    size, _, last = argument.upper().partition(" ")
    if not (size.isascii() and size.isdigit()) or len(size) > 18 or last not in ("", "LAST"):
        session.close()  # it is unknown where the next command starts
        return "501 5.5.4 Usage: BDAT size [LAST]"
    if int(size) > _MAX_CHUNK_BYTES:
        session.close()
        return _TOO_LARGE
    transaction = session.transaction
    chunk = BdatChunk(int(size), is_last=bool(last), refusal=_chunk_refusal(session))
    if transaction is not None and not chunk.refusal:
        transaction.via = "BDAT"
    run_step(session, Step.BDAT, argument, lambda session, _: "")
    session.chunk = chunk
    if session.input is Input.LINE:  # unless a fault has ended the session
        session.input = Input.CHUNK
    return ""


def end_chunk(session: SessionState, _: str) -> str:
    """Reply to a chunk whose octets are all there."""
    chunk, transaction = session.chunk, session.transaction
    if session.is_answered:
        session.is_answered = False
        return _refuse_chunk(session, "")
    if chunk.refusal:
        return _refuse_chunk(session, chunk.refusal)
    if chunk.is_last:
        run_step(session, Step.END, "", finish)
        return ""
    if transaction is not None and transaction.receiver.is_too_large:
        session.why = session.provider.behaviour.describe_limit("max_message_bytes")
        return _refuse_chunk(session, _TOO_LARGE)
    return f"250 2.0.0 OK {chunk.size_bytes} octets"


def end_data(session: SessionState, _: str) -> str:
    """Reply to the end of DATA, unless a fault has replied already."""
    if session.is_answered:
        session.is_answered = False
        session.end_transaction(is_refused=True)
    else:
        run_step(session, Step.END, "", finish)
    return ""


def finish(session: SessionState, _: str) -> str:
    """The content is complete: store the message, or refuse it."""
    transaction, provider = session.transaction, session.provider
    if transaction is None:
        return ""
    if refusal := _message_refusal(session, transaction):
        session.end_transaction(is_refused=True)
        return refusal
    envelope, receiver = transaction.envelope, transaction.receiver
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
    session.end_transaction()
    seconds = 0.0
    if provider.limits is not None:
        seconds = provider.limits.accept_message(session.mailbox, len(message.forward_paths))
    if provider.accept_delays is not None:
        seconds = max(seconds, provider.accept_delays.next())
    session.say_late(b"250 2.0.0 OK %s\r\n" % message.id.encode(), seconds)
    return ""


def _refuse_chunk(session: SessionState, refusal: str) -> str:
    """Return the refusal of a chunk, after which the transaction is refused (RFC 3030 §2)."""
    transaction = session.transaction
    if transaction is not None and not transaction.is_failed:
        transaction.is_failed = True
        session.provider.counters.transactions_refused += 1
    if session.chunk.is_last:
        session.end_transaction()
    return refusal


def _envelope_refusal(transaction: Transaction | None) -> str:
    if transaction is None:
        return "503 5.5.1 MAIL first"
    if transaction.envelope.forward_paths:
        return ""
    return (
        "554 5.5.1 No valid recipients" if transaction.recipients_tried else "503 5.5.1 RCPT first"
    )


def _chunk_refusal(session: SessionState) -> str:
    transaction = session.transaction
    if transaction is not None and transaction.is_failed:
        return "503 5.5.1 An earlier chunk was refused"
    refusal = _envelope_refusal(transaction)
    if transaction is None or refusal or transaction.via:
        return refusal
    return _limit_refusal(session, transaction)


def _limit_refusal(session: SessionState, transaction: Transaction) -> str:
    """Return the refusal of a message whose content would exceed a limit; "": none."""
    limits, count = session.provider.limits, len(transaction.envelope.forward_paths)
    if limits is None:
        return ""
    refusal = limits.refuse_content(session.mailbox, session, count)
    session.why = limits.met if refusal else ""
    return refusal


def _message_refusal(session: SessionState, transaction: Transaction) -> str:
    provider, receiver = session.provider, transaction.receiver
    if receiver.is_too_large:
        session.why = provider.behaviour.describe_limit("max_message_bytes")
        return _TOO_LARGE
    if receiver.has_bare_line_ends and not transaction.is_binary:
        session.why = "the content has line ends that are not CRLF"
        return "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal"
    if provider.limits is None:
        return ""
    count = len(transaction.envelope.forward_paths)
    refusal = provider.limits.refuse_message(session.mailbox, session, count)
    session.why = provider.limits.met if refusal else ""
    return refusal
