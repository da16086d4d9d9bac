"""The wording of each kind of provider: its greeting, EHLO reply and refusals.

The wording comes from the providers' documentation and from clients' logs; the host names are the
sandbox's own, so its logs cannot be mistaken for a real provider's.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from xoauth2_proxy.sandbox.behaviour import ProviderProfile

HOST = "sandbox.invalid"

_BASIC = "PLAIN", "LOGIN"  # offered as providers do; no login by them succeeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """A provider's wording. Texts are lines with codes, and may contain {id}, {time}, {date}."""

    greeting: str  # after the 220
    hello: str  # after the first 250 of EHLO
    extensions: tuple[str, ...]  # in order; SIZE without its value
    mechanisms: tuple[str, ...]
    schemes: str  # of the challenge
    is_challenging: bool  # a refused token draws 334 with the reason before the 535
    accepted: str
    refused: str
    basic_refused: str
    mechanism_retired: str = ""  # of a mechanism that is offered and no longer accepted
    mechanism_unknown: str
    auth_required: str
    login_too_often: str
    line_too_long: str
    too_many_connections: str  # of a mailbox
    too_many_recipients: str
    too_often: str
    too_many_today: str
    is_quota_told_early: bool  # at DATA, before the content
    idle: str
    session_over: str
    shut_down: str  # of a fault that says 421
    tail: str = ""  # at the end of each refusal's last line

    def offers(self, mechanism: str) -> bool:
        """Return whether a client can log in with a token by this mechanism."""
        return mechanism in self.mechanisms and mechanism in ("XOAUTH2", "OAUTHBEARER")

    def takes_password(self, mechanism: str) -> bool:
        """Return whether the mechanism is offered and asks for a password."""
        return mechanism in self.mechanisms and mechanism in _BASIC

    def no_mechanism(self, *, is_offered: bool) -> str:
        """Return the refusal of a mechanism by which no login succeeds."""
        return self.mechanism_retired if is_offered else self.mechanism_unknown

    def encode(self, reply: str) -> bytes:
        """Return the octets of a reply; a refusal ends as this provider's do."""
        if self.tail and reply[:1] in ("4", "5"):
            reply += self.tail
        return encode_reply(reply)


def encode_reply(text: str) -> bytes:
    """Return the octets of a reply, with its identifier and time filled in; b"" for ""."""
    return _encoded(_filled(text) if "{" in text else text)


def _filled(text: str) -> str:
    now = datetime.now(UTC)
    values = {
        "{id}": secrets.token_hex(8).upper(),
        "{time}": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z",
        "{date}": format_datetime(now),
    }
    for name, value in values.items():
        text = text.replace(name, value)
    return text


@lru_cache(maxsize=256)
def _encoded(text: str) -> bytes:
    return b"".join(line.encode() + b"\r\n" for line in text.split("\n")) if text else b""


_UNLIMITED = Dialect(
    greeting=f"{HOST} ESMTP ready",
    hello=f"{HOST} at your service",
    extensions=(
        *("SIZE", "8BITMIME", "AUTH", "STARTTLS", "ENHANCEDSTATUSCODES"),
        *("PIPELINING", "CHUNKING", "SMTPUTF8"),
    ),
    mechanisms=("XOAUTH2", "OAUTHBEARER"),
    schemes="bearer",
    is_challenging=True,
    accepted="235 2.7.0 Accepted",
    refused="535 5.7.8 Username and Password not accepted",
    basic_refused="535 5.7.8 Username and Password not accepted",
    mechanism_unknown="504 5.5.4 Unrecognized authentication type",
    auth_required="530 5.7.0 Authentication Required",
    login_too_often="454 4.7.0 Too many login attempts",
    line_too_long="555 5.5.2 Syntax error, command line too long",
    too_many_connections="421 4.7.0 Too many connections of this mailbox",
    too_many_recipients="452 4.5.3 Too many recipients",
    too_often="450 4.2.1 Too many messages in a minute",
    too_many_today="550 5.4.5 Daily sending limit exceeded",
    is_quota_told_early=True,
    idle="421 4.4.2 Timeout, closing connection",
    session_over="421 4.4.2 Session over, closing connection",
    shut_down="421 4.3.2 Closing on request",
)

# support.google.com/a/answer/3726730 and the logs quoted in github.com/nodemailer/nodemailer
# issue 1388, gen-smtp/gen_smtp issue 140, simonrob/email-oauth2-proxy issue 287. Every refusal ends
# in the identifier of the session and the name of the server.
_GMAIL = replace(
    _UNLIMITED,
    greeting=f"{HOST} ESMTP {{id}} - gsmtp",
    hello=f"{HOST} at your service, [127.0.0.1]",
    mechanisms=("LOGIN", "PLAIN", "XOAUTH2", "PLAIN-CLIENTTOKEN", "OAUTHBEARER", "XOAUTH"),
    schemes="bearer mac",
    refused="535-5.7.8 Username and Password not accepted. For more information, go to\n"
    "535 5.7.8  https://support.google.com/mail/?p=BadCredentials",
    basic_refused="535-5.7.8 Username and Password not accepted. For more information, go to\n"
    "535 5.7.8  https://support.google.com/mail/?p=BadCredentials",
    mechanism_retired="504 5.7.4 Unrecognized Authentication Type",
    login_too_often="454-4.7.0 Too many login attempts, please try again later. Learn more at\n"
    "454 4.7.0  https://support.google.com/mail/answer/7126229",
    line_too_long="555-5.5.2 Syntax error, command line too long. For more information, go to\n"
    "555 5.5.2  https://support.google.com/a/answer/3221692",
    too_many_connections="421 4.7.0 Try again later, closing connection.",
    too_many_recipients="452-4.5.3 Your message has too many recipients. For more information\n"
    "452-4.5.3 regarding Google's sending limits, go to\n"
    "452 4.5.3  https://support.google.com/mail/?p=TooManyRecipientsError",
    too_often="450 4.2.1 Peak SMTP relay limit exceeded.",
    too_many_today="550-5.4.5 Daily user sending limit exceeded. For more information on Gmail\n"
    "550-5.4.5 sending limits go to\n"
    "550 5.4.5  https://support.google.com/a/answer/166852",
    idle="451 4.4.2 Timeout - closing connection.",
    session_over="421 4.7.0 Try again later, closing connection.",
    shut_down="421 4.7.0 Try again later, closing connection.",
    tail=" {id} - gsmtp",
)

# learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements and the logs
# quoted in github.com/python/cpython issue 115251, nodemailer/nodemailer issues 1484 and 1714,
# sabuhish/fastapi-mail issue 75, jordan-wright/email issue 113 (504), simonrob/email-oauth2-proxy
# issue 295 (530).
_OUTLOOK = replace(
    _UNLIMITED,
    greeting=f"{HOST} Microsoft ESMTP MAIL Service ready at {{date}} [{{id}}]",
    hello=f"{HOST} Hello [127.0.0.1]",
    extensions=(
        *("SIZE", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "STARTTLS", "AUTH"),
        *("8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"),
    ),
    mechanisms=("LOGIN", "XOAUTH2"),
    is_challenging=False,
    accepted="235 2.7.0 Authentication successful",
    refused=f"535 5.7.3 Authentication unsuccessful [{HOST} {{time}} {{id}}]",
    basic_refused="535 5.7.139 Authentication unsuccessful, basic authentication is disabled. "
    f"[{HOST} {{time}} {{id}}]",
    mechanism_unknown=f"504 5.7.4 Unrecognized authentication type [{HOST}]",
    auth_required=f"530 5.7.57 Client not authenticated to send mail. [{HOST} {{time}} {{id}}]",
    login_too_often="454 4.7.0 Temporary authentication failure",
    line_too_long="500 5.5.2 Line too long",
    too_many_connections="432 4.3.2 Concurrent connections limit exceeded. "
    f"Visit https://aka.ms/concurrent_sending for more information. [Hostname={HOST}]",
    too_often="451 4.7.0 Temporary server error. Please try again later. PRX4",
    too_many_today="554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; "
    "Failed to process message due to a permanent exception with message "
    "[BeginDiagnosticData]The message can't be submitted because the sender's submission quota "
    f"was exceeded. [Hostname={HOST}]",
    is_quota_told_early=False,
    idle="421 4.4.1 Connection timed out",
    session_over="421 4.4.1 Connection timed out",
    shut_down="421 4.3.2 Service not active",
)

DIALECTS = {
    ProviderProfile.UNLIMITED: _UNLIMITED,
    ProviderProfile.GMAIL: _GMAIL,
    ProviderProfile.OUTLOOK: _OUTLOOK,
}
