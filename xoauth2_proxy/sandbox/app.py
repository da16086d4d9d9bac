"""The whole sandbox: a mail provider on this machine, for use without a real account.

It listens on loopback only.
"""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path  # noqa: TC003 - a dataclass field's type
from typing import TYPE_CHECKING, Self

from xoauth2_proxy.accounts.sandbox_addresses import SandboxAddresses
from xoauth2_proxy.network import is_loopback
from xoauth2_proxy.sandbox.behaviour import ProviderProfile
from xoauth2_proxy.sandbox.certificate_authority import CertificateAuthority
from xoauth2_proxy.sandbox.faults import Fault, FaultScript, TokenFault
from xoauth2_proxy.sandbox.message_store import MessageStore
from xoauth2_proxy.sandbox.oauth.authorization_server import AuthorizationServer
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings, SigningAlgorithm
from xoauth2_proxy.sandbox.provider_state import ProviderState
from xoauth2_proxy.sandbox.refusals import format_address
from xoauth2_proxy.sandbox.smtp.server import SmtpServer
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.sandbox.tokens.signing import Signer
from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory
from xoauth2_proxy.sandbox.web.json_api import JsonApi
from xoauth2_proxy.sandbox.web.pages import MessagePages
from xoauth2_proxy.sandbox.web.server import HttpServer
from xoauth2_proxy.sandbox.web.test_api import TestApi

if TYPE_CHECKING:
    from aiohttp import web

    from xoauth2_proxy.sandbox.refusals import Refusals


@dataclass(eq=False)
class Sandbox:
    """A mail provider on loopback: SMTP with XOAUTH2, and HTTP for tokens, pages and tests.

    `tokens`, `ca_file`, `smtp_address` and `http_url` are set once `start` has returned. It may be
    started again after `stop`: on the same ports, with the same messages and faults.

    It accepts any mailbox that a token names; none has to be created. Raises `ValueError`: `host`
    is not a loopback address.
    """

    state_dir: Path
    settings: ProviderSettings = field(default_factory=ProviderSettings)
    _: KW_ONLY
    host: str = "127.0.0.1"
    smtp_port: int = 0  # 0: any free one
    http_port: int | None = 0  # None: no HTTP
    preferred_http_port: int = 0  # where `http_port` is 0: this one, if it is free

    smtp_address: tuple[str, int] = field(init=False)
    http_url: str = field(init=False, default="")  # without a slash at the end; "": no HTTP
    ca_file: Path = field(init=False)
    tokens: MockTokens = field(init=False, repr=False)
    received: MessageStore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.host = "127.0.0.1" if self.host == "localhost" else self.host
        if not is_loopback(self.host):
            raise ValueError(f"the sandbox listens on loopback only, not on {self.host}")
        self.received = MessageStore()
        self.behaviour = self.settings.behaviour
        self._faults: FaultScript[Fault] = FaultScript(self.settings.seed)
        self._token_faults: FaultScript[TokenFault] = FaultScript(self.settings.seed)
        for fault in self.settings.faults:
            self.add_fault(fault)
        self._provider: ProviderState | None = None
        self._smtp_server: SmtpServer | None = None
        self._http_server: HttpServer | None = None
        self._routes: list[web.RouteDef] = []  # those of HTTP, once it was started
        self._authorization_server: AuthorizationServer | None = None

    async def start(self) -> None:
        """Listen."""
        authority = CertificateAuthority.load_or_create(self.state_dir)
        self.ca_file = authority.ca_file
        if self._provider is None:
            self.tokens = await asyncio.to_thread(self._make_tokens)
            self._provider = ProviderState(
                self.behaviour.in_force(),
                self.tokens,
                self.received,
                self._faults,
                self.settings.seed,
            )
        self._smtp_server = SmtpServer(self._provider, authority.server_context())
        self.smtp_address = await self._smtp_server.start(self.host, self.smtp_port)
        self.smtp_port = self.smtp_address[1]
        if self.http_port is not None:
            try:
                await self._start_http(self._provider, self.http_port)
            except BaseException:
                await self.stop()
                raise

    def _make_tokens(self) -> MockTokens:
        settings, key = self.settings.token_endpoint, load_signing_key(self.state_dir)
        signer = None
        match settings.algorithm:
            case SigningAlgorithm.HS256:
                signer = Signer.with_secret(settings.secret.encode() or key)
            case SigningAlgorithm.RS256 | SigningAlgorithm.ES256:
                signer = Signer.with_key_pair(settings.algorithm, self.state_dir)
        return MockTokens(
            key,
            is_like_microsofts=self.behaviour.dialect is ProviderProfile.OUTLOOK,
            signer=signer,
            leeway_seconds=settings.leeway_seconds,
            clock_skew_seconds=settings.clock_skew_seconds,
        )

    async def _start_http(self, provider: ProviderState, port: int) -> None:
        if self._authorization_server is None:
            self._prepare_http(provider)
        assert self._authorization_server is not None  # noqa: S101 - made just now
        self._authorization_server.begin()
        for one in dict.fromkeys((port or self.preferred_http_port, port)):
            self._http_server = HttpServer(self._routes)
            try:
                address = await self._http_server.start(self.host, one)
            except OSError:
                if one == port:
                    raise
            else:
                self.http_port = address[1]
                self.tokens.issuer = self.http_url = f"http://{format_address(address)}"
                break
        host, smtp_port = self.smtp_address
        SandboxAddresses(host, smtp_port, self.http_url).write(self.state_dir)

    async def stop(self) -> None:
        """Stop listening and abort every connection; bounded in time."""
        http_server, self._http_server = self._http_server, None
        smtp_server, self._smtp_server = self._smtp_server, None
        if self._authorization_server is not None:
            self._authorization_server.end()
        try:
            if http_server is not None:
                await http_server.stop()
        finally:
            if smtp_server is not None:
                await smtp_server.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def refusals(self) -> Refusals:
        """What was refused since the first start, and why."""
        if self._provider is None:
            raise RuntimeError("the sandbox was not started")
        return self._provider.refusals

    def add_fault(self, fault: Fault | TokenFault) -> None:
        """Add a fault; its arrivals are counted from now on.

        Raises `ValueError`: there are 1000 already.
        """
        if isinstance(fault, TokenFault):
            self._token_faults.add(fault)
        else:
            self._faults.add(fault)

    def clear_faults(self) -> None:
        """Remove all faults. A session that has stalled stays stalled."""
        self._faults.clear()
        self._token_faults.clear()

    def as_document(self) -> dict[str, object]:
        """Return its present settings, without the clients' ids and secrets."""
        return {
            "behaviour": self.behaviour.as_document(),
            "faults": [fault.as_document() for fault in (*self._faults, *self._token_faults)],
            "token_endpoint": self.settings.token_endpoint.as_document(),
            "seed": self.settings.seed,
        }

    def _prepare_http(self, provider: ProviderState) -> None:
        """Make what is served by HTTP; it stays the same when the sandbox is started again."""
        key = load_signing_key(self.state_dir)
        settings, verifier = self.settings.token_endpoint, provider.verifier
        factory = TokenFactory(verifier, key, settings.rotation)
        self._authorization_server = AuthorizationServer(
            settings, provider, factory, self._token_faults, self.state_dir
        )
        self._routes = [
            *JsonApi(provider, self.as_document).routes(),
            *MessagePages(provider.received, provider.refusals).routes(),
            *self._authorization_server.routes(),
            *TestApi(self.add_fault, self.clear_faults, verifier, factory).routes(),
        ]
