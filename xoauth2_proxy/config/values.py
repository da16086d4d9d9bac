"""What single values of the file may be, and what every object of it has in common."""

import ipaddress
import re
from datetime import date
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import PydanticCustomError

from xoauth2_proxy.config.environment import is_loopback

_MAX_ADDRESS_BYTES = 254  # RFC 5321 §4.5.3.1.3: 256 with the angle brackets
_MAX_URL_CHARACTERS = 2000
_DAY_SECONDS = 86_400.0
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # RFC 3339 §5.6, full-date

# One unquoted "@"; the local part may be a quoted string (RFC 5321 §4.1.2).
_ADDRESS = re.compile(r'(?:"(?:[^"\\]|\\.)+"|[^@"\s]+)@[^@"\s]+')

# Names that reach log lines and metric labels.
WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
WORD_RULE = "must be 1 to 64 letters, digits, dots, hyphens or underscores"


def _address(address: str) -> str:
    # `isprintable` also keeps 0x01 out, which would end the user field of XOAUTH2.
    if not _ADDRESS.fullmatch(address) or not address.isprintable():
        raise PydanticCustomError("address", "must be one e-mail address, like name@example.com")
    if len(address.encode()) > _MAX_ADDRESS_BYTES:
        raise PydanticCustomError("address", "must not be longer than 254 octets")
    return address


def _host(host: str) -> str:
    if not host.isprintable() or any(character.isspace() for character in host):
        raise PydanticCustomError("host", "must be a host name or an IP address")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise PydanticCustomError(
                "host", "must be a host name or an IP address alone; the port has its own key"
            ) from None
    return host


def _word(word: str) -> str:
    if not WORD.fullmatch(word):
        raise PydanticCustomError("word", WORD_RULE)
    return word


def _ip_address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise PydanticCustomError("address", "must be an IP address") from None


def fault_of_url(url: str) -> str:
    """Return what is wrong with the URL of a server that is sent secrets; "" for nothing.

    TLS, or this machine: nobody on the way reads what is sent there.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "must be a URL"
    if not url.isascii() or not url.isprintable() or set(url) & set(' "<>\\^`{|}'):
        return "must be a URL, without blanks and in ASCII"
    if not host or parts.scheme not in {"https", "http"}:
        return "must be a URL that begins with https:// and names a host"
    if parts.scheme == "http" and not is_loopback(host):
        return "must begin with https://; http:// is for loopback only"
    if "@" in parts.netloc:
        return "must not hold a user name or a password"
    return "must not hold a fragment (#)" if "#" in url else ""


def _url(url: str) -> str:
    if fault := fault_of_url(url):
        raise PydanticCustomError("url", "{fault}", {"fault": fault})
    return url


def _issuer(url: str) -> str:
    if "?" in url:  # OpenID Connect Discovery 1.0 §2
        raise PydanticCustomError("url", "must not hold a query (?)")
    return url


def _authority(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise PydanticCustomError("url", "must begin with https://")
    if parts.path.strip("/") or parts.query:
        raise PydanticCustomError("url", "must end after the host; the tenant has its own key")
    return f"https://{parts.netloc}"


def _date(value: object) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise PydanticCustomError("date", "must be a date as text, like 2027-01-31")


Address = Annotated[str, AfterValidator(_address)]
Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]  # RFC 1035
IpAddress = Annotated[str, AfterValidator(_ip_address)]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Word = Annotated[str, AfterValidator(_word)]
Seconds = Annotated[float, Field(gt=0, le=_DAY_SECONDS)]
Url = Annotated[
    str,
    Field(max_length=_MAX_URL_CHARACTERS, json_schema_extra={"format": "uri"}),
    AfterValidator(_url),
]
Issuer = Annotated[Url, AfterValidator(_issuer)]
Authority = Annotated[Url, AfterValidator(_authority)]
Date = Annotated[
    date,
    PlainValidator(_date),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2027-01-31"]}),
]


class Section(BaseModel):
    """An object of the file: no unknown keys, no conversions, no null."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_null(cls, value: object) -> object:
        if value is None:
            raise PydanticCustomError("null", "must not be null; leave the key out")
        return value
