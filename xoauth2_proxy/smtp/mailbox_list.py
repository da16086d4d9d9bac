"""Reads the mailboxes of a header field such as From: strictly, and before any decoding.

No I/O. RFC 5322 §3.4 (addresses), §3.2.2 (comments), §3.2.4 (quoted strings), RFC 6532 §3.2.
What readers understand differently is refused rather than guessed: the obsolete forms within an
address, comments within one, addresses between unbalanced brackets or quotes. Encoded words stand
in names only and are left as they are (RFC 2047 §5): decoded first, one could become a comma.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_MAX_VALUE_BYTES = 4096  # of a field that is read; a longer one would keep others waiting
# In the order of trial. A comment is taken piece by piece, since comments nest.
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)
    |(?P<quoted>"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e\x80-\U0010ffff])*")
    |(?P<literal>\[[!-Z^-~]*\])
    |(?P<atom>[^\x00-\x20\x7f()<>\[\]:;@\\,"]+)
    |(?P<special>[<>@,])
    |(?P<group>[:;])
    |(?P<comment>\()""",
    re.VERBOSE,
)
_COMMENT_PIECE = re.compile(r"[^()\\\x00-\x08\x0a-\x1f\x7f]+|\\[\t\x20-\x7e\x80-\U0010ffff]|[()]")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_PLAIN_LOCAL = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,\"]+")
_ADDRESS = re.compile(r'(?:("(?:[^"\\]|\\.)*")|([^"@]+))@([^@"]+)', re.DOTALL)


class NotMailboxes(ValueError):
    """The value is no list of mailboxes; the text says why, in words for a reply."""


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One mailbox of a field."""

    name: str  # as written, encoded words and quotes included; "" for none
    address: str  # as written, without brackets


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    word: str
    start: int
    end: int


def parse_mailboxes(value: bytes) -> list[Mailbox]:
    """Return the mailboxes of an unfolded value; octets that are no UTF-8 become surrogates.

    Raises `NotMailboxes`: it is a group (RFC 5322 §3.4, RFC 6854), or malformed, or too long.
    """
    if len(value) > _MAX_VALUE_BYTES:
        raise NotMailboxes("is too long")
    text = value.decode("utf-8", "surrogateescape")
    mailboxes = []
    element: list[_Token] = []
    for token in [*_tokens(text), _Token("special", ",", len(text), len(text))]:
        if token.word == "," and token.kind == "special":
            if element:  # empty elements are obsolete, and harmless (RFC 5322 §4.4)
                mailboxes.append(_mailbox(element, text))
            element = []
        else:
            element.append(token)
    return mailboxes


def split_address(address: str) -> tuple[str, str, bool] | None:
    """Return the local part without quotes, the domain, and whether quotes are needed.

    None: it is no address with a domain.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        return None
    quoted, plain, domain = found.groups()
    local = plain or _QUOTED_PAIR.sub(r"\1", quoted[1:-1])
    return local, domain, _PLAIN_LOCAL.fullmatch(local) is None


def _tokens(text: str) -> list[_Token]:
    """Return the tokens without white space and comments."""
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise NotMailboxes("is malformed")
        kind, end = found.lastgroup, found.end()
        if kind == "group":
            raise NotMailboxes("is a group of addresses or malformed")
        if kind == "comment":
            end = _end_of_comment(text, at)
        elif kind != "space":
            tokens.append(_Token(kind, found[0], at, end))
        at = end
    return tokens


def _end_of_comment(text: str, at: int) -> int:
    depth = 0
    while found := _COMMENT_PIECE.match(text, at):
        at = found.end()
        depth += {"(": 1, ")": -1}.get(found[0], 0)
        if not depth:
            return at
    raise NotMailboxes("is malformed")


def _mailbox(tokens: list[_Token], text: str) -> Mailbox:
    opening = next((at for at, one in enumerate(tokens) if _is(one, "<")), None)
    if opening is None:
        return Mailbox("", _address(tokens))
    *inner, closing = tokens[opening + 1 :] or [tokens[opening]]
    if not _is(closing, ">"):
        raise NotMailboxes("is malformed")
    address = _address(inner)
    before = tokens[:opening]
    if any(one.kind not in ("atom", "quoted") for one in before) and _address(before) != address:
        raise NotMailboxes("is malformed")  # two addresses, of which readers choose either
    name = text[before[0].start : tokens[opening].start].strip(" \t") if before else ""
    return Mailbox(name, address)


def _is(token: _Token, special: str) -> bool:
    return token.kind == "special" and token.word == special


def _address(tokens: list[_Token]) -> str:
    """Return the address that the tokens are: a local part, "@" and a domain, nothing between."""
    if [one.word if one.kind == "special" else one.kind for one in tokens] not in _FORMS:
        raise NotMailboxes("is malformed")
    local, at, domain = tokens
    address = local.word + at.word + domain.word
    is_joined = local.end == at.start and at.end == domain.start
    is_encoded = "=?" in address and "?=" in address
    has_labels = "" not in domain.word.split(".")
    if not (is_joined and has_labels and address.isprintable()) or is_encoded:
        raise NotMailboxes("is malformed")
    return address


_FORMS = [[local, "@", domain] for local in ("atom", "quoted") for domain in ("atom", "literal")]
