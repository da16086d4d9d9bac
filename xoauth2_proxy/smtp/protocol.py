"""Parses and formats SMTP replies, paths and parameters, and defines the envelope.

No I/O. RFC 5321, RFC 2034 (enhanced codes), RFC 3463.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

# RFC 5321 §4.5.3.1.5 allows 512; providers with long host names exceed it.
MAX_REPLY_LINE_BYTES = 4096
_MAX_TEXT_BYTES = 490  # of one line sent
_CACHED_BYTES = 100  # of a reply; a longer one is hardly sent again
MAX_REPLY_LINES = 128  # RFC 5321 sets no limit; an EHLO reply has about fifteen

_ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?:[ \t]+|$)", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\x80-\U0010ffff]")


@dataclass(frozen=True)
class Reply:
    """A server's reply (RFC 5321 §4.2): a code, an enhanced code or "", and its text lines."""

    code: int
    enhanced: str
    text: tuple[str, ...]

    @property
    def is_positive(self) -> bool:
        """Whether the command succeeded (RFC 5321 §4.2.1, 2yz)."""
        return 200 <= self.code < 300

    @property
    def is_transient(self) -> bool:
        """Whether a later retry may succeed (RFC 5321 §4.2.1, 4yz)."""
        return 400 <= self.code < 500

    @cached_property
    def octets(self) -> bytes:
        """The wire form of the reply: one line with CRLF for each line of text.

        Control characters are dropped, so a relayed reply cannot smuggle in a second one.
        """
        prefix = f"{self.enhanced} " if self.enhanced else ""
        lines = self.text or ("",)
        last = len(lines) - 1
        return b"".join(
            f"{self.code}{' ' if number == last else '-'}{prefix}{_printable(line)}\r\n".encode()
            for number, line in enumerate(lines)
        )

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.enhanced, *self.text) if part)


def reply(code: int, enhanced: str, *text: str) -> Reply:
    """Return a `Reply` whose enhanced code takes its class digit from `code`.

    `enhanced` is written without the class: `reply(451, "4.1", "…")` is `451 4.4.1 …`.
    """
    return Reply(code, f"{code // 100}.{enhanced}" if enhanced else "", text)


def _printable(line: str) -> str:
    # RFC 5321 §4.5.3.1.5: 512 octets a line, with its codes and CRLF.
    return _UNPRINTABLE.sub("", line).encode()[:_MAX_TEXT_BYTES].decode("utf-8", "ignore")


class MalformedReply(ValueError):
    """The octets received are not an SMTP reply (RFC 5321 §4.2)."""


class ReplyParser:
    """Parses received octets into replies, whatever the packet boundaries, in bounded memory.

    Raises `MalformedReply` from `feed`, after which the connection can no longer be trusted.
    """

    __slots__ = ("_code", "_lines", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._code = ""
        self._lines: list[str] = []

    @property
    def is_mid_reply(self) -> bool:
        """Whether octets of an unfinished reply are held."""
        return bool(self._rest or self._lines)

    def may_become(self, code: str) -> bool:
        """Whether the unfinished reply may be one with this code."""
        return code.startswith(self._code if self._lines else self._rest[:3].decode("latin-1"))

    def feed(self, octets: bytes) -> list[Reply]:
        """Return the replies completed by `octets`, in order."""
        *lines, rest = (self._rest + octets).split(b"\n")
        if len(rest) > MAX_REPLY_LINE_BYTES:
            raise MalformedReply("reply line too long")
        self._rest = rest
        replies = []
        for line in lines:
            # A provider answers MAIL and RCPT in the same words each time. A refusal may echo what
            # must not be kept.
            is_whole = line[3:4] == b" " and not self._lines
            if is_whole and line[:1] == b"2" and len(line) <= _CACHED_BYTES:
                replies.append(_common_reply(line))
            elif (reply := self._add(line)) is not None:
                replies.append(reply)
        return replies

    def _add(self, raw: bytes) -> Reply | None:
        code, separator, text = _line_parts(raw)
        if self._lines and code != self._code:
            raise MalformedReply("reply code changes within a reply")
        if len(self._lines) >= MAX_REPLY_LINES:
            raise MalformedReply("reply too long")
        self._code = code
        self._lines.append(text)
        if separator == "-":
            return None
        lines, self._lines = self._lines, []
        return _reply_from(int(code), lines)


def _line_parts(raw: bytes) -> tuple[str, str, str]:
    """Return the code, the separator and the text of a line. Raises `MalformedReply`."""
    line = raw.rstrip(b"\r").decode("utf-8", "replace")
    code, separator, text = line[:3], line[3:4], line[4:]
    is_code = len(code) == 3 and code.isascii() and code.isdigit() and "2" <= code[0] <= "5"
    if not (is_code and separator in "- "):
        raise MalformedReply("not a reply line")
    if len(raw) > MAX_REPLY_LINE_BYTES:
        raise MalformedReply("reply too long")
    return code, separator, text


@lru_cache(maxsize=256)
def _common_reply(raw: bytes) -> Reply:
    code, _, text = _line_parts(raw)
    return _reply_from(int(code), [text])


def _reply_from(code: int, lines: list[str]) -> Reply:
    # Every line of a reply repeats the enhanced code (RFC 2034 §4); keep it once.
    match = _ENHANCED.match(lines[0])
    if match is None or match[1][0] != str(code)[0]:
        return Reply(code, "", tuple(lines))
    enhanced = match[1]
    text = tuple(
        line[found.end() :] if (found := _ENHANCED.match(line)) and found[1] == enhanced else line
        for line in lines
    )
    return Reply(code, enhanced, text)


@dataclass(slots=True)
class Envelope:
    """One transaction's envelope (RFC 5321 §2.3.1). The null sender is `reverse_path == ""`."""

    reverse_path: str = ""
    forward_paths: list[str] = field(default_factory=list)
    body_8bit: bool = False  # BODY=8BITMIME was declared (RFC 6152)
    smtputf8: bool = False  # SMTPUTF8 was declared (RFC 6531)
    size_bytes: int = 0  # SIZE= as declared, or 0 (RFC 1870)
    # Delivery status notifications (RFC 3461) as the client sent them, or "".
    ret: str = ""
    envid: str = ""
    # By the index of a forward path: the NOTIFY= and ORCPT= behind it, with a leading space.
    notifications: dict[int, str] = field(default_factory=dict)


class BadPath(ValueError):
    """A reverse-path or forward-path that RFC 5321 §4.1.2 does not allow."""


class BadParameter(ValueError):
    """A MAIL or RCPT parameter whose syntax or value is wrong (RFC 5321 §4.1.2)."""


# RFC 5321 §4.1.2. The local part is checked by what it must not contain rather than by the whole
# grammar: the provider decides.
_MAILBOX = r"""
    (?P<mailbox>
      (?P<local>"(?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*"|[^\s<>"@\\(),:;\[\]\x00-\x1f\x7f]+)
      (?:@(?P<domain>\[[^\s<>\[\]\x00-\x1f\x7f]+\]|[^\s<>"@\\(),:;\[\]\x00-\x1f\x7f]+))?
    )"""


def _paths(form: str) -> dict[str, re.Pattern[str]]:
    """Return the pattern of a path in this form and its parameters, for each keyword."""
    return {
        f"{keyword}:": re.compile(
            rf"{keyword}\s*:\s*{form}(?:\s+(?P<parameters>.*))?\Z",
            re.VERBOSE | re.IGNORECASE | re.DOTALL,
        )
        for keyword in ("FROM", "TO")
    }


# With the source route that RFC 5321 §4.1.2 says to accept and ignore.
_PATHS = _paths(rf"<(?:@[^<>\s:]{{1,255}}:(?!>))?{_MAILBOX}?>")
# A lone word with "=" is a parameter, and the path is missing.
_PATHS_WITHOUT_BRACKETS = _paths(rf"(?![^\s@]*=[^\s@]*(?:\s|\Z)){_MAILBOX}")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\s=\x00-\x1f\x7f]+))?$")


def parse_path(argument: str, keyword: str, *, needs_brackets: bool = False) -> tuple[str, str]:
    """Return the mailbox of `FROM:<…>` or `TO:<…>` ("" for `<>`) and the parameters after it.

    White space around the colon is accepted, as every server does (RFC 5321 §3.3 forbids it), and
    a mailbox without brackets, unless `needs_brackets`.
    Raises `BadPath` if there is no path, or it violates RFC 5321 §4.1.2.
    """
    match = _PATHS[keyword].match(argument)
    if match is None and not needs_brackets:
        match = _PATHS_WITHOUT_BRACKETS[keyword].match(argument)
    if match is None:
        raise BadPath(argument)
    mailbox, local, domain, parameters = match.groups("")
    # RFC 5321 §4.5.3.1.1–3: 64 octets local part, 255 domain, 256 path with its brackets.
    local_bytes, domain_bytes = len(local.encode()), len(domain.encode())
    if local_bytes > 64 or domain_bytes > 255 or local_bytes + domain_bytes > 253:
        raise BadPath(argument)
    return mailbox, parameters.rstrip()


def parse_parameters(text: str) -> dict[str, str]:
    """Return ESMTP parameters by upper-case keyword; a keyword without value maps to "".

    Raises `BadParameter` for wrong syntax or a keyword given twice.
    """
    parameters: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.match(word)
        keyword = match[1].upper() if match else ""
        if match is None or keyword in parameters:
            raise BadParameter(word)
        parameters[keyword] = match[2] or ""
    return parameters
