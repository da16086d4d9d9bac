"""Checks the order and arguments of MAIL, RCPT, DATA and BDAT, and builds the envelope.

No I/O. RFC 5321 §3.3, §4.1.4; RFC 1870, 3030, 4954 §5, 6152, 6531.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from xoauth2_proxy.submission.sender_check import SenderCheck

_CHUNK = re.compile(r"(\d{1,12})(?:[ \t]+(LAST))?", re.IGNORECASE | re.ASCII)
# RFC 3461 §4: xtext is printable ASCII without "+" and "=", or "+" and two hexadecimal digits.
_XTEXT = r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})"
_ONE_EVENT = "(?:SUCCESS|FAILURE|DELAY)"


def _values(**patterns: str) -> dict[str, re.Pattern[str]]:
    return {
        keyword: re.compile(pattern, re.IGNORECASE | re.ASCII)
        for keyword, pattern in patterns.items()
    }


# What the value of each parameter must look like.
_OF_MAIL = _values(
    SIZE=r"\d{1,20}",
    BODY="7BIT|8BITMIME",
    SMTPUTF8="",
    AUTH=".*",  # accepted and dropped (RFC 4954 §5)
    RET="FULL|HDRS",
    ENVID=rf"(?-i:{_XTEXT}){{1,100}}",
)
_OF_RCPT = _values(
    NOTIFY=rf"NEVER|{_ONE_EVENT}(?:,{_ONE_EVENT}){{0,2}}",
    ORCPT=rf"[A-Z0-9-]{{1,60}};(?-i:{_XTEXT}){{1,500}}",
)


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

    def __init__(
        self, max_message_bytes: int, max_recipients: int, *, is_strict: bool = False
    ) -> None:
        """`is_strict`: take no path without brackets, and no content with a bare CR or LF."""
        self.envelope: Envelope  # once MAIL was accepted
        self.has_begun = False  # MAIL was accepted
        self.check: SenderCheck | None = None  # None: the sender is not checked
        self._max_message_bytes = max_message_bytes
        self._max_recipients = max_recipients
        self._is_strict = is_strict
        self._has_refused_recipients = False
        self._chunks: Collector | None = None
        self._has_failed = False  # a chunk was refused, and with it the transaction

    def new_collector(self) -> Collector:
        """Return a collector for the content."""
        return Collector(self._max_message_bytes, is_strict=self._is_strict)

    def limit(self, max_message_bytes: int) -> Reply | None:
        """Take no more than this; return the refusal of a transaction that declared more."""
        self._max_message_bytes = min(self._max_message_bytes, max_message_bytes)
        is_too_large = self.has_begun and self.envelope.size_bytes > max_message_bytes
        return replies.TOO_LARGE if is_too_large else None

    def mail(self, argument: str) -> Reply:
        """Return the reply to MAIL, and begin the transaction if it is accepted."""
        if self.has_begun:
            return replies.BAD_SEQUENCE
        parsed = self._parsed(argument, "FROM:", _OF_MAIL, replies.SENDER_MALFORMED)
        if isinstance(parsed, Reply):
            return parsed
        reverse_path, parameters = parsed
        envelope = Envelope(reverse_path)
        if parameters:
            envelope.size_bytes = int(parameters.get("SIZE", 0))
            envelope.body_8bit = parameters.get("BODY", "").upper() == "8BITMIME"
            envelope.smtputf8 = "SMTPUTF8" in parameters
            envelope.ret = parameters.get("RET", "").upper()
            envelope.envid = parameters.get("ENVID", "")
        if envelope.size_bytes > self._max_message_bytes:
            return replies.TOO_LARGE
        if not (reverse_path.isascii() or envelope.smtputf8):
            return replies.NEEDS_SMTPUTF8
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
    def has_chunks(self) -> bool:
        """Whether a BDAT chunk was accepted."""
        return self._chunks is not None

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
        if self.has_begun and self.envelope.forward_paths:
            return None
        return replies.NO_VALID_RECIPIENTS if self._has_refused_recipients else replies.BAD_SEQUENCE

    def _rcpt_refusal(self, argument: str) -> Reply | None:
        parsed = self._parsed(argument, "TO:", _OF_RCPT, replies.RECIPIENT_MALFORMED)
        if isinstance(parsed, Reply):
            return parsed
        forward_path, parameters = parsed
        envelope = self.envelope
        if not forward_path:
            return replies.RECIPIENT_MALFORMED
        if not (forward_path.isascii() or envelope.smtputf8):
            return replies.NEEDS_SMTPUTF8
        if len(envelope.forward_paths) >= self._max_recipients:
            return replies.TOO_MANY_RECIPIENTS
        if parameters:
            envelope.notifications[len(envelope.forward_paths)] = "".join(
                f" {keyword}={value}" for keyword, value in parameters.items()
            )
        envelope.forward_paths.append(forward_path)
        return None

    def _parsed(
        self, argument: str, keyword: str, values: dict[str, re.Pattern[str]], malformed: Reply
    ) -> tuple[str, dict[str, str]] | Reply:
        """Return the path and the parameters after it, or the reply that refuses them."""
        try:
            path, rest = parse_path(argument, keyword, needs_brackets=self._is_strict)
            parameters = parse_parameters(rest)
        except BadPath:
            return malformed
        except BadParameter:
            return replies.ARGUMENT_MALFORMED
        if not values.keys() >= parameters.keys():
            return replies.PARAMETER_UNKNOWN
        for name, value in parameters.items():
            if not values[name].fullmatch(value):
                return replies.ARGUMENT_MALFORMED
        return path, parameters
