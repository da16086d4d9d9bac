"""Checks the order and arguments of MAIL, RCPT, DATA and BDAT, and builds the envelope.

No I/O. RFC 5321 §3.3, §4.1.4; RFC 1870, 3030, 4954 §5, 6152, 6531.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from xoauth2_proxy import replies
from xoauth2_proxy.smtp.content import Collector
from xoauth2_proxy.smtp.protocol import (
    BadParameter,
    BadPath,
    Envelope,
    Reply,
    parse_parameters,
    parse_path,
)

_CHUNK = re.compile(r"(\d{1,12})(?: +(LAST))?", re.IGNORECASE | re.ASCII)
_MAIL_KEYWORDS = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID"})
_RCPT_KEYWORDS = frozenset({"NOTIFY", "ORCPT"})
# RFC 3461 §4: xtext is printable ASCII without "+" and "=", or "+" and two hexadecimal digits.
_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_ENVID = re.compile(rf"{_XTEXT}{{1,100}}")
_ORCPT = re.compile(rf"[A-Za-z0-9-]{{1,60}};{_XTEXT}{{1,500}}")
_NOTIFY = re.compile(r"NEVER|(?:SUCCESS|FAILURE|DELAY)(?:,(?:SUCCESS|FAILURE|DELAY)){0,2}")


class BadChunk(ValueError):
    """The argument of BDAT is malformed, so the start of the next command is unknown."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The arguments of one BDAT command (RFC 3030 §2)."""

    size_bytes: int
    is_last: bool


def parse_chunk(argument: str) -> Chunk:
    """Return the chunk that BDAT announces. Raises `BadChunk`."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise BadChunk(argument)
    return Chunk(int(match[1]), match[2] is not None)


class ClientTransaction:
    """A session's current transaction, or the one it may begin."""

    def __init__(self, max_message_bytes: int, max_recipients: int) -> None:
        self.envelope = Envelope()
        self.has_begun = False  # MAIL was accepted
        self._max_message_bytes = max_message_bytes
        self._max_recipients = max_recipients
        self._has_refused_recipients = False
        self._chunks: Collector | None = None
        self._has_failed = False  # a chunk was refused, and with it the transaction

    def new_collector(self) -> Collector:
        """Return a collector for the content."""
        return Collector(self._max_message_bytes)

    def mail(self, argument: str) -> Reply:
        """Return the reply to MAIL, and begin the transaction if it is accepted."""
        if self.has_begun:
            return replies.BAD_SEQUENCE
        parsed = _parsed(argument, "FROM:", replies.SENDER_MALFORMED)
        if isinstance(parsed, Reply):
            return parsed
        reverse_path, parameters = parsed
        envelope = Envelope(reverse_path)
        refusal = self._apply(envelope, parameters)
        if refusal is None and not (reverse_path.isascii() or envelope.smtputf8):
            refusal = replies.SENDER_MALFORMED
        if refusal is not None:
            return refusal
        self.envelope = envelope
        self.has_begun = True
        return replies.SENDER_OK

    def rcpt(self, argument: str) -> Reply:
        """Return the reply to RCPT, and add the recipient if it is accepted."""
        if not self.has_begun or self._chunks is not None or self._has_failed:
            return replies.BAD_SEQUENCE
        refusal = self._rcpt_refusal(argument)
        self._has_refused_recipients = self._has_refused_recipients or refusal is not None
        return refusal or replies.RECIPIENT_OK

    def remove_last_recipient(self) -> None:
        """Remove the last recipient, which the provider refused."""
        self.envelope.forward_paths.pop()
        self.envelope.notifications.pop(len(self.envelope.forward_paths), None)
        self._has_refused_recipients = True

    def data_refusal(self) -> Reply | None:
        """Return the reply that refuses DATA, or None."""
        if self._chunks is not None or self._has_failed:
            return replies.BAD_SEQUENCE
        return self._content_refusal()

    def chunk_refusal(self) -> Reply | None:
        """Return the reply that refuses a BDAT chunk, or None."""
        return replies.BAD_SEQUENCE if self._has_failed else self._content_refusal()

    @property
    def chunks(self) -> Collector:
        """The collector of BDAT chunks."""
        if self._chunks is None:
            self._chunks = self.new_collector()
        return self._chunks

    def fail(self) -> None:
        """Record that a chunk was refused (RFC 3030 §2: only RSET is accepted next)."""
        self._has_failed = self.has_begun

    def _content_refusal(self) -> Reply | None:
        if self.envelope.forward_paths:
            return None
        return replies.NO_VALID_RECIPIENTS if self._has_refused_recipients else replies.BAD_SEQUENCE

    def _rcpt_refusal(self, argument: str) -> Reply | None:
        parsed = _parsed(argument, "TO:", replies.RECIPIENT_MALFORMED)
        if isinstance(parsed, Reply):
            return parsed
        forward_path, parameters = parsed
        if not forward_path or not (forward_path.isascii() or self.envelope.smtputf8):
            return replies.RECIPIENT_MALFORMED
        if not _RCPT_KEYWORDS.issuperset(parameters):
            return replies.PARAMETER_UNKNOWN
        if not _are_notifications(parameters):
            return replies.ARGUMENT_MALFORMED
        if len(self.envelope.forward_paths) >= self._max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        if parameters:
            self.envelope.notifications[len(self.envelope.forward_paths)] = "".join(
                f" {keyword}={value}" for keyword, value in parameters.items()
            )
        self.envelope.forward_paths.append(forward_path)
        return None

    def _apply(self, envelope: Envelope, parameters: dict[str, str]) -> Reply | None:
        """Apply the parameters of MAIL; AUTH= is accepted and dropped (RFC 4954 §5)."""
        if not _MAIL_KEYWORDS.issuperset(parameters):
            return replies.PARAMETER_UNKNOWN
        size, body = parameters.get("SIZE", "0"), parameters.get("BODY", "7BIT").upper()
        if not (size.isascii() and size.isdigit() and len(size) <= 20):
            return replies.ARGUMENT_MALFORMED
        if body not in {"7BIT", "8BITMIME"} or parameters.get("SMTPUTF8"):
            return replies.ARGUMENT_MALFORMED
        ret, envid = parameters.get("RET", "").upper(), parameters.get("ENVID", "")
        if ("RET" in parameters and ret not in {"FULL", "HDRS"}) or (
            "ENVID" in parameters and not _ENVID.fullmatch(envid)
        ):
            return replies.ARGUMENT_MALFORMED
        envelope.ret, envelope.envid = ret, envid
        envelope.size_bytes = int(size)
        envelope.body_8bit = body == "8BITMIME"
        envelope.smtputf8 = "SMTPUTF8" in parameters
        return replies.TOO_LARGE if envelope.size_bytes > self._max_message_bytes else None


def _parsed(argument: str, keyword: str, malformed: Reply) -> tuple[str, dict[str, str]] | Reply:
    """Return the path and the parameters after it, or the reply that refuses them."""
    try:
        path, rest = parse_path(argument, keyword)
        return path, parse_parameters(rest)
    except BadPath:
        return malformed
    except BadParameter:
        return replies.ARGUMENT_MALFORMED


def _are_notifications(parameters: dict[str, str]) -> bool:
    """Whether NOTIFY and ORCPT are valid by RFC 3461 §4.1 and §4.2."""
    notify, orcpt = parameters.get("NOTIFY"), parameters.get("ORCPT")
    return (notify is None or _NOTIFY.fullmatch(notify.upper()) is not None) and (
        orcpt is None or _ORCPT.fullmatch(orcpt) is not None
    )
