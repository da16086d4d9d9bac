"""Which addresses a login may send as, and what stands in the place of others.

Addresses are compared without regard to the case of ASCII letters, in the local part too: no
provider tells `Scanner@` from `scanner@`, and logins are compared in the same way. Other letters
are compared exactly, since some lose their identity in another case.
"""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace

from xoauth2_proxy.smtp.mailbox_list import split_address

ANY = "*"
_OF_DOMAIN = "*@"
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_SHOWN = 3  # of the allowed senders, in a reply


@dataclass(frozen=True, slots=True, kw_only=True)
class FromRule:
    """What becomes of the sender of a message."""

    rewrite: str = ""  # the address that replaces one that is not allowed; "": it is refused
    reply_to: bool = False  # the replaced From becomes Reply-To
    display_name: str = ""  # the name beside the address in From; "": the message's own


@dataclass(frozen=True, slots=True)
class SenderRules:
    """The senders of a login: exact addresses, `*@domain` and `*`, and what is done about others.

    Only made where there is something to check or to change (`sender_rules`).
    """

    senders: tuple[str, ...]
    from_rule: FromRule
    _exact: frozenset[tuple[str, str]] = field(init=False, repr=False, compare=False)
    _domains: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = [split_address(one.translate(_LOWER)) for one in self.senders]
        exact = frozenset((one[0], one[1]) for one in parts if one is not None and one[0] != ANY)
        domains = frozenset(one[1] for one in parts if one is not None and one[0] == ANY)
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_domains", domains)

    @property
    def allows_all(self) -> bool:
        """Whether every sender is allowed."""
        return ANY in self.senders

    def allows(self, address: str) -> bool:
        """Whether the login may send as `address`.

        `*@domain` stands for no local part that needs quotes: readers disagree about where such an
        address ends.
        """
        if self.allows_all:
            return True
        parts = split_address(address.translate(_LOWER))
        if parts is None:
            return False
        local, domain, needs_quotes = parts
        return (local, domain) in self._exact or (domain in self._domains and not needs_quotes)

    @property
    def words(self) -> str:
        """The allowed senders for a person, not more than a few."""
        more = len(self.senders) - _SHOWN
        return ", ".join(self.senders[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def sender_rules(senders: tuple[str, ...], from_rule: FromRule | None) -> SenderRules | None:
    """Return the rules for these settings; None if there is nothing to check or to change.

    Without `senders`, every sender is allowed, or only that to which others are rewritten.
    """
    rule = from_rule or FromRule()
    if not senders:
        senders = (rule.rewrite,) if rule.rewrite else (ANY,)
    if ANY in senders and not (rule.rewrite or rule.display_name):
        return None
    rules = SenderRules(senders, rule)
    if rule.rewrite and not rules.allows(rule.rewrite):
        # The configuration does not let it come to this. If it did, nobody may send as `rewrite`.
        return SenderRules(senders, replace(rule, rewrite=""))
    return rules
