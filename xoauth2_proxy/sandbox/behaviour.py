"""The behaviour of a provider without faults.

One definition gives the types, their bounds and the published schema.
"""

from dataclasses import replace
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

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Seconds = Annotated[float, Field(ge=0, le=_MAX_SECONDS)]
Period = Annotated[float, Field(gt=0, le=_MAX_SECONDS)]
Delay = Annotated[float, Field(ge=0, le=600)]


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

    dialect: ProviderProfile = Field(
        default=ProviderProfile.UNLIMITED,
        strict=False,
        description="The provider whose words and EHLO it uses.",
    )
    greeting: str = Field(
        default="", max_length=400, description="Text of the 220 greeting; empty: the dialect's."
    )
    tls: TlsMode = Field(
        default=TlsMode.STARTTLS, strict=False, description="How clients protect the connection."
    )
    auth_without_tls: bool = Field(default=False, description="Offer AUTH before STARTTLS too.")
    withhold: frozenset[str] = Field(
        default=frozenset(), strict=False, description="EHLO keywords not to offer."
    )
    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES,
        ge=1,
        le=1 << 31,
        description="Largest message, as announced by SIZE.",
    )
    max_recipients: int = Field(default=100, ge=1, description="Most recipients of a message.")
    max_auth_line_bytes: int = Field(
        default=512,  # RFC 4954 §4
        ge=32,
        le=MAX_AUTH_LINE_BYTES,
        description="Longest AUTH command, with its initial response and CRLF.",
    )
    max_connections: int = Field(
        default=MAX_CONNECTIONS, ge=1, description="Most connections of all clients."
    )
    max_connections_per_mailbox: Count = Field(
        default=0, description="Most connections that are logged in as one mailbox."
    )
    connections_refused_at: RefusalPoint = Field(
        default=RefusalPoint.AUTH,
        strict=False,
        description="Where a connection beyond that limit is refused.",
    )
    rate_limits: bool = Field(
        default=True,
        description="Apply the limits of logins, messages, recipients and token requests in a "
        "minute and in a day.",
    )
    messages_per_minute: Count = Field(default=0, description="Messages of a mailbox in a minute.")
    is_excess_delayed: bool = Field(
        default=False, description="Accept messages beyond that rate, but delay each."
    )
    messages_per_day: Count = Field(default=0, description="Messages of a mailbox in a day.")
    recipients_per_day: Count = Field(default=0, description="Recipients of a mailbox in a day.")
    logins_per_minute: Count = Field(
        default=0, description="Logins of a mailbox, good or not, in a minute."
    )
    minute_seconds: Period = Field(default=60.0, description="Length of a minute in these limits.")
    day_seconds: Period = Field(
        default=86_400.0, description="Length of a day in these limits; it is a sliding period."
    )
    session_seconds: Seconds = Field(default=0.0, description="Age at which sessions are closed.")
    idle_seconds: Period = Field(
        default=IDLE_SECONDS, description="Idle time after which sessions are closed."
    )
    refusal_seconds: Delay = Field(default=0.0, description="Delay of the reply to a failed AUTH.")
    rtt_seconds: float = Field(
        default=0.0, ge=0, le=60, description="Delay of every flight of replies."
    )
    accept_seconds: Delay = Field(
        default=0.0, description="Delay from the final dot to the 250: constant, or median."
    )
    accept_p99_seconds: Delay = Field(
        default=0.0, description="99th percentile of that delay; zero: it is constant."
    )

    def __post_init__(self) -> None:
        if 0.0 < self.accept_p99_seconds < self.accept_seconds:
            raise ValueError("accept_p99_seconds is smaller than accept_seconds, the median")
        if self.accept_p99_seconds and not self.accept_seconds:
            raise ValueError("accept_p99_seconds needs accept_seconds, the median")

    def in_force(self) -> "Behaviour":
        """Return the behaviour without the rates that are switched off."""
        if self.rate_limits:
            return self
        return replace(
            self,
            messages_per_minute=0,
            messages_per_day=0,
            recipients_per_day=0,
            logins_per_minute=0,
        )

    def as_document(self) -> dict[str, object]:
        """Return every setting by name, as in the `overrides` of a settings file."""
        document: dict[str, object] = TypeAdapter(Behaviour).dump_python(self, mode="json")
        return document | {"withhold": sorted(self.withhold)}

    def describe_limit(self, name: str) -> str:
        """Return a limit as the reason of a refusal, such as `limit max_recipients=100`."""
        return f"limit {name}={shown(getattr(self, name))}"


def shown(value: object) -> str:
    """Return a setting's value for people."""
    if isinstance(value, frozenset):
        return " ".join(sorted(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
