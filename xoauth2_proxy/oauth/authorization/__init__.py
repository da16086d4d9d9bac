"""Signing in at a provider's authorization server. RFC 6749 §4.1, 7636, 8628; OpenID Connect Core.

The rest of the relay uses `AuthorizationServer` and the values of `attempts`. `provider_requests`
sends its requests, blocking; `identity` finds out who signed in.
"""

from xoauth2_proxy.oauth.authorization.attempts import Attempt, DeviceAttempt, SignInResult
from xoauth2_proxy.oauth.authorization.authorization_server import AuthorizationServer

__all__ = ["Attempt", "AuthorizationServer", "DeviceAttempt", "SignInResult"]
