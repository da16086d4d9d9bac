"""Defines what sessions report about their clients: the facts, the reasons, and who hears them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Reply


class Refused(StrEnum):
    """Why a client was turned away. The values are labels of a metric and fields of the log."""

    # Before the greeting.
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_FOR_ADDRESS = "too_many_for_address"
    NETWORK_NOT_ALLOWED = "network_not_allowed"
    NO_PROXY_HEADER = "no_proxy_header"
    # TLS.
    TLS_ON_PLAIN_PORT = "tls_on_plain_port"
    PLAIN_ON_TLS_PORT = "plain_on_tls_port"
    TLS_TOO_OLD = "tls_too_old"
    TLS_NOT_TRUSTED = "tls_not_trusted"  # the client does not trust the certificate
    TLS_FAILED = "tls_failed"
    TLS_NOT_OFFERED = "tls_not_offered"
    # Logging in.
    MECHANISM_UNKNOWN = "mechanism_unknown"
    AUTH_NEEDS_TLS = "auth_needs_tls"
    AUTH_REQUIRED = "auth_required"
    AUTH_MALFORMED = "auth_malformed"
    AUTH_CANCELLED = "auth_cancelled"
    LOGIN_UNKNOWN = "login_unknown"
    PASSWORD_WRONG = "password_wrong"  # noqa: S105 - a label
    TOKEN_REFUSED = "token_refused"  # noqa: S105 - a label
    OWN_TOKEN_REQUIRED = "own_token_required"  # noqa: S105 - a label
    SIGN_IN_NEEDED = "sign_in_needed"  # of the mailbox, at its provider
    LOGIN_UNAVAILABLE = "login_unavailable"
    CREDENTIAL_EXPIRED = "credential_expired"
    CREDENTIAL_DISABLED = "credential_disabled"
    CREDENTIAL_NETWORK = "credential_network"  # used from an address outside its networks
    CREDENTIAL_BUSY = "credential_busy"  # too many connections or messages of this credential
    GUESSING_SLOWED = "guessing_slowed"
    LOGIN_TOO_LATE = "login_too_late"
    LOGIN_ENDED = "login_ended"  # its settings changed or it was revoked during the session
    # The envelope and the content.
    SENDER_NOT_ALLOWED = "sender_not_allowed"
    SENDER_MALFORMED = "sender_malformed"
    RECIPIENT_MALFORMED = "recipient_malformed"
    SMTPUTF8_MISSING = "smtputf8_missing"  # of an address that is not ASCII
    TOO_MANY_RECIPIENTS = "too_many_recipients"
    PARAMETER_UNKNOWN = "parameter_unknown"
    TOO_LARGE = "too_large"
    LINE_ENDS = "line_ends"
    CONTENT_MALFORMED = "content_malformed"
    NUL_IN_CONTENT = "nul_in_content"
    CONTENT_BROKEN_OFF = "content_broken_off"
    NO_END_OF_DATA = "no_end_of_data"  # the client waits for a reply after LF.LF
    MESSAGE_REFUSED = "message_refused"  # by the provider
    MESSAGE_DELAYED = "message_delayed"  # 4yz: the client is to try again
    OUT_OF_MEMORY = "out_of_memory"  # the budget for buffered octets is spent
    # Commands and time.
    BAD_COMMANDS = "bad_commands"
    TOO_MANY_COMMANDS = "too_many_commands"
    TOO_SLOW = "too_slow"
    IDLE = "idle"
    INTERNAL_ERROR = "internal_error"
    LEFT = "left"  # without a reason: it saw the greeting, and did not log in


# A client that sends something unknown and then fails to log in was turned away because of its
# login: a reason replaces another only if it says at least as much. Those not listed say most.
_WEIGHTS = {
    Refused.BAD_COMMANDS: 0,
    Refused.IDLE: 0,
    Refused.LEFT: 0,
    Refused.AUTH_REQUIRED: 1,
    Refused.AUTH_CANCELLED: 1,
    Refused.LOGIN_TOO_LATE: 1,
}
_MOST = 2


class ClientObserver(Protocol):
    """Hears of clients. It is fast, does not raise, and keeps no `ConnectedClient`."""

    def turned_away(self, client: ConnectedClient) -> None:
        """The client was turned away, for `client.reason`."""
        ...

    def finished(self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply) -> None:
        """A transaction got its final reply; the relay's own refusal is in `client.reason`."""
        ...


class NoObserver:
    """An observer that ignores everything."""

    def turned_away(self, client: ConnectedClient) -> None:
        """Ignore it."""

    def finished(self, client: ConnectedClient, sender: str, size_bytes: int, reply: Reply) -> None:
        """Ignore it."""


_NO_OBSERVER = NoObserver()


class ConnectedClient:
    """What the client of one connection is known by; the session and its dialogue fill it in.

    `reason` is why it was turned away if it leaves now. Nothing here is a password or a token.
    """

    __slots__ = (
        "account",
        "address",
        "attempts",
        "credential",
        "detail",
        "greeting",
        "is_known",
        "listener",
        "login",
        "mechanism",
        "messages",
        "observer",
        "reason",
        "reply",
        "sender",
        "session_id",
        "tls",
    )

    def __init__(
        self,
        address: str = "",
        listener: str = "",
        session_id: str = "",
        observer: ClientObserver = _NO_OBSERVER,
    ) -> None:
        self.address = address  # of the client itself, behind a load balancer too
        self.listener = listener
        self.session_id = session_id
        self.observer = observer
        self.greeting = ""  # the argument of EHLO or HELO
        self.tls = ""  # the version, e.g. "TLSv1.2"; "": in clear
        self.mechanism = ""  # of the last AUTH
        self.login = ""  # of the last AUTH: a known login, or a text that hides what was typed
        self.account = ""  # the account's key once the client has logged in
        self.credential = ""  # the name of the credential that logged it in
        self.sender = ""  # of the last MAIL that was refused
        self.messages = 0  # that got a positive reply
        self.is_known = False  # to the observer, which was told something of this session
        self.attempts = 0  # in a row that failed for `reason`
        self.reason: Refused | None = None
        self.detail = ""  # what the reason's sentence names; never a secret
        self.reply: Reply | None = None  # that the client got

    def refuse(self, reason: Refused, detail: str = "", reply: Reply | None = None) -> None:
        """Note why the client is turned away if it leaves now.

        A reason that says less than the present one is dropped, as is one without a detail if the
        present one is the same and has a detail.
        """
        if reason is self.reason:
            self.attempts += 1
            if not detail:
                return
        elif self.reason is not None and _weight(reason) < _weight(self.reason):
            return
        else:
            self.attempts = 1
        self.reason, self.detail, self.reply = reason, detail, reply

    def forgive(self) -> None:
        """Note that the client got what it wanted after all."""
        if self.reason is not None:
            self.reason = self.reply = None
            self.detail = ""
            self.attempts = 0

    def report(self) -> None:
        """Tell the observer that the client was turned away, if it was."""
        if self.reason is not None:
            self.is_known = True
            self.observer.turned_away(self)
            self.forgive()

    def finished(self, sender: str, size_bytes: int, reply: Reply) -> None:
        """Tell the observer that a transaction got its final reply."""
        self.messages += reply.is_positive
        self.is_known = True
        self.observer.finished(self, sender, size_bytes, reply)
        self.forgive()


def _weight(reason: Refused) -> int:
    return _WEIGHTS.get(reason, _MOST)
