"""Says in plain words why a client was turned away, and what would let it in.

`CAUSES` is the only place with these sentences: the log, the page *Devices*, `GET /clients` and the
command `clients` show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import TYPE_CHECKING, Protocol

from xoauth2_proxy.clients.interface import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping


class Fix(StrEnum):
    """What an administrator can do about it with one button."""

    NONE = ""
    ADD_ADDRESS = "add_address"  # a credential without a password, for this address
    ADD_KEY = "add_key"  # a credential with a generated password
    SIGN_IN = "sign_in"  # the mailbox, at its provider


class Facts(Protocol):
    """What the sentences name: a `ConnectedClient`, or a `ClientSeen`."""

    detail: str
    greeting: str
    listener: str
    tls: str
    mechanism: str
    login: str
    account: str
    credential: str
    sender: str


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a client was turned away, and the remedy; "" where there is nothing to do."""

    cause: str
    remedy: str = ""
    fix: Fix = Fix.NONE
    more: str = ""  # goes on from `cause` where there is a detail


CAUSES: Mapping[Refused, Cause] = {
    Refused.TOO_MANY_CONNECTIONS: Cause(
        "the listener {listener} had as many clients as it takes",
        "raise max_connections of the listener if all of them are yours",
    ),
    Refused.TOO_MANY_FOR_ADDRESS: Cause(
        "has as many connections as the listener {listener} allows one address",
        "let the device close its connections, or raise max_connections_per_address",
    ),
    Refused.NETWORK_NOT_ALLOWED: Cause(
        "its address is in no network that may use the listener {listener}",
        "add the address to networks of that listener, and restart the proxy",
    ),
    Refused.NO_PROXY_HEADER: Cause(
        "is listed in proxies of the listener {listener}, but sent no PROXY header",
        "turn the PROXY protocol on at the load balancer, or take its address out of proxies",
    ),
    Refused.TLS_ON_PLAIN_PORT: Cause(
        "speaks TLS from the first octet, and the listener {listener} does not",
        'give the listener, or another one, "tls": "auto", or set the device to what the listener '
        "has: STARTTLS if it has a certificate, else no encryption",
        more=": {detail}",
    ),
    Refused.PLAIN_ON_TLS_PORT: Cause(
        "speaks in clear or waits for a greeting, and the listener {listener} expects TLS from the "
        "first octet",
        'set the device to SSL/TLS (not STARTTLS), or give the listener "tls": "auto"',
    ),
    Refused.TLS_TOO_OLD: Cause(
        "speaks only TLS versions older than the listener {listener} allows",
        'allow its version on one listener ("tls_min": "1.0"), or turn TLS off in the device and '
        "use a listener for clients in clear",
        more=": {detail}",
    ),
    Refused.TLS_NOT_TRUSTED: Cause(
        "does not trust the certificate of the listener {listener}",
        "install a certificate whose authority the device knows, import that authority into the "
        "device, or turn its verification off",
    ),
    Refused.TLS_FAILED: Cause(
        "the TLS handshake failed",
        "look whether the device trusts the certificate of the listener {listener} and knows its "
        "kind of key; old devices know RSA only",
        more=": {detail}",
    ),
    Refused.TLS_NOT_OFFERED: Cause(
        "asked for STARTTLS, which the listener {listener} does not offer",
        "give the listener a certificate, or turn encryption off in the device",
    ),
    Refused.MECHANISM_UNKNOWN: Cause(
        "wants to log in with {mechanism}, which the listener {listener} does not offer",
        "choose another login method in the device, or add it to mechanisms of a listener if it "
        "is one of those the proxy knows",
    ),
    Refused.AUTH_NEEDS_TLS: Cause(
        "would send its password without TLS, and the listener {listener} does not accept that",
        "turn STARTTLS on in the device, or let it use a listener with allow_insecure_auth",
    ),
    Refused.AUTH_REQUIRED: Cause(
        "sends no AUTH",
        "type a login and a password into the device, or, if it has no field for them, add its "
        "address as a credential",
        Fix.ADD_ADDRESS,
    ),
    Refused.AUTH_MALFORMED: Cause(
        "what it sent after AUTH {mechanism} is not what that method demands",
        "choose another login method in the device",
    ),
    Refused.AUTH_CANCELLED: Cause(
        "gave up the login it had begun with AUTH {mechanism}",
        "choose another login method in the device",
    ),
    Refused.LOGIN_UNKNOWN: Cause(
        "its login {login} is unknown",
        "correct the login in the device, or make a credential for it",
        Fix.ADD_KEY,
        more="; did you mean '{detail}'?",
    ),
    Refused.PASSWORD_WRONG: Cause(
        "its password for the login {login} is wrong",
        "type the password of that credential into the device, or make a new one",
        Fix.ADD_KEY,
    ),
    Refused.TOKEN_REFUSED: Cause(
        "the provider refused the access token that it brought for {login}",
        "let the client sign in again, or give it a password of the proxy",
        Fix.ADD_KEY,
    ),
    Refused.OWN_TOKEN_REQUIRED: Cause(
        "logs in to {login} with a password, but that mailbox is only for clients with an access "
        "token of their own",
        "configure client_id for the mailbox and sign it in, or let the client use XOAUTH2",
    ),
    Refused.SIGN_IN_NEEDED: Cause(
        "its login is right, but the mailbox {account} must be signed in at its provider",
        "sign the mailbox in",
        Fix.SIGN_IN,
        more=": {detail}",
    ),
    Refused.LOGIN_UNAVAILABLE: Cause(
        "its login for {login} could not be checked, or there is no access token for the mailbox "
        "at the moment",
        "look at the state of the mailbox; the client tries again by itself",
        more=": {detail}",
    ),
    Refused.CREDENTIAL_EXPIRED: Cause(
        "its credential {login} has expired",
        "make a new credential, or change expires",
        Fix.ADD_KEY,
    ),
    Refused.CREDENTIAL_DISABLED: Cause(
        "its credential {login} is disabled or was revoked",
        'make a new credential, or set "enabled" of this one, if the device is to send again',
        Fix.ADD_KEY,
    ),
    Refused.CREDENTIAL_NETWORK: Cause(
        "uses the credential {login} from an address outside its networks",
        "add the address to networks of that credential, or make one for this device",
        Fix.ADD_KEY,
    ),
    Refused.CREDENTIAL_BUSY: Cause(
        "its credential {login} has as many connections or messages as it is allowed",
        "let the device send less often, or raise the limit of that credential",
        more=": {detail}",
    ),
    Refused.GUESSING_SLOWED: Cause(
        "tried so many wrong passwords that the proxy makes it wait",
        "correct the password in the device, and it gets in ten seconds later; if it is none of "
        "yours, block its address",
    ),
    Refused.LOGIN_TOO_LATE: Cause(
        "did not log in within the time that the listener {listener} gives",
        "look for a device that hangs, or raise login_seconds; if the address is none of yours, "
        "block it",
    ),
    Refused.LOGIN_ENDED: Cause(
        "the settings of its login changed during the session",
        "none is needed: the client logs in again",
    ),
    Refused.SENDER_NOT_ALLOWED: Cause(
        "sends as an address that its credential may not use",
        "set the sender in the device to one that the reply names, add this one to senders of the "
        'credential, or let the proxy rewrite it ("from")',
        more=": {detail}",
    ),
    Refused.SENDER_MALFORMED: Cause(
        "its sender is not an e-mail address",
        'correct the sender\'s address in the device; if the listener has "strict", take that away',
        more=": {detail}",
    ),
    Refused.RECIPIENT_MALFORMED: Cause(
        "a recipient is not an e-mail address",
        "correct the address in the device's address book",
        more=": {detail}",
    ),
    Refused.SMTPUTF8_MISSING: Cause(
        "uses an address with letters beyond ASCII without saying SMTPUTF8",
        "write the address in ASCII, if there is such a form, or use a newer mail program",
        more=": {detail}",
    ),
    Refused.TOO_MANY_RECIPIENTS: Cause(
        "its message has more recipients than relay.max_recipients allows",
        "send to fewer at once, or raise relay.max_recipients",
    ),
    Refused.PARAMETER_UNKNOWN: Cause(
        "its MAIL or RCPT command has a parameter that the proxy does not offer",
        "look for a setting of the device such as delivery reports",
    ),
    Refused.TOO_LARGE: Cause(
        "its message is larger than relay.max_message_bytes, the mailbox's "
        "limits.max_message_bytes or its provider allows",
        "scan with a lower resolution or to several files, or raise the limit",
    ),
    Refused.LINE_ENDS: Cause(
        "its message has line ends other than CRLF, and the listener {listener} is strict",
        'take "strict" from the listener, which then corrects them',
    ),
    Refused.CONTENT_MALFORMED: Cause(
        "the header of its message cannot be read",
        "look at the message's header, which must be shorter than 256 KiB and have one From field",
        more=": {detail}",
    ),
    Refused.NUL_IN_CONTENT: Cause(
        "its message contains a NUL octet, which no mail may",
        "look for a damaged file or template in the program, or for text in UTF-16",
    ),
    Refused.CONTENT_BROKEN_OFF: Cause(
        "stopped in the middle of a message",
        "look at the network between the device and the proxy, and at the device's own time limit",
    ),
    Refused.NO_END_OF_DATA: Cause(
        "waits for a reply after a final dot whose line ends are not CRLF; only CRLF.CRLF ends a "
        "message",
        "set the program to end lines with CRLF (unix2dos, curl --crlf)",
    ),
    Refused.MESSAGE_REFUSED: Cause(
        "the provider refused its message",
        "look at the cause in the log's line of that transaction",
        more=": {detail}",
    ),
    Refused.MESSAGE_DELAYED: Cause(
        "its message could not be delivered yet",
        "the client tries again by itself; the log's line of that transaction has the cause",
        more=": {detail}",
    ),
    Refused.OUT_OF_MEMORY: Cause(
        "all clients together had sent as much content as the proxy may hold",
        "the client tries again by itself; if this is frequent, raise relay.buffer_total_bytes",
    ),
    Refused.BAD_COMMANDS: Cause(
        "sent commands that the proxy does not know, or in the wrong order",
        "look whether it is a mail program at all; if it is one, it may be let in by a listener "
        'without "strict"',
        more=": {detail}",
    ),
    Refused.TOO_MANY_COMMANDS: Cause(
        "sent more commands than the listener {listener} allows in one session",
        "look whether it is a mail program at all; if it is one, raise max_commands",
    ),
    Refused.TOO_SLOW: Cause(
        "took longer for its message than the listener {listener} gives",
        "look at the network between the device and the proxy",
    ),
    Refused.IDLE: Cause(
        "logged in, or greeted, and then said nothing more for too long",
        "look for a device that hangs",
    ),
    Refused.INTERNAL_ERROR: Cause(
        "an error of the proxy ended its session",
        "report it, with the lines of the log before this one",
    ),
    Refused.LEFT: Cause(
        "connected and left without sending anything",
        "nothing, if this was a test of the connection; otherwise compare the device's encryption "
        "and login method with those of the listener {listener}, or let it send without a login",
        Fix.ADD_ADDRESS,
        more="; it had {detail}",
    ),
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sentences about one client."""

    cause: str
    remedy: str
    fix: Fix


def explain(reason: Refused, facts: Facts) -> Explanation:
    """Return why the client was turned away, and the remedy."""
    row = CAUSES[reason]
    cause = row.cause + (row.more if facts.detail else "")
    return Explanation(_filled(cause, facts), _filled(row.remedy, facts), row.fix)


def _filled(sentence: str, facts: Facts) -> str:
    """Put the facts into a sentence; those that are missing have a word as well."""
    names = {name for _, name, _, _ in Formatter().parse(sentence) if name}
    return sentence.format_map({name: getattr(facts, name) or _MISSING[name] for name in names})


_MISSING = {
    "listener": "default",
    "mechanism": "this method",
    "login": "(none)",
    "account": "of that login",
    "sender": "<>",
    "detail": "",
}
