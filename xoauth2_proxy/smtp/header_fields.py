"""Splits a message's header into its fields, and edits single ones; every other octet stays.

No I/O. RFC 5322 §2.2 (fields, folding), §4.5 (white space before the colon).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

END_OF_HEADER = b"\r\n\r\n"
# A name, and the lines up to the next that does not begin with white space. Names with octets
# above 0x7E are no names (RFC 5322 §2.2), but mail programs read them as such.
_FIELD = re.compile(rb"([!-9;-~\x80-\xff]+)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|\Z)")
# The separator of messages in mailbox files (RFC 4155), which some programs send along.
_SEPARATOR = re.compile(rb">?From [^\n]*(?:\n|\Z)")
_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_INVISIBLE = re.compile(rb"[^!-~]+")
_BOM = b"\xef\xbb\xbf"  # before a text that a script has read from a file; no part of a name
_DOT_LINE = re.compile(rb"(?:\A|(?<=\r\n))\.")
_SEPARATOR_NAME = "from "  # no field has a space in its name
# What stays on top (RFC 5322 §3.6).
_ON_TOP = frozenset({_SEPARATOR_NAME, "received", "return-path"})


@dataclass(frozen=True, slots=True, eq=False)
class Field:
    """One field of a header."""

    name: str  # in lower case; "from " for the separator of a mailbox file
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

    __slots__ = ("fields", "remainder")

    def __init__(self, block: bytes) -> None:
        """`block` is all that comes before the first empty line, or before the end."""
        self.fields: list[Field] = []
        at = 0
        if not _FIELD.match(block) and (separator := _SEPARATOR.match(block)):
            self.fields.append(Field(_SEPARATOR_NAME, separator[0]))
            at = separator.end()
        while found := _FIELD.match(block, at):
            self.fields.append(Field(_name(found[1]), found[0]))
            at = found.end()
        self.remainder = block[at:]

    @property
    def octets(self) -> bytes:
        """The header as it is now."""
        return b"".join([*(field.octets for field in self.fields), self.remainder])

    @property
    def has_fields(self) -> bool:
        """Whether there is a field; the separator of a mailbox file is none."""
        return any(field.name != _SEPARATOR_NAME for field in self.fields)

    def named(self, name: str) -> list[Field]:
        """Return the fields of this name, which is in lower case."""
        return [field for field in self.fields if field.name == name]

    def has_in_remainder(self, names: frozenset[str]) -> bool:
        """Whether a reader that skips lines which are no fields would find one of these names."""
        starts = [line.partition(b":")[0] for line in self.remainder.split(b"\n") if b":" in line]
        return any(_name(_INVISIBLE.sub(b"", start)) in names for start in starts)

    def replace(self, field: Field, octets: bytes) -> Field:
        """Put other octets, which end with CRLF, in the place of a field; return the new one."""
        new = self.fields[self.fields.index(field)] = Field(field.name, octets)
        return new

    def remove(self, field: Field) -> None:
        """Remove a field."""
        self.fields.remove(field)

    def insert(self, name: str, octets: bytes, after: Field | None = None) -> Field:
        """Add a field, whose octets end with CRLF: behind another, or first but for trace fields.

        A reader that stops early, at a line that it does not understand, finds what is first. A
        text without a header gets the empty line that ends one.
        """
        fields = self.fields
        if self.remainder and not self.has_fields:
            self.remainder = b"\r\n" + self.remainder
        at = fields.index(after) + 1 if after is not None else 0
        while after is None and at < len(fields) and fields[at].name in _ON_TOP:
            at += 1
        if at and not fields[at - 1].octets.endswith(b"\r\n"):  # the message ends without CRLF
            fields[at - 1] = Field(fields[at - 1].name, fields[at - 1].octets + b"\r\n")
        new = Field(name, octets)
        fields.insert(at, new)
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


def _name(octets: bytes) -> str:
    return octets.removeprefix(_BOM).lower().decode("latin-1")
