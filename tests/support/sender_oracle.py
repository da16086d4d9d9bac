"""What must hold of a header that went through the check of its sender, by readers of its own."""

from __future__ import annotations

import email
import re
from email import policy
from email.headerregistry import Address, AddressHeader, SingleAddressHeader
from typing import TYPE_CHECKING

from xoauth2_proxy.submission.sender_check import SenderRefused, checked_header

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.sender_rules import SenderRules

_FROM = re.compile(rb"(?im)^(?:\xef\xbb\xbf)?from[ \t]*:")


def checked_or_none(block: bytes, rules: SenderRules) -> bytes | None:
    """Return the header as it may go out; None: it is refused."""
    try:
        return checked_header(block, rules)
    except SenderRefused:
        return None


def others(block: bytes) -> bytes:
    """Return the header without the three fields that may change, split line by line."""
    kept: list[bytes] = []
    is_changeable = False
    for line in block.splitlines(keepends=True) if b"\r" in block else [block]:
        if line[:1] not in (b" ", b"\t") or not (kept or is_changeable):
            name = line.partition(b":")[0].strip().lower().removeprefix(b"\xef\xbb\xbf")
            is_changeable = b":" in line and name in (b"from", b"sender", b"reply-to")
        if not is_changeable:
            kept.append(line)
    return b"".join(kept)


def assert_only_three_fields_changed(block: bytes, checked: bytes) -> None:
    header, separator, text = checked.partition(b"\r\n\r\n")
    if separator:  # a text without a header was parted from the new one
        assert block.endswith(text)
        assert others(header + b"\r\n") + text == block
    else:
        assert others(checked) == others(block)


def assert_passes_as_it_is(checked: bytes, rules: SenderRules) -> None:
    header = checked.partition(b"\r\n\r\n")[0].removesuffix(b"\r\n") + b"\r\n"
    assert checked_header(header, rules) == header


def assert_no_reader_finds_another(checked: bytes, allowed: re.Pattern[str]) -> None:
    """Python's parser is the other reader; it stops at lines that it does not take for fields."""
    message = checked.removesuffix(b"\r\n") + b"\r\n\r\nFrom: body@z\r\n"
    for name in ("from", "sender"):
        addresses = read_by_python(message, name)
        assert [one for one in addresses if one != "<>" and not allowed.fullmatch(one)] == []
    assert len(_FROM.findall(checked.partition(b"\r\n\r\n")[0])) == 1


def read_by_python(message: bytes, name: str) -> list[str]:
    """Return the addresses that Python's parser finds in the one field of this name."""
    parsed = email.message_from_bytes(message, policy=policy.default)
    try:
        fields = parsed.get_all(name, [])
    except (AttributeError, TypeError):  # faults of its own, as with a name of one dot
        return []
    assert len(fields) <= 1
    return [one.addr_spec for field in fields for one in _addresses(field)]


def _addresses(field: object) -> tuple[Address, ...]:
    if isinstance(field, SingleAddressHeader):
        return (field.address,)
    assert isinstance(field, AddressHeader)
    return field.addresses
