"""The sandbox with a token endpoint, and routes under /test that mint tokens and add faults.

Every program on this machine can use them, so the sandbox that runs inside the proxy has neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.app import Sandbox
from xoauth2_proxy.sandbox.faults import Fault, FaultScript, TokenFault
from xoauth2_proxy.sandbox.oauth.token_endpoint import TokenEndpoint
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory
from xoauth2_proxy.sandbox.web.test_api import TestApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiohttp import web

    from xoauth2_proxy.sandbox.provider_state import ProviderState


class TokenSandbox(Sandbox):
    """A sandbox that issues its tokens itself."""

    def __post_init__(self) -> None:
        self._token_faults: FaultScript[TokenFault] = FaultScript(self.settings.seed)
        self._factory: TokenFactory | None = None
        self._endpoint: TokenEndpoint | None = None
        super().__post_init__()

    async def stop(self) -> None:
        """As `Sandbox.stop`; token requests that hang end first."""
        if self._endpoint is not None:
            self._endpoint.end()
        await super().stop()

    def add_fault(self, fault: Fault | TokenFault) -> None:
        """As `Sandbox.add_fault`, for the token endpoint too."""
        if isinstance(fault, TokenFault):
            self._token_faults.add(fault)
        else:
            super().add_fault(fault)

    def clear_faults(self) -> None:
        """Remove all faults. A session that has stalled stays stalled."""
        super().clear_faults()
        self._token_faults.clear()

    def _routes(self, provider: ProviderState) -> Iterator[web.RouteDef]:
        yield from super()._routes(provider)
        settings, verifier = self.settings.token_endpoint, provider.verifier
        if self._factory is None:
            key = load_signing_key(self.state_dir)
            self._factory = TokenFactory(verifier, key, settings.rotation)
        self._endpoint = TokenEndpoint(
            settings, self._factory, self._token_faults, provider.counters, provider.refusals
        )
        yield from self._endpoint.routes()
        yield from TestApi(self.add_fault, self.clear_faults, verifier, self._factory).routes()

    def _scripted_faults(self) -> Iterator[Fault | TokenFault]:
        yield from super()._scripted_faults()
        yield from self._token_faults
