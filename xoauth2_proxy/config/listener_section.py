"""A listener of the file: where mail clients connect, how protected, and what it allows.

`listener` is one, named `default`; `listeners` is any number of them.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from xoauth2_proxy.config.problems import Fault
from xoauth2_proxy.config.section import Section, optional, setting
from xoauth2_proxy.config.values import HOST, FilePath, IpNetwork, ListenPort, SecretFile, Word
from xoauth2_proxy.credential_files import (
    fault_of_certificate,
    fault_of_file,
    has_rsa_certificate,
)
from xoauth2_proxy.network import LOCALHOST, is_local_network, is_loopback, network_text
from xoauth2_proxy.smtp.sasl import BY_PASSWORD, DEFAULT_MECHANISMS, MECHANISMS
from xoauth2_proxy.submission.policy import ListenerTls
from xoauth2_proxy.submission.server_tls import TlsVersion, fault_of_key_pair

_MAX_HOSTS = 64
_MAX_NETWORKS = 1000
_FOR_ADDRESS = 200  # places; five such addresses are needed to fill a listener


def _hosts(value: object) -> tuple[str, ...]:
    hosts = value if isinstance(value, list) else [value]
    if not 0 < len(hosts) <= _MAX_HOSTS:
        raise ValueError(f"must be an address, or an array of up to {_MAX_HOSTS}")
    found = tuple(HOST.validate_python(one) for one in hosts)
    if len(set(found)) < len(found):
        raise ValueError("must not name an address twice")
    return found


Hosts = Annotated[
    tuple[str, ...],
    PlainValidator(_hosts),
    PlainSerializer(lambda hosts: hosts[0] if len(hosts) == 1 else hosts, when_used="json"),
    WithJsonSchema(
        {
            "oneOf": [
                HOST.json_schema(),
                {
                    "type": "array",
                    "items": HOST.json_schema(),
                    "minItems": 1,
                    "maxItems": _MAX_HOSTS,
                },
            ]
        }
    ),
]


def _mechanisms(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("must be an array of SASL mechanisms, and not be empty")
    known = ", ".join(MECHANISMS)
    if not all(isinstance(one, str) and one in MECHANISMS for one in value):
        raise ValueError(f"must hold no other than {known}")
    if len(set(value)) < len(value):
        raise ValueError("must not name a mechanism twice")
    return tuple(value)


Mechanisms = Annotated[
    tuple[str, ...],
    PlainValidator(_mechanisms),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "enum": [*MECHANISMS]},
            "minItems": 1,
            "uniqueItems": True,
        }
    ),
]


class ListenerSection(Section):
    """Where mail clients connect."""

    name: Word = setting("default", "What the log, status and metrics call it; each has its own.")
    # Loopback, so that a first start exposes nothing; 2525 is the usual unprivileged 587.
    host: Hosts = setting(
        ("127.0.0.1",),
        "Address to listen on, or an array of them; localhost: 127.0.0.1 and ::1.",
    )
    port: ListenPort = setting(2525, "Port to listen on; 0: any free one.")
    tls: Annotated[ListenerTls | None, Field(strict=False)] = optional(
        "none; starttls: the client asks for TLS (the default with a certificate); implicit: TLS "
        "from the first octet; auto: either, as the client begins."
    )
    tls_cert: FilePath | None = optional("PEM certificate chain; relative to this file.")
    tls_key: SecretFile | None = optional("PEM private key of tls_cert; relative to this file.")
    tls_min: Annotated[TlsVersion, Field(strict=False)] = setting(
        TlsVersion.TLS_1_2,
        "Oldest version of TLS; 1.0 and 1.1 are broken, and for old devices on a network that you "
        "trust.",
    )
    allow_insecure_auth: bool = setting(
        False, "Offer AUTH without TLS on an address that is not loopback."
    )
    mechanisms: Mechanisms | None = optional(
        "What AUTH offers and takes. By default PLAIN and LOGIN are offered, and XOAUTH2 and "
        "OAUTHBEARER too where an account takes clients' own tokens; all four are taken."
    )
    auth_equals_line: bool = setting(
        False, "Offer AUTH once more as AUTH=, for clients of the 1990s such as Outlook Express 4."
    )
    networks: Annotated[tuple[IpNetwork, ...], Field(strict=False, max_length=_MAX_NETWORKS)] = (
        setting((), "Networks and addresses that may connect; by default all.")
    )
    proxies: Annotated[tuple[IpNetwork, ...], Field(strict=False)] = setting(
        (),
        "Load balancers, by address or network, whose connections begin with a PROXY header "
        "(version 1 or 2) that names the client.",
    )
    strict: bool = setting(
        False,
        "Refuse what is unambiguous but against RFC 5321: messages and commands with bare line "
        "ends, addresses without brackets, HELO without a name.",
    )
    max_connections: int = setting(
        1000, "Clients at one time; one more is told 421.", ge=1, le=100_000
    )
    max_connections_per_address: Annotated[int, Field(ge=1, le=100_000)] | None = optional(
        "Of these from one IPv4 address or IPv6 /64; those of this machine and of proxies are not "
        "limited. Default: 200, or four fifths of max_connections if that is less."
    )
    # RFC 5321 §4.5.3.2.7: a server waits at least 5 minutes.
    # Longer than programs keep an unused connection for their next message: ten minutes
    # (Nodemailer). RFC 5321 §4.5.3.2.7: at least five.
    idle_seconds: float = setting(900.0, "How long a client may be silent.", gt=0, le=3600)
    # OpenSSH's LoginGraceTime. Scanners need seconds; a person who types AUTH by hand, a minute.
    login_seconds: float = setting(
        120.0, "How long a client may take until it has logged in.", gt=0, le=3600
    )
    # 35 MiB at 20 KiB/s.
    message_seconds: float = setting(
        1800.0, "How long a client may take from MAIL to the end of its message.", gt=0, le=86_400
    )
    # Twice the most recipients that one message can be allowed.
    max_commands: int = setting(
        2000,
        "Commands in a row that bring no message; one more is told 421.",
        ge=10,
        le=1_000_000_000,
    )
    max_bad_commands: int = setting(
        10, "Commands of a session that are no SMTP; the last is told 421.", ge=1, le=1000
    )

    @property
    def tls_mode(self) -> ListenerTls:
        """How connections are protected."""
        if self.tls is not None:
            return self.tls
        return ListenerTls.STARTTLS if self.tls_cert else ListenerTls.NONE

    def offered(self, *, takes_tokens: bool) -> tuple[str, ...]:
        """Return the mechanisms to offer; `takes_tokens`: an account takes clients' own tokens."""
        if self.mechanisms is not None:
            return self.mechanisms
        return DEFAULT_MECHANISMS if takes_tokens else BY_PASSWORD

    @property
    def places_for_address(self) -> int:
        """How many clients of one address may connect."""
        if self.max_connections_per_address is not None:
            return self.max_connections_per_address
        # A bulk mailer opens some dozens; whoever has one address must not shut others out.
        return max(1, min(_FOR_ADDRESS, self.max_connections * 4 // 5))

    @property
    def is_on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return all(map(is_loopback, self.host))

    def faults(self) -> Iterator[Fault]:
        """Yield TLS files that cannot be used, and a listener on which no client could log in."""
        files = {"tls_cert": self.tls_cert, "tls_key": self.tls_key}
        unreadable = {key: fault_of_file(file) for key, file in files.items() if file}
        yield from ((key, fault) for key, fault in unreadable.items() if fault)
        if self.tls_cert and not self.tls_key:
            yield "tls_key", "is required with tls_cert"
        elif self.tls_key and not self.tls_cert:
            yield "tls_cert", "is required with tls_key"
        elif self.tls_cert and self.tls_key:
            is_readable = not any(unreadable.values())
            if is_readable and (
                fault := fault_of_key_pair(self.tls_cert, self.tls_key, self.tls_min)
            ):
                yield "tls_cert", fault
        elif self.tls_mode is not ListenerTls.NONE:
            yield "tls_cert", f'is required with "tls": "{self.tls_mode}", and so is tls_key'
        if self.tls is ListenerTls.NONE and self.tls_cert:
            yield "tls", "contradicts tls_cert; leave one of the two out"
        elif self.tls_mode is ListenerTls.NONE and "tls_min" in self.model_fields_set:
            yield "tls_min", "is for a listener with a certificate; give tls_cert and tls_key"
        elif not self.tls_cert and self.tls_mode is ListenerTls.NONE:
            yield from self._faults_without_tls()

    def _faults_without_tls(self) -> Iterator[Fault]:
        exposed = [host for host in self.host if not is_loopback(host)]
        if exposed and not self.allow_insecure_auth:
            yield (
                "host",
                f"clients could not log in: {exposed[0]} is not loopback, and there is no TLS; "
                "give tls_cert and tls_key (--tls-cert, --tls-key), or allow_insecure_auth "
                "(--allow-insecure-auth)",
            )

    def warnings(self, path: str) -> Iterator[str]:
        """Yield passwords that others could read, a certificate that clients refuse, and balancers
        that could be anyone.

        `path` is the section's JSON path.
        """
        if self.allow_insecure_auth and self.tls_mode is not ListenerTls.IMPLICIT:
            yield (
                f"{path}.allow_insecure_auth: clients of {', '.join(self.host)} may send "
                "passwords and tokens without TLS, for anyone on the way to read"
            )
        if self.tls_min.is_broken:
            yield (
                f"{path}.tls_min: clients of {', '.join(self.host)} may use TLS {self.tls_min}, "
                "which others can break (RFC 8996)"
            )
            if self.tls_cert is not None and not has_rsa_certificate(self.tls_cert):
                yield f"{path}.tls_cert: is for no RSA key, and devices with old TLS know no other"
        for network in self.proxies:
            if network.num_addresses > 1 and not is_local_network(network):
                yield (
                    f"{path}.proxies: whoever connects from {network_text(network)} can claim any "
                    "address; list single balancers, or local networks"
                )
        if self.tls_cert is not None and (fault := fault_of_certificate(self.tls_cert)):
            yield f"{path}.tls_cert: the certificate in {self.tls_cert} {fault}"


def faults_of_all(listeners: Sequence[ListenerSection]) -> Iterator[tuple[int, str, str]]:
    """Yield the number, key and fault of each listener that does not go with one before it."""
    for number, listener in enumerate(listeners):
        for other, before in enumerate(listeners[:number]):
            if before.name.lower() == listener.name.lower():
                yield number, "name", f"is that of listeners[{other}] too; give each its own"
            if before.port == listener.port != 0 and share_address(before.host, listener.host):
                where = f"listeners[{other}].port"
                yield number, "port", f"is {listener.port}, which is {where} too; give each its own"


def share_address(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two lists of hosts have an address in common, as far as their texts tell."""
    ours, theirs = _addresses(one), _addresses(other)
    return any(
        mine == its or mine == _every_like(its) or its == _every_like(mine)
        for mine in ours
        for its in theirs
    )


def _addresses(hosts: Sequence[str]) -> list[str]:
    found: list[str] = []
    for host in map(str.lower, hosts):
        found += LOCALHOST if host == "localhost" else [host]
    return found


def _every_like(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"  # noqa: S104 - to compare with
