"""Writes the From field: a name and an address, encoded and folded.

No I/O. RFC 5322 §3.6.2, §2.1.1 (lines of 78, and never above 998), RFC 2047 §5.
"""

from __future__ import annotations

import base64
import re

_LINE_BYTES = 78
_MAX_WORD_BYTES = 900  # with what surrounds it, a line of less than 998
_ENCODED_BYTES = 45  # in base64 with its frame, less than the 75 octets of an encoded word
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]+")
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?[^?]*\?=")
_AT_SIGNS = frozenset("@\ufe6b\uff20")


def from_field(name: str, address: str) -> bytes:
    """Return the field with its line end; `name` is a phrase as it stands in a header, or ""."""
    words = [*re.split(r"[ \t]+", name), f"<{address}>"] if name else [address]
    lines, line = [], b"From:"
    for word in words:
        octets = word.encode("utf-8", "surrogateescape")
        if len(line) + 1 + len(octets) > _LINE_BYTES and line != b"From:":
            lines.append(line)
            line = b""
        line += b" " + octets
    return b"\r\n".join([*lines, line, b""])


def phrase(name: str) -> str:
    """Return a name as a header holds it: atoms, a quoted string, or encoded words (RFC 2047).

    Encoded words are right in SMTPUTF8 messages as well, and need no provider with SMTPUTF8.
    """
    name = " ".join(name.split())
    if name.isascii() and "=?" not in name:
        if not name or _ATOMS.fullmatch(name):
            return name
        return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    words, octets = [], b""
    for character in name:
        encoded = character.encode()
        if len(octets) + len(encoded) > _ENCODED_BYTES:
            words.append(octets)
            octets = b""
        octets += encoded
    return " ".join(f"=?utf-8?B?{base64.b64encode(one).decode()}?=" for one in [*words, octets])


def is_harmless_name(name: str) -> bool:
    """Whether a phrase of a header may stand beside another address than its own.

    A name that looks like an address would still show the one that was replaced.
    """
    if "\\ " in name or "\\\t" in name:  # folding would part them
        return False
    if any(len(word.encode("utf-8", "surrogateescape")) > _MAX_WORD_BYTES for word in name.split()):
        return False
    return not _AT_SIGNS & set(_decoded(name) + name)


def _decoded(name: str) -> str:
    if not _ENCODED_WORD.search(name):
        return name
    # Not above: few messages need them.
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    try:
        return str(make_header(decode_header(name)))
    except (HeaderParseError, ValueError, LookupError):
        return "@"
