"""Signing in at a provider's authorization server. RFC 6749 §4.1, 7636, 8628; OpenID Connect Core.

`server` is what the rest of the relay uses, `attempts` the values it deals in; `exchange` asks the
server, blocking, and `identity` finds out who signed in.
"""

from xoauth2_proxy.oauth.authorization.attempts import Attempt, DeviceAttempt, SignedIn
from xoauth2_proxy.oauth.authorization.authorization_server import AuthorizationServer

__all__ = ["Attempt", "AuthorizationServer", "DeviceAttempt", "SignedIn"]
