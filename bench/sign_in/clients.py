"""Finds the OAuth client that the users of a run sign in to: given, kept, or registered now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.sign_in import kept_clients
from bench.sign_in.authorization_server import RegisteredClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.sign_in.authorization_server import AuthorizationServer
    from bench.sign_in.request import SignInRequest


def client_for(
    request: SignInRequest,
    server: AuthorizationServer,
    redirect_uri: str,
    announce: Callable[[str], None],
    *,
    is_kept: bool,
) -> RegisteredClient:
    """Return the client; one that is registered now is saved for later runs if `is_kept`. Blocks.

    Raises:
        ProviderError: the server registers none.
    """
    if request.client_id:
        return RegisteredClient(request.client_id, request.client_secret)
    if is_kept:
        kept = kept_clients.load(request.state_dir, server.issuer)
        # Of a loopback redirect URI any port is good (RFC 8252 §7.3), unless one was asked for.
        may_be_used = kept and (not request.callback_port or redirect_uri in kept.redirect_uris)
        if kept and may_be_used and server.knows(kept):
            return kept
    client = server.register(redirect_uri, request.asked_scopes)
    announce(f"Registered a client at {server.issuer}.")
    if is_kept:
        try:
            file = kept_clients.save(request.state_dir, server.issuer, client)
        except OSError as error:
            announce(f"The client is not kept for the next run: {error}")
        else:
            announce(f"It is kept for the next run in {file}.")
    return client
