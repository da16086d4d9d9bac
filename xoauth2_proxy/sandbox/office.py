"""What all connections of the sandbox share: its settings, its memory and its counters."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts import TlsMode
from xoauth2_proxy.mock_tokens import MockTokenInvalid, MockTokens
from xoauth2_proxy.sandbox.faults import Fault, Faults, Step
from xoauth2_proxy.sandbox.tally import Tally

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.received import Received

MAX_MESSAGE_BYTES = 35_882_577  # what Gmail announces
MAX_CONNECTIONS = 10_000
MAX_RECIPIENTS = 100  # Gmail's limit per message
IDLE_SECONDS = 300.0  # RFC 5321 §4.5.3.2.7: at least 5 minutes
_MAX_REVOKED = 10_000
_MAX_MAILBOXES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the provider behaves when no fault is asked for."""

    tls: TlsMode = TlsMode.STARTTLS
    auth_without_tls: bool = False  # offer AUTH before STARTTLS too
    withhold: frozenset[str] = frozenset()  # EHLO keywords not to be offered
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_connections: int = MAX_CONNECTIONS
    idle_seconds: float = IDLE_SECONDS
    rtt_seconds: float = 0.0  # every flight of replies is held back for so long


@dataclass(slots=True)
class Counters:
    """What has happened since the start."""

    connections_opened: int = 0
    connections_open: int = 0
    auth_accepted: int = 0
    auth_refused: int = 0
    transactions_accepted: int = 0
    transactions_refused: int = 0  # at or after the content
    turns: int = 0  # flights of replies written while the client had nothing under way
    open_by_mailbox: dict[str, int] = field(default_factory=dict)  # authenticated, now
    peak_by_mailbox: dict[str, int] = field(default_factory=dict)

    def mailbox_opened(self, mailbox: str) -> None:
        """Count one more authenticated connection of a mailbox."""
        count = self.open_by_mailbox.get(mailbox, 0) + 1
        self.open_by_mailbox[mailbox] = count
        peak = max(self.peak_by_mailbox.get(mailbox, 0), count)
        if mailbox in self.peak_by_mailbox or len(self.peak_by_mailbox) < _MAX_MAILBOXES:
            self.peak_by_mailbox[mailbox] = peak

    def mailbox_closed(self, mailbox: str) -> None:
        """Count one less."""
        self.open_by_mailbox[mailbox] -= 1
        if not self.open_by_mailbox[mailbox]:
            del self.open_by_mailbox[mailbox]


class Office:
    """The provider behind the counters: who may come in, and what has come in."""

    def __init__(
        self, settings: Settings, tokens: MockTokens, received: Received, faults: Faults
    ) -> None:
        self.settings = settings
        self.received = received
        self.counters = Counters()
        self.arrivals = {step: Tally() for step in Step}
        self.extensions = _extensions(settings)
        self._faults = faults
        self._tokens = tokens
        self._revoked: OrderedDict[str, None] = OrderedDict()  # token ids, oldest first
        self._valid_from = 0.0  # seconds since the epoch; older tokens are revoked

    def arrive(self, step: Step, mailbox: str, argument: str) -> Fault | None:
        """Count an arrival at `step` and return the fault it meets."""
        self.arrivals[step].add()
        return self._faults.next(step, mailbox, argument)

    def admits(self, mailbox: str, token: str) -> bool:
        """Return whether the token opens this mailbox now, and count the answer."""
        try:
            claims = self._tokens.read(token)
        except MockTokenInvalid:
            accepted = False
        else:
            is_revoked = claims.token_id in self._revoked or claims.issued_at <= self._valid_from
            accepted = claims.mailbox == mailbox and not is_revoked
        if accepted:
            self.counters.auth_accepted += 1
        else:
            self.counters.auth_refused += 1
        return accepted

    def revoke(self, token: str) -> None:
        """Refuse this token from now on; the latest 10,000 are remembered."""
        try:
            claims = self._tokens.read(token)
        except MockTokenInvalid:
            return  # it is refused anyway
        self._revoked[claims.token_id] = None
        if len(self._revoked) > _MAX_REVOKED:
            self._revoked.popitem(last=False)

    def revoke_all(self) -> None:
        """Refuse every token minted until now."""
        self._valid_from = time.time()


def _extensions(settings: Settings) -> dict[str, str]:
    """Return the offered extensions in Gmail's order; AUTH and STARTTLS depend on the session."""
    offered = {
        "SIZE": str(settings.max_message_bytes),
        "8BITMIME": "",
        "AUTH": "XOAUTH2 OAUTHBEARER",
        "STARTTLS": "",
        "ENHANCEDSTATUSCODES": "",
        "PIPELINING": "",
        "CHUNKING": "",
        "SMTPUTF8": "",
    }
    return {word: value for word, value in offered.items() if word not in settings.withhold}
