"""Checks a message's sender against the rules of its login, in MAIL and in the header.

No I/O. What is not allowed is refused, or rewritten where the rules say to what. A message with a
signature is never changed, since a changed From would break it (RFC 6376 §5.4) or belie it
(RFC 8550 §3). Nothing but From, Sender and Reply-To is changed, and only in the header.

Sender must be allowed as well, since mail programs show it ("on behalf of"). The Resent- fields are
not looked at: they are informational (RFC 5322 §3.6.6).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from xoauth2_proxy import replies
from xoauth2_proxy.smtp.from_field import from_field, is_harmless_name, phrase
from xoauth2_proxy.smtp.header_fields import (
    END_OF_HEADER,
    Header,
    begins_with_field,
    stuffed,
    unstuffed,
)
from xoauth2_proxy.smtp.mailbox_list import Mailbox, NotMailboxes, parse_mailboxes

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.sender_rules import SenderRules
    from xoauth2_proxy.smtp.content import Collector
    from xoauth2_proxy.smtp.header_fields import Field
    from xoauth2_proxy.smtp.protocol import Envelope, Reply

MAX_HEADER_BYTES = 262_144
_MAX_LINE_BYTES = 998  # RFC 5322 §2.1.1
_SIGNATURES = ("DKIM-Signature", "ARC-Message-Signature")  # RFC 6376, RFC 8617
_SIGNED_TYPES = re.compile(
    rb"(multipart/signed|application/(?:x-)?pkcs7-mime)(?![!-:<-~])", re.IGNORECASE
)
_COMMENT_OR_SPACE = re.compile(rb"\([^()]*\)|[ \t]")
_ORIGINATORS = ("from", "sender")
_NAMES = (*_ORIGINATORS, "reply-to", "content-type", *map(str.lower, _SIGNATURES))


class SenderRefused(Exception):
    """The message must not go out."""

    def __init__(self, reply: Reply, sender: str = "", detail: str = "") -> None:
        super().__init__(str(reply))
        self.reply = reply  # tells the client why
        self.sender = sender  # that is not allowed; "": the header is wrong in another way
        self.detail = sender or detail  # for the operator


class SenderCheck:
    """The check of one transaction."""

    __slots__ = ("_has_fields", "_rules", "_searched", "is_settled", "refused")

    def __init__(self, rules: SenderRules, envelope: Envelope) -> None:
        """Check the sender in MAIL, and rewrite it in `envelope`. Raises `SenderRefused`.

        The null sender is always allowed: an MTA behind the relay reports failures with it. The
        header of such a message is checked like any other.
        """
        self._rules = rules
        self._searched = 0  # how many of the held octets contain no end of the header
        self._has_fields = False  # the first line is known to belong to a header
        self.is_settled = False  # the header was checked, and is as it may go out
        self.refused: SenderRefused | None = None
        rewrite = rules.from_rule.rewrite
        if envelope.reverse_path and not rules.allows(envelope.reverse_path):
            if not rewrite:
                fault = f"The sender {envelope.reverse_path} is not allowed"
                reply = replies.sender_refused(fault, rules.words)
                raise SenderRefused(reply, envelope.reverse_path)
            envelope.reverse_path = rewrite
        if not rewrite.isascii():  # it may come into the header
            envelope.smtputf8 = True

    def examine(self, collector: Collector, *, is_stuffed: bool, is_last: bool) -> bool:
        """Check the header as soon as it is complete, and change it where `collector` holds it.

        Return whether that is done. What is refused (`refused`) is dropped.
        """
        if self.is_settled:
            return True
        try:
            size = self._header_bytes(collector, is_stuffed=is_stuffed, is_last=is_last)
            if size is None:
                return False
            block = bytes(collector.held[:size])
            if is_stuffed:
                block = unstuffed(block)
            checked = checked_header(block, self._rules)
            if checked is not block:
                collector.replace_start(size, stuffed(checked) if is_stuffed else checked)
        except SenderRefused as refused:
            self.refused = refused
            collector.discard()
        self.is_settled = True
        return True

    def _header_bytes(self, collector: Collector, *, is_stuffed: bool, is_last: bool) -> int | None:
        """Return how many octets belong to the header; None: more must come first."""
        held = collector.held
        if held.startswith(b"\r\n"):
            return 0
        end = held.find(END_OF_HEADER, self._searched, MAX_HEADER_BYTES + len(END_OF_HEADER))
        self._searched = max(0, len(held) - len(END_OF_HEADER) + 1)
        size = end + 2 if end >= 0 else len(held)
        if size <= MAX_HEADER_BYTES and (end >= 0 or is_last):
            return size
        if not self._has_fields and (first := held.find(b"\n", 0, MAX_HEADER_BYTES) + 1):
            line = bytes(held[:first])
            if not begins_with_field(unstuffed(line) if is_stuffed else line):
                return first  # no header at all, however long the body is
            self._has_fields = True
        if len(held) > MAX_HEADER_BYTES:
            raise SenderRefused(replies.HEADER_TOO_LARGE)
        return None


def checked_header(block: bytes, rules: SenderRules) -> bytes:
    """Return the header as it may go out: `block` itself if nothing in it has to change.

    `block` is all that comes before the first empty line, or before the end.
    Raises `SenderRefused`.
    """
    header = Header(block, _NAMES)
    mailboxes, fault = _judged_from(header, rules)
    sender_fault = _sender_fault(header, rules)
    if len(mailboxes) > 1:  # which is only right with a Sender that is (RFC 5322 §3.6.2)
        fault = fault or sender_fault
    first_fault = _ambiguity(header, rules) or fault or sender_fault
    if first_fault is None:
        return header.octets if _set_name(header, mailboxes, rules) else block
    refused = first_fault.refused(header, rules)
    if refused is not None:
        if rules.allows_all:  # then nobody is to be refused
            return block
        raise refused
    if fault is not None:
        _rewrite_from(header, mailboxes, rules)
    else:
        _set_name(header, mailboxes, rules)
    if sender_fault is not None:
        header.remove(header.named("sender"))
    return header.octets


class _Fault(NamedTuple):
    """What is wrong with a header, in words that begin a reply."""

    words: str
    sender: str = ""  # that is not allowed
    can_be_mended: bool = True  # by other fields

    def refused(self, header: Header, rules: SenderRules) -> SenderRefused | None:
        """Return the refusal, unless other fields can be written in the place of the wrong ones."""
        words = self.words
        if rules.from_rule.rewrite and self.can_be_mended:
            signature = _signature(header)
            if not signature:
                return None
            words += f", and cannot be changed in a signed message ({signature})"
        reply = replies.sender_refused(words, rules.words)
        return SenderRefused(reply, self.sender, words[0].lower() + words[1:])


def _judged_from(header: Header, rules: SenderRules) -> tuple[list[Mailbox], _Fault | None]:
    """Return the mailboxes of From as far as it has any, and what is wrong with it."""
    mailboxes, fault = _mailboxes("From", header.named("from"))
    for mailbox in mailboxes:
        if not rules.allows(mailbox.address):
            return mailboxes, _Fault(f"{mailbox.address} in From is not allowed", mailbox.address)
    if len(mailboxes) > 1 and not header.named("sender"):  # RFC 5322 §3.6.2
        fault = _Fault("From has several addresses, and there is no Sender field")
    return mailboxes, fault


def _sender_fault(header: Header, rules: SenderRules) -> _Fault | None:
    fields = header.named("sender")
    if not fields:
        return None
    mailboxes, fault = _mailboxes("Sender", fields)
    if len(mailboxes) > 1:
        return _Fault("The Sender field has several addresses")
    for mailbox in mailboxes:
        if not rules.allows(mailbox.address):
            return _Fault(f"{mailbox.address} in Sender is not allowed", mailbox.address)
    return fault


def _mailboxes(name: str, fields: list[Field]) -> tuple[list[Mailbox], _Fault | None]:
    """Return the mailboxes of what should be one field, and why it has none."""
    if len(fields) != 1:
        return [], _Fault(
            f"The message has {f'several {name} fields' if fields else f'no {name} field'}"
        )
    try:
        mailboxes = parse_mailboxes(fields[0].value)
    except NotMailboxes as error:
        return [], _Fault(f"The {name} field {error}")
    return mailboxes, None if mailboxes else _Fault(f"The {name} field has no address")


def _ambiguity(header: Header, rules: SenderRules) -> _Fault | None:
    """Return why other readers may find another sender in this header, which no edit can mend.

    A text without a header is parted by an empty line from the one that it gets.
    """
    if rules.allows_all or not header.has_fields:
        return None
    if header.has_in_remainder(_ORIGINATORS):
        words = "A From or Sender field follows a line that is no header field"
    elif header.has_disguised(_ORIGINATORS):
        words = "A field is named From or Sender, with characters beyond ASCII around it"
    else:
        return None
    return _Fault(words, can_be_mended=False)


def _signature(header: Header) -> str:
    """Return what shows that the message is signed, or ""."""
    for name in _SIGNATURES:
        if header.named(name.lower()):
            return name
    for field in header.named("content-type"):
        if found := _SIGNED_TYPES.match(_COMMENT_OR_SPACE.sub(b"", field.value)):
            return found[1].decode().lower()
    return ""


def _set_name(header: Header, mailboxes: list[Mailbox], rules: SenderRules) -> bool:
    """Write the name that the rules give beside a lone address, unless the message is signed."""
    name = rules.from_rule.display_name
    if not name or len(mailboxes) != 1 or _signature(header):
        return False
    (field,) = header.named("from")
    header.replace(field, from_field(phrase(name), mailboxes[0].address))
    return True


def _rewrite_from(header: Header, mailboxes: list[Mailbox], rules: SenderRules) -> None:
    rule = rules.from_rule
    name = phrase(rule.display_name)
    if not name and len(mailboxes) == 1 and is_harmless_name(mailboxes[0].name):
        name = mailboxes[0].name
    octets = from_field(name, rule.rewrite)
    former = header.named("from")
    if former:
        new = header.replace(former[0], octets)
        header.remove(former[1:])
    else:
        new = header.insert("from", octets)
    if rule.reply_to and mailboxes and not header.named("reply-to"):
        header.insert("reply-to", _reply_to(former[0]), after=new)


def _reply_to(former: Field) -> bytes:
    """Return the former From field as Reply-To, folded as it was."""
    value = former.raw_value
    is_long = len(b"Reply-To:") + len(value.partition(b"\r\n")[0]) > _MAX_LINE_BYTES
    return b"Reply-To:" + (b"\r\n " if is_long else b"") + value + b"\r\n"
