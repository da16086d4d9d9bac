"""The behaviour of a provider without faults, and the profiles of three kinds of provider.

One definition gives the types, their bounds and the published schema. A provider's published
figure is given with its source; others are estimates and say so.
"""

from dataclasses import fields
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from xoauth2_proxy.accounts.accounts import TlsMode

MAX_MESSAGE_BYTES = 35_882_577  # what Gmail announces
MAX_CONNECTIONS = 10_000
IDLE_SECONDS = 300.0  # RFC 5321 §4.5.3.2.7: at least 5 minutes
MAX_AUTH_LINE_BYTES = 12_288 + len("AUTH OAUTHBEARER ")  # RFC 4954 §4, for the base64
_MAX_SECONDS = 86_400.0
_PERIODS = ("minute_seconds", "day_seconds")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Field(ge=0, le=_MAX_SECONDS)]


class ProviderProfile(StrEnum):
    """The kind of provider that the sandbox imitates."""

    UNLIMITED = "unlimited"
    GMAIL = "gmail"
    OUTLOOK = "outlook"


class RefusalPoint(StrEnum):
    """Where a mailbox with too many connections is refused."""

    AUTH = "auth"  # and the connection is closed
    DATA = "data"  # the DATA command, or the first BDAT
    END = "end"  # when the content is complete


@dataclass(frozen=True, slots=True, kw_only=True, config=STRICT)
class Behaviour:
    """What the provider offers, allows and says. Zero means no limit and no wait."""

    dialect: Annotated[
        ProviderProfile,
        Field(strict=False, description="The provider whose words and EHLO it uses."),
    ] = ProviderProfile.UNLIMITED
    greeting: Annotated[
        str, Field(max_length=400, description="Text of the 220 greeting; empty: the dialect's.")
    ] = ""
    tls: Annotated[
        TlsMode, Field(strict=False, description="How clients protect the connection.")
    ] = TlsMode.STARTTLS
    auth_without_tls: Annotated[bool, Field(description="Offer AUTH before STARTTLS too.")] = False
    withhold: Annotated[
        frozenset[str], Field(strict=False, description="EHLO keywords not to offer.")
    ] = frozenset()
    max_message_bytes: Annotated[
        int, Field(ge=1, le=1 << 31, description="Largest message, as announced by SIZE.")
    ] = MAX_MESSAGE_BYTES
    max_recipients: Annotated[int, Field(ge=1, description="Most recipients of a message.")] = 100
    max_auth_line_bytes: Annotated[
        int,
        Field(
            ge=32,
            le=MAX_AUTH_LINE_BYTES,
            description="Longest AUTH command, with its initial response and CRLF.",
        ),
    ] = 512  # RFC 4954 §4
    max_connections: Annotated[int, Field(ge=1, description="Most connections of all clients.")] = (
        MAX_CONNECTIONS
    )
    max_connections_per_mailbox: Annotated[
        Count, Field(description="Most connections that are logged in as one mailbox.")
    ] = 0
    connections_refused_at: Annotated[
        RefusalPoint,
        Field(strict=False, description="Where a connection beyond that limit is refused."),
    ] = RefusalPoint.AUTH
    messages_per_minute: Annotated[
        Count, Field(description="Messages of a mailbox in a minute.")
    ] = 0
    is_excess_delayed: Annotated[
        bool, Field(description="Accept messages beyond that rate, but delay each.")
    ] = False
    messages_per_day: Annotated[Count, Field(description="Messages of a mailbox in a day.")] = 0
    recipients_per_day: Annotated[Count, Field(description="Recipients of a mailbox in a day.")] = 0
    logins_per_minute: Annotated[
        Count, Field(description="Logins of a mailbox, good or not, in a minute.")
    ] = 0
    minute_seconds: Annotated[
        float, Field(gt=0, le=_MAX_SECONDS, description="Length of a minute in these limits.")
    ] = 60.0
    day_seconds: Annotated[
        float,
        Field(
            gt=0,
            le=_MAX_SECONDS,
            description="Length of a day in these limits; it is a sliding period.",
        ),
    ] = 86_400.0
    session_seconds: Annotated[Seconds, Field(description="Age at which sessions are closed.")] = (
        0.0
    )
    idle_seconds: Annotated[
        float,
        Field(gt=0, le=_MAX_SECONDS, description="Idle time after which sessions are closed."),
    ] = IDLE_SECONDS
    refusal_seconds: Annotated[
        float, Field(ge=0, le=600, description="Delay of the reply to a failed AUTH.")
    ] = 0.0
    rtt_seconds: Annotated[
        float, Field(ge=0, le=60, description="Delay of every flight of replies.")
    ] = 0.0
    accept_seconds: Annotated[
        float,
        Field(
            ge=0, le=600, description="Delay from the final dot to the 250: constant, or median."
        ),
    ] = 0.0
    accept_p99_seconds: Annotated[
        float,
        Field(ge=0, le=600, description="99th percentile of that delay; zero: it is constant."),
    ] = 0.0

    def __post_init__(self) -> None:
        if 0.0 < self.accept_p99_seconds < self.accept_seconds:
            raise ValueError("accept_p99_seconds is smaller than accept_seconds, the median")
        if self.accept_p99_seconds and not self.accept_seconds:
            raise ValueError("accept_p99_seconds needs accept_seconds, the median")

    def as_document(self) -> dict[str, object]:
        """Return every setting by name, as in the `overrides` of a settings file."""
        shown: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, frozenset):
                value = sorted(value)
            shown[field.name] = value.value if isinstance(value, StrEnum) else value
        return shown

    def describe_limit(self, name: str) -> str:
        """Return a limit as the reason of a refusal, such as `limit max_recipients=100`."""
        value = getattr(self, name)
        return f"limit {name}={f'{value:g}' if isinstance(value, float) else value}"

    def describe(self) -> list[tuple[str, str, str]]:
        """Return name, value and meaning of each setting that has an effect."""
        properties = TypeAdapter(Behaviour).json_schema()["properties"]
        rows = []
        for field in fields(self):
            value = getattr(self, field.name)
            if not value or (field.name in _PERIODS and value == field.default):
                continue
            if isinstance(value, frozenset):
                shown = " ".join(sorted(value))
            else:
                shown = f"{value:g}" if isinstance(value, float) else str(value)
            rows.append((field.name, shown, str(properties[field.name]["description"])))
        return rows


PROFILES = {
    ProviderProfile.UNLIMITED: Behaviour(),
    ProviderProfile.GMAIL: Behaviour(
        dialect=ProviderProfile.GMAIL,
        # github.com/jstedfast/MailKit/issues/1343: an inline token of more than 697 characters
        # is refused, which makes a line of about 1000 octets.
        max_auth_line_bytes=1024,
        max_connections_per_mailbox=10,  # not published; what senders stay below
        messages_per_day=2000,  # support.google.com/a/answer/166852, Workspace
        recipients_per_day=10_000,  # the same
        logins_per_minute=60,  # not published, but there is a limit
    ),
    ProviderProfile.OUTLOOK: Behaviour(
        dialect=ProviderProfile.OUTLOOK,
        max_message_bytes=157_286_400,  # what Exchange Online announces
        max_recipients=500,  # its default; administrators choose up to 1000
        max_auth_line_bytes=MAX_AUTH_LINE_BYTES,  # clients send 4 kB inline, and it takes them
        # learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements:
        # three connections; what is beyond 30 messages a minute is "carried over"; 10,000
        # recipients a day.
        max_connections_per_mailbox=3,
        # github.com/nodemailer/nodemailer/issues/1613: "Message failed", which is what that client
        # calls a refusal after the final dot.
        connections_refused_at=RefusalPoint.END,
        messages_per_minute=30,
        is_excess_delayed=True,
        recipients_per_day=10_000,
        session_seconds=1200.0,  # not published; about 20 minutes are seen
        refusal_seconds=5.0,  # github.com/nodemailer/nodemailer/issues/1484
    ),
}
