"""Finds fields in a message's header, and edits single ones; every other octet stays.

No I/O. RFC 5322 §2.2 (fields, folding), §4.5 (white space before the colon). A header may have tens
of thousands of fields: only those that are asked for become objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

END_OF_HEADER = b"\r\n\r\n"
# Octets above 0x7E are in no name (RFC 5322 §2.2), but mail programs read such lines as fields.
_NAME = rb"[!-9;-~\x80-\xff]+[ \t]*:"
# The rest of a field: up to the next line that does not begin with white space.
_REST = rb"[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z)"
_FIELD = re.compile(_NAME)
_NO_FIELD = re.compile(rb"^(?![ \t]|%b)" % _NAME, re.MULTILINE)
# The separator of messages in mailbox files (RFC 4155), which some programs send along.
_SEPARATOR = re.compile(rb">?From [^\n]*(?:\n|\Z)")
_ON_TOP = re.compile(rb"(?:(?:received|return-path)[ \t]*:%b)*" % _REST, re.IGNORECASE)  # §3.6.7
_BOM = rb"(?:\xef\xbb\xbf)?"  # before a text that a script has read from a file; no part of a name
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_INVISIBLE = re.compile(rb"[^!-~\n]+")
_DOT_LINE = re.compile(rb"(?:\A|(?<=\r\n))\.")


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a header that was asked for, or whatever stands between two of them."""

    name: str  # in lower case; "": what was not asked for
    octets: bytes  # as received: with its name, its folding and its line end

    @property
    def raw_value(self) -> bytes:
        """What stands behind the colon, folded as received, without the last line end."""
        return self.octets.partition(b":")[2].removesuffix(b"\r\n")

    @property
    def value(self) -> bytes:
        """What stands behind the colon, unfolded (RFC 5322 §2.2.3)."""
        return _FOLD.sub(b"", self.raw_value).strip(b" \t")


class Header:
    """The fields of a header, in order, and what stands behind them before the first empty line.

    `remainder` is empty in a message as RFC 5322 has it. Otherwise it begins with a line that is no
    field, where most readers see the beginning of the body, and some go on reading fields.
    """

    __slots__ = ("_parts", "_top", "has_fields", "remainder")

    def __init__(self, block: bytes, names: tuple[str, ...]) -> None:
        """`block` is all that comes before the first empty line, or before the end.

        `names`, in lower case, are those of the fields to find; no trace fields among them.
        """
        separator = None if _FIELD.match(block) else _SEPARATOR.match(block)
        begin = end = 0 if separator is None else separator.end()
        if block[begin : begin + 1] not in (b" ", b"\t"):
            no_field = _NO_FIELD.search(block, begin)
            end = len(block) if no_field is None else no_field.start()
        self.has_fields = end > begin  # the separator of a mailbox file is none
        self.remainder = block[end:]
        top = _ON_TOP.match(block, begin, end)
        at = begin if top is None else top.end()
        self._parts = [Field("", block[:at])]
        self._top = self._parts[0]  # the separator and trace fields
        for one in _fields(names).finditer(block, at, end):
            if one.start() > at:
                self._parts.append(Field("", block[at : one.start()]))
            self._parts.append(Field(one[1].lower().decode(), one[0]))
            at = one.end()
        self._parts.append(Field("", block[at:end]))

    @property
    def octets(self) -> bytes:
        """The header as it is now."""
        return b"".join([*(part.octets for part in self._parts), self.remainder])

    def named(self, name: str) -> list[Field]:
        """Return the fields of this name, one of those that were asked for."""
        return [part for part in self._parts if part.name == name]

    def has_in_remainder(self, names: Collection[str]) -> bool:
        """Whether a reader that skips lines which are no fields would find one of these names.

        The most lenient one would ignore all that cannot be seen, as NUL and white space.
        """
        lines = b"\n" + _INVISIBLE.sub(b"", self.remainder).lower()
        return any(b"\n%b:" % name.encode() in lines for name in names)

    def has_disguised(self, names: tuple[str, ...]) -> bool:
        """Whether a field has one of these names but for octets beyond ASCII around it.

        A no-break space is one; readers that take it for white space drop it.
        """
        fields = b"".join(part.octets for part in self._parts if not part.name)
        return not fields.isascii() and _disguised(names).search(fields) is not None

    def replace(self, field: Field, octets: bytes) -> Field:
        """Put other octets, which end with CRLF, in the place of a field; return the new one."""
        new = self._parts[self._parts.index(field)] = Field(field.name, octets)
        return new

    def remove(self, fields: Collection[Field]) -> None:
        """Remove fields."""
        gone = frozenset(fields)
        self._parts = [part for part in self._parts if part not in gone]

    def insert(self, name: str, octets: bytes, after: Field | None = None) -> Field:
        """Add a field, whose octets end with CRLF: behind another, or first but for trace fields.

        A reader that stops early, at a line that it does not understand, finds what is first. A
        text without a header gets the empty line that ends one.
        """
        if self.remainder and not self.has_fields:
            self.remainder = b"\r\n" + self.remainder
        at = self._parts.index(self._top if after is None else after)
        before = self._parts[at]
        if before.octets and not before.octets.endswith(b"\r\n"):  # the message ends without CRLF
            ended = self._parts[at] = Field(before.name, before.octets + b"\r\n")
            self._top = ended if before is self._top else self._top
        new = Field(name, octets)
        self._parts.insert(at + 1, new)
        return new


def begins_with_field(line: bytes) -> bool:
    """Whether a first line, with its line end, belongs to a header; else there is none."""
    return (_FIELD.match(line) or _SEPARATOR.match(line)) is not None


def unstuffed(octets: bytes) -> bytes:
    """Return whole lines of DATA without the dots that protect lines (RFC 5321 §4.5.2)."""
    return _DOT_LINE.sub(b"", octets)


def stuffed(octets: bytes) -> bytes:
    """Return whole lines as DATA carries them (RFC 5321 §4.5.2)."""
    return _DOT_LINE.sub(b"..", octets)


@lru_cache(maxsize=4)
def _fields(names: tuple[str, ...]) -> re.Pattern[bytes]:
    alternatives = "|".join(map(re.escape, names)).encode()
    pattern = rb"^%b(%b)[ \t]*:%b" % (_BOM, alternatives, _REST)
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)


@lru_cache(maxsize=4)
def _disguised(names: tuple[str, ...]) -> re.Pattern[bytes]:
    alternatives = "|".join(map(re.escape, names)).encode()
    pattern = rb"^[\x80-\xff]*(?:%b)[ \t\x80-\xff]*:" % alternatives
    return re.compile(pattern, re.IGNORECASE | re.MULTILINE)
