"""Fuzz target: the header of a message whose login has rules for its sender.

The first octet chooses the rules.
"""

from __future__ import annotations

import re

from tests.support.sender_oracle import (
    assert_no_reader_finds_another,
    assert_only_three_fields_changed,
    assert_passes_as_it_is,
    checked_or_none,
)
from xoauth2_proxy.accounts.sender_rules import FromRule, SenderRules

_SENDERS = ("own@x.example", "*@ours.example")
_ALLOWED = re.compile(r"own@x\.example|[^@\"]+@ours\.example", re.IGNORECASE)
_RULES = [
    SenderRules(_SENDERS, rule)
    for rule in (
        FromRule(),
        FromRule(rewrite="own@x.example"),
        FromRule(rewrite="own@x.example", reply_to=True),
        FromRule(rewrite="own@x.example", display_name="Bü, ro"),
    )
]


class SenderTarget:
    """Checks one header."""

    max_bytes = 2000

    def close(self) -> None:
        """Nothing is held."""

    def check(self, octets: bytes) -> object:
        rules = _RULES[octets[0] % len(_RULES)] if octets else _RULES[0]
        # As the dialogue hands it over: only CRLF, no NUL, and up to the first empty line.
        lines = re.split(rb"[\r\n]+", octets[1:].replace(b"\0", b""))
        block = b"".join(line + b"\r\n" for line in lines if line)
        checked = checked_or_none(block, rules)
        if checked is None:
            return "refused"
        if checked != block:
            assert_only_three_fields_changed(block, checked)
        assert_passes_as_it_is(checked, rules)
        assert_no_reader_finds_another(checked, _ALLOWED)
        return checked == block, b"\r\n\r\n" in checked, checked.count(b"\r\n")
