"""SMTP's framing as slowly and obviously as it can be written; shares no code with the relay.

RFC 5321 §2.3.8, §4.1.1.4, §4.2, §4.5.2; RFC 3030 §2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CR, LF, DOT = 13, 10, 46


def has_bare_line_ends(octets: bytes) -> bool:
    """Whether some CR is not followed by LF, or some LF does not follow CR."""
    for at, octet in enumerate(octets):
        if octet == CR and octets[at + 1 : at + 2] != b"\n":
            return True
        if octet == LF and (at == 0 or octets[at - 1] != CR):
            return True
    return False


def end_of_data(octets: bytes) -> int | None:
    """Return where the final dot stands: alone between CRLFs, or CRLF behind it at the start."""
    for at, octet in enumerate(octets):
        starts_line = at == 0 or octets[max(0, at - 2) : at] == b"\r\n"
        if octet == DOT and starts_line and octets[at + 1 : at + 3] == b"\r\n":
            return at
    return None


def unstuffed(octets: bytes) -> bytes:
    """Return content without the dot that was put in front of a leading dot."""
    lines = octets.split(b"\r\n")
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


def stuffed(octets: bytes) -> bytes:
    """Return content with a dot put in front of each leading dot."""
    lines = octets.split(b"\r\n")
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in lines)


def ended(octets: bytes) -> bytes:
    """Return content whose last line is ended."""
    return octets if octets.endswith(b"\r\n") or not octets else octets + b"\r\n"


def repaired(octets: bytes, *, is_stuffed: bool) -> bytes:
    """Return what content becomes whose line ends are repaired, in the form in which it came."""
    before, result = b"\r\n", b""
    for line, end in re.findall(rb"((?:[^\r\n]|\r+(?![\r\n]|\Z))*)(\r*\n|\r*\Z)", octets):
        text = line.replace(b"\r", b" ")
        is_unstuffed = before != b"\r\n" and re.match(rb"\.(?!\.)", text)
        if is_stuffed and (is_unstuffed or (text == b"." and end != b"\r\n")):
            text = b"." + text
        before = end
        result += text + (b"\r\n" if end else b"")
    return result


@dataclass(frozen=True)
class Answer:
    """A reply, line by line: the code, and the text behind it."""

    code: int
    lines: tuple[bytes, ...]


def next_reply(octets: bytes) -> tuple[Answer, bytes] | None:
    """Return the first reply and what stands behind it; None if there is no whole one.

    Raises `ValueError` where the octets are no reply. A lone LF ends a line too, for the replies
    of providers; `is_well_formed` is the stricter rule, for replies of the relay.
    """
    lines: list[bytes] = []
    code = b""
    while True:
        line, ending, octets = octets.partition(b"\n")
        if not ending:
            return None
        while line.endswith(b"\r"):
            line = line[:-1]
        digits, separator = line[:3], line[3:4]
        if len(digits) != 3 or digits[:1] not in b"2 3 4 5".split():
            raise ValueError(f"no code: {line!r}")
        if any(digit not in b"0123456789" for digit in digits) or separator not in {
            b"",
            b" ",
            b"-",
        }:
            raise ValueError(f"no code: {line!r}")
        if code and digits != code:
            raise ValueError(f"another code: {line!r}")
        code = digits
        lines.append(line[4:])
        if separator != b"-":
            return Answer(int(code), tuple(lines)), octets


def is_well_formed(octets: bytes) -> bool:
    """Whether these are lines that a strict client takes: CRLF, no controls, 512 octets at most."""
    if not octets:
        return True
    *lines, rest = octets.split(b"\r\n")
    is_short = all(len(line) + 2 <= 512 for line in lines)
    return rest == b"" and is_short and not any(o < 32 or o == 127 for line in lines for o in line)


def path_in(argument: bytes) -> bytes:
    """Return what stands between the angle brackets, without a source route.

    Without brackets, it is what stands behind the colon, up to white space.
    """
    rest = argument.partition(b":")[2].lstrip()
    if not rest.startswith(b"<"):
        local = re.match(rb'"(?:[^"\\]|\\.)*"', rest)
        at = local.end() if local else 0
        return rest[:at] + re.split(rb"\s", rest[at:])[0]
    rest = rest[1:]
    if rest.startswith(b"@"):
        rest = rest.partition(b":")[2]
    quoted = 0
    if rest.startswith(b'"'):
        quoted = 1
        while rest[quoted : quoted + 1] != b'"':
            quoted += 2 if rest[quoted : quoted + 1] == b"\\" else 1
    return rest[: rest.index(b">", quoted)]
