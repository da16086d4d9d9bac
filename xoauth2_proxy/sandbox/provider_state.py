"""What all connections share: behaviour, stored messages, tokens, faults and counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.counters import Counters
from xoauth2_proxy.sandbox.dialects import DIALECTS
from xoauth2_proxy.sandbox.limits import ProviderLimits
from xoauth2_proxy.sandbox.refusals import Refusals
from xoauth2_proxy.sandbox.seeded_random import Delays
from xoauth2_proxy.sandbox.tokens.token_verifier import TokenVerifier

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.behaviour import Behaviour
    from xoauth2_proxy.sandbox.dialects import Dialect
    from xoauth2_proxy.sandbox.faults import Fault, FaultScript, Step
    from xoauth2_proxy.sandbox.message_store import MessageStore
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

# RFC 5321 §4.5.3.1.4: 512 octets with CRLF. A command may be longer by what its parameters need:
# SIZE 26 (RFC 1870 §3), BODY 17 (RFC 6152 §2), SMTPUTF8 10 (RFC 6531 §3.4), AUTH 500 (RFC 4954 §3),
# RET and ENVID 107, NOTIFY and ORCPT 500 (RFC 3461 §4).
_MAX_COMMAND_BYTES = 512
_MAX_MAIL_BYTES = 512 + 26 + 17 + 10 + 500


class ProviderState:
    """What all connections and pages of one provider share."""

    def __init__(
        self,
        behaviour: Behaviour,
        tokens: MockTokens,
        received: MessageStore,
        faults: FaultScript[Fault],
        seed: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.dialect: Dialect = DIALECTS[behaviour.dialect]
        self.verifier = TokenVerifier(tokens)
        self.received = received
        self.counters = Counters()
        self.refusals = Refusals()
        self.extensions = _extensions(behaviour, self.dialect)
        self.has_pipelining = "PIPELINING" in self.extensions
        has_dsn = "DSN" in self.extensions
        self.line_limits = {
            b"MAIL": _MAX_MAIL_BYTES + (107 if has_dsn else 0),
            b"RCPT": _MAX_COMMAND_BYTES + (500 if has_dsn else 0),
            b"AUTH": behaviour.max_auth_line_bytes,
        }
        self.short_line_bytes = min(self.line_limits.values()) - 2  # no command is too long then
        self.limits: ProviderLimits | None = None  # None: there are none
        if ProviderLimits.are_needed(behaviour):
            self.limits = ProviderLimits(behaviour, self.dialect, self.counters)
        self.accept_delays: Delays | None = None  # None: accept at once
        if behaviour.accept_seconds:
            self.accept_delays = Delays(
                seed, behaviour.accept_seconds, behaviour.accept_p99_seconds
            )
        self._faults = faults
        self._faults_by_step = faults.by_step

    def arrive(self, step: Step, mailbox: str, argument: str) -> Fault | None:
        """Return the fault that an arrival at `step` meets, and count it."""
        if not self._faults_by_step:
            return None
        fault = self._faults.next(step, mailbox, argument)
        if fault is not None:
            self.counters.faults_met[f"{fault.step}:{fault.action}"] += 1
        return fault

    def max_line_bytes(self, verb: bytes) -> int:
        """Return how long a command may be, with its CRLF."""
        return self.line_limits.get(verb, _MAX_COMMAND_BYTES)


def _extensions(behaviour: Behaviour, dialect: Dialect) -> dict[str, str]:
    """Return the offered extensions in order; AUTH and STARTTLS depend on the session."""
    values = {"SIZE": str(behaviour.max_message_bytes), "AUTH": " ".join(dialect.mechanisms)}
    withheld = {word.upper() for word in behaviour.withhold}
    return {word: values.get(word, "") for word in dialect.extensions if word not in withheld}
