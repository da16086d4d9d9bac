"""Signing in at a provider's server. RFC 6749 §4.1, 7636, 8628; OpenID Connect Core.

The rest of the relay uses `SignInServer`, which `sign_in_server` returns for an account.
`authorization_server` speaks OAuth: `provider_requests` sends its requests, blocking, and
`identity` finds out who signed in. `plug_in_server` asks a plug-in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth.authorization.authorization_server import AuthorizationServer
from xoauth2_proxy.oauth.authorization.plug_in_server import PlugInServer
from xoauth2_proxy.oauth.authorization.sign_in_server import SignInServer

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.refreshers import Refresher

__all__ = ["AuthorizationServer", "SignInServer", "server_of"]


def server_of(account: Account, refresher: Refresher | None, threads: Executor) -> SignInServer:
    """Return where the account's owner signs in; `refresher` is the account's, if it is loaded.

    Raises `TokenEndpointRefused`: its plug-in is disabled.
    """
    plug_in = account.plug_in
    if plug_in is not None and plug_in.fault:
        reason = f"the refresher {plug_in.name} is disabled: {plug_in.fault}"
        raise TokenEndpointRefused(reason)
    if plug_in is not None and plug_in.flows and refresher is not None:
        return PlugInServer(account, refresher)
    return AuthorizationServer(account, threads)
