"""What single values of the file may be."""

import ipaddress
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
)

from xoauth2_proxy.credential_files import (
    check_authorities,
    check_client_certificate,
    check_service_account,
)
from xoauth2_proxy.network import Network, fault_of_url, parse_network

if TYPE_CHECKING:
    from xoauth2_proxy.config.environment import Environment

_MAX_ADDRESS_BYTES = 254  # RFC 5321 §4.5.3.1.3: 256 with the angle brackets
_MAX_URL_CHARACTERS = 2000
_MAX_SCOPES = 100
_MAX_SENDERS = 100
_DAY_SECONDS = 86_400.0
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")  # RFC 3339 §5.6, full-date
_SCOPE = re.compile(r"[!#-\[\]-~]+")  # RFC 6749 §3.3, scope-token
# RFC 5321 §4.1.2, but for where dots stand in the local part: the provider decides.
_ATOM, _LABEL = r'[^\s<>"@\\(),:;\[\]]+', r'(?!-)[^\s<>"@\\(),:;\[\].*?%/]+(?<!-)'
_FOUR_NUMBERS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9}){3}")
_ADDRESS = re.compile(rf'(?:"(?:[^"\\]|\\.)+"|{_ATOM})@(?:\[[\w.:]+\]|{_LABEL}(?:\.{_LABEL})*)')

# Names that reach log lines and metric labels.
WORD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
WORD_RULE = "must be 1 to 64 letters, digits, dots, hyphens or underscores"

# What the proxy itself writes into a request: other values would change whose tokens are returned.
_RESERVED_PARAMETERS = frozenset(
    {
        *("assertion", "client_assertion", "client_assertion_type", "client_id", "client_secret"),
        *("code", "code_challenge", "code_challenge_method", "code_verifier", "device_code"),
        *("grant_type", "nonce", "redirect_uri", "refresh_token", "response_type", "scope"),
        *("state", "username", "password"),
    }
)


def _address(address: str) -> str:
    if address.startswith("*@") or "*" in address.rpartition("@")[2]:
        raise ValueError("must be one mailbox; an address with * does not stand for others")
    # `isprintable` also keeps 0x01 out, which would end the user field of XOAUTH2.
    if not _ADDRESS.fullmatch(address) or not address.isprintable():
        raise ValueError("must be one e-mail address, like name@example.com")
    if len(address.encode()) > _MAX_ADDRESS_BYTES:
        raise ValueError("must not be longer than 254 octets")
    return address


def _host(host: str) -> str:
    if not host.isprintable() or any(one.isspace() or one in "${}" for one in host):
        raise ValueError("must be a host name or an IP address")
    if _FOUR_NUMBERS.fullmatch(host) and any(int(one) > 255 for one in host.split(".")):
        raise ValueError("must be a host name or an IP address; no number in one exceeds 255")
    if ":" in host:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError(
                "must be a host name or an IP address alone; the port has its own key"
            ) from None
    return host


def _word(word: str) -> str:
    if not WORD.fullmatch(word):
        raise ValueError(WORD_RULE)
    return word


def _sender(pattern: str) -> str:
    if pattern == "*":
        return pattern
    if "*" in pattern.removeprefix("*@"):
        raise ValueError("must be an address, *@domain, or *")
    try:
        # Any local part does to judge the domain.
        _address(f"a{pattern[1:]}" if pattern.startswith("*@") else pattern)
    except ValueError as error:
        raise ValueError(f"{error}; *@domain and * are allowed too") from None
    return pattern


def _not_empty(senders: tuple[str, ...]) -> tuple[str, ...]:
    if not senders:
        raise ValueError("must not be empty; leave the key out, or set enabled to false")
    return senders


def _network(value: object) -> Network:
    if not isinstance(value, str):
        raise ValueError("must be a network like 192.0.2.0/24, or an IP address")
    return parse_network(value)


def _url(url: str) -> str:
    if fault := fault_of_url(url):
        raise ValueError(fault)
    return url


def _issuer(url: str) -> str:
    if "?" in url:  # OpenID Connect Discovery 1.0 §2
        raise ValueError("must not hold a query (?)")
    return url


def _authority(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https":
        raise ValueError("must begin with https://")
    if parts.path.strip("/") or parts.query:
        raise ValueError("must end after the host; the tenant has its own key")
    return f"https://{parts.netloc}"


def _date(value: object) -> date:
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("must be a date as text, like 2027-01-31")


def _moment(value: object) -> date | datetime:
    if isinstance(value, str):
        if _DATE.fullmatch(value):
            return _date(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            pass
        else:
            if moment.tzinfo is not None:
                return moment
    raise ValueError("must be a date like 2027-01-31, or a time like 2027-01-31T18:00:00Z")


def _scopes(value: object) -> tuple[str, ...]:
    words = value.split(" ") if isinstance(value, str) else value
    if not isinstance(words, list) or not 0 < len(words) <= _MAX_SCOPES:
        raise ValueError("must be words with blanks between, or an array of words")
    if not all(isinstance(word, str) and _SCOPE.fullmatch(word) for word in words):
        raise ValueError("must be words of printable ASCII, with one blank between two")
    return tuple(words)


def _parameter(name: str) -> str:
    if name.lower() in _RESERVED_PARAMETERS:
        raise ValueError("is set by the proxy and cannot be given here")
    return name


def _command(words: tuple[str, ...], info: ValidationInfo) -> Sequence[str]:
    environment: Environment | None = info.context
    return environment.command(words) if environment else words


_PATH: TypeAdapter[str] = TypeAdapter(
    Annotated[str, Field(min_length=1, max_length=4096, strict=True)]
)


def _file(check: Callable[[Path], None] = lambda _: None, *, is_secret: bool = False) -> Any:  # noqa: ANN401 - for Annotated
    """Return how a file's name is read: from the configuration's directory, and checked."""

    def read(value: object, info: ValidationInfo) -> Path:
        environment: Environment | None = info.context
        name = _PATH.validate_python(value)
        if environment is None:
            return Path(name)
        path = environment.path(name)
        check(path)
        if is_secret:
            environment.secret_files.add(path)
        return path

    return PlainValidator(read)


_PATH_SCHEMA = WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 4096})

Address = Annotated[str, AfterValidator(_address)]
Host = Annotated[str, Field(min_length=1, max_length=253), AfterValidator(_host)]  # RFC 1035
HOST: TypeAdapter[str] = TypeAdapter(Host)
IpNetwork = Annotated[
    Network,
    PlainValidator(_network),
    WithJsonSchema({"type": "string", "examples": ["192.168.1.0/24", "fd00::/8"]}),
]
Senders = Annotated[
    tuple[Annotated[str, AfterValidator(_sender)], ...],
    Field(strict=False, max_length=_MAX_SENDERS, json_schema_extra={"minItems": 1}),
    AfterValidator(_not_empty),
]
ListenPort = Annotated[int, Field(ge=0, le=65535)]
Word = Annotated[str, AfterValidator(_word)]
Seconds = Annotated[float, Field(gt=0, le=_DAY_SECONDS)]
Url = Annotated[
    str,
    Field(max_length=_MAX_URL_CHARACTERS, json_schema_extra={"format": "uri"}),
    AfterValidator(_url),
]
Issuer = Annotated[Url, AfterValidator(_issuer)]
Authority = Annotated[Url, AfterValidator(_authority)]
FilePath = Annotated[Path, _file(), _PATH_SCHEMA]
AuthoritiesFile = Annotated[Path, _file(check_authorities), _PATH_SCHEMA]
SecretFile = Annotated[Path, _file(is_secret=True), _PATH_SCHEMA]
ClientCertificateFile = Annotated[
    Path, _file(check_client_certificate, is_secret=True), _PATH_SCHEMA
]
ServiceAccountFile = Annotated[Path, _file(check_service_account, is_secret=True), _PATH_SCHEMA]
Command = Annotated[
    tuple[Annotated[str, Field(max_length=4096)], ...],
    Field(strict=False, min_length=1, max_length=100),
    AfterValidator(_command),
]
Date = Annotated[
    date,
    PlainValidator(_date),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2027-01-31"]}),
]
Moment = Annotated[
    date | datetime,
    PlainValidator(_moment),
    WithJsonSchema({"type": "string", "examples": ["2027-01-31", "2027-01-31T18:00:00Z"]}),
]
Scopes = Annotated[
    tuple[str, ...],
    PlainValidator(_scopes),
    WithJsonSchema(
        {
            "oneOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ]
        }
    ),
]
Parameter = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_parameter)]
