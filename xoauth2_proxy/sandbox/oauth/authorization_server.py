"""The sandbox's authorization server as a whole: what it serves to programs and to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.oauth.attempts import Attempts
from xoauth2_proxy.sandbox.oauth.client_endpoints import ClientEndpoints
from xoauth2_proxy.sandbox.oauth.clients import Clients
from xoauth2_proxy.sandbox.oauth.id_tokens import IdTokens
from xoauth2_proxy.sandbox.oauth.sign_in_pages import SignInPages
from xoauth2_proxy.sandbox.oauth.token_endpoint import TokenEndpoint
from xoauth2_proxy.sandbox.oauth.token_grants import TokenGrants

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aiohttp import web

    from xoauth2_proxy.sandbox.faults import FaultScript, TokenFault
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.provider_state import ProviderState
    from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory


class AuthorizationServer:
    """Registers clients, signs people in and issues tokens; what waits is kept between starts."""

    def __init__(
        self,
        settings: TokenEndpointSettings,
        provider: ProviderState,
        factory: TokenFactory,
        faults: FaultScript[TokenFault],
        state_dir: Path,
    ) -> None:
        clients, attempts = Clients(settings.clients), Attempts(settings)
        id_tokens = IdTokens(settings, state_dir, provider.verifier.tokens.now)
        grants = TokenGrants(settings, factory, attempts, id_tokens)
        self._endpoint = TokenEndpoint(provider, settings, clients, grants, faults)
        self._for_clients = ClientEndpoints(
            settings, clients, attempts, id_tokens, factory, provider.verifier
        )
        self._for_people = SignInPages(settings, clients, attempts, provider.refusals)

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield from self._endpoint.routes()
        yield from self._for_clients.routes()
        yield from self._for_people.routes()

    def begin(self) -> None:
        """Let requests wait, as after a start."""
        self._endpoint.begin()

    def end(self) -> None:
        """End the token requests that hang."""
        self._endpoint.end()
