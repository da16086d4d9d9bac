"""The sandbox as a whole: a mail provider for this machine only, so that nothing needs a real
account.

It never listens on anything but loopback.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path  # noqa: TC003 - a dataclass field's type
from typing import TYPE_CHECKING, Literal, Self

from xoauth2_proxy.accounts import TlsMode
from xoauth2_proxy.mock_tokens import MockTokens, load_signing_key
from xoauth2_proxy.sandbox.authority import Authority
from xoauth2_proxy.sandbox.faults import Fault, Faults, Step
from xoauth2_proxy.sandbox.office import (
    IDLE_SECONDS,
    MAX_CONNECTIONS,
    MAX_MESSAGE_BYTES,
    Counters,
    Office,
    Settings,
)
from xoauth2_proxy.sandbox.provider import Provider
from xoauth2_proxy.sandbox.received import MAX_CONTENT_BYTES, MAX_RECORDS, Received
from xoauth2_proxy.sandbox.web import Web

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(eq=False)
class Sandbox:
    """A stand-in mail provider on loopback: SMTP with XOAUTH2, and HTTP to look at what came in.

    `tokens`, `ca_file`, `smtp_address` and `http_url` are there once `start` has returned. It may
    be started again after `stop`: on the same ports, with its memory of messages and faults.

    Raises:
        ValueError: `host` is not a loopback address.
    """

    state_dir: Path
    host: str = field(default="127.0.0.1", kw_only=True)
    smtp_port: int = field(default=0, kw_only=True)  # 0: any free one
    http_port: int | None = field(default=0, kw_only=True)  # None: no HTTP
    tls: TlsMode | Literal["starttls", "implicit", "none"] = field(
        default=TlsMode.STARTTLS, kw_only=True
    )
    auth_without_tls: bool = field(default=False, kw_only=True)  # offer AUTH before STARTTLS too
    withhold: frozenset[str] = field(default=frozenset(), kw_only=True)  # EHLO keywords
    max_message_bytes: int = field(default=MAX_MESSAGE_BYTES, kw_only=True)
    max_connections: int = field(default=MAX_CONNECTIONS, kw_only=True)
    idle_seconds: float = field(default=IDLE_SECONDS, kw_only=True)
    rtt_seconds: float = field(default=0.0, kw_only=True)  # each flight of replies comes later
    max_content_bytes: int = field(default=MAX_CONTENT_BYTES, kw_only=True)
    max_records: int = field(default=MAX_RECORDS, kw_only=True)

    smtp_address: tuple[str, int] = field(init=False)
    http_url: str = field(init=False, default="")  # without a slash at the end; "": no HTTP
    ca_file: Path = field(init=False)
    tokens: MockTokens = field(init=False, repr=False)
    received: Received = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.host = loopback_address(self.host)
        self.received = Received(self.max_content_bytes, self.max_records)
        self._faults = Faults()
        self._office: Office | None = None
        self._provider: Provider | None = None
        self._web: Web | None = None

    async def start(self) -> None:
        """Listen."""
        authority = Authority.load_or_create(self.state_dir)
        self.ca_file = authority.ca_file
        if self._office is None:
            self.tokens = MockTokens(load_signing_key(self.state_dir))
            self._office = Office(self._settings(), self.tokens, self.received, self._faults)
        self._provider = Provider(self._office, authority.server_context())
        self.smtp_address = await self._provider.start(self.host, self.smtp_port)
        self.smtp_port = self.smtp_address[1]
        if self.http_port is not None:
            self._web = Web(self.received, self._office.counters)
            try:
                address = await self._web.start(self.host, self.http_port)
            except BaseException:
                await self.stop()
                raise
            self.http_port = address[1]
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            self.http_url = f"http://{host}:{address[1]}"

    async def stop(self) -> None:
        """Stop listening and abort every connection; bounded in time."""
        web, self._web = self._web, None
        provider, self._provider = self._provider, None
        try:
            if web is not None:
                await web.stop()
        finally:
            if provider is not None:
                await provider.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def counters(self) -> Counters:
        """What has happened since the first start."""
        return self._started.counters

    def add_fault(self, fault: Fault) -> None:
        """Add a fault; its arrivals are counted from now on."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Do nothing wrong from now on. What stalls already goes on stalling."""
        self._faults.clear()

    def revoke(self, token: str) -> None:
        """Refuse this token from now on; sessions it has opened go on."""
        self._started.revoke(token)

    def revoke_all(self) -> None:
        """Refuse every token minted until now; sessions they have opened go on."""
        self._started.revoke_all()

    def close_connections(self, farewell: str = "421 4.4.2 Timeout, closing connection") -> None:
        """Close every connection, as a provider does with idle ones; "" says nothing before."""
        if self._provider is not None:
            self._provider.close_connections(farewell.encode() + b"\r\n" if farewell else b"")

    async def arrived(self, step: Step, nth: int = 1, timeout_seconds: float = 10.0) -> None:
        """Return as soon as the step was reached `nth` times since the first start.

        Raises:
            TimeoutError: it was not within `timeout_seconds`.
        """
        await self._started.arrivals[step].reached(nth, timeout_seconds)

    def arrivals(self, step: Step) -> int:
        """Return how often the step was reached since the first start."""
        return self._started.arrivals[step].count

    @property
    def _started(self) -> Office:
        if self._office is None:
            raise RuntimeError("the sandbox was not started")
        return self._office

    def _settings(self) -> Settings:
        return Settings(
            tls=TlsMode(self.tls),
            auth_without_tls=self.auth_without_tls,
            withhold=frozenset(word.upper() for word in self.withhold),
            max_message_bytes=self.max_message_bytes,
            max_connections=self.max_connections,
            idle_seconds=self.idle_seconds,
            rtt_seconds=self.rtt_seconds,
        )


def loopback_address(host: str) -> str:
    """Return the address to bind for `host`.

    Raises:
        ValueError: it is not a loopback address.
    """
    if host == "localhost":
        return "127.0.0.1"
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"the sandbox listens on loopback only, not on {host}")
    return host
