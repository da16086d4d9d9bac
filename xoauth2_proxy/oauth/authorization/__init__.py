"""Signing in at a provider's authorization server. RFC 6749 §4.1, 7636, 8628; OpenID Connect Core.

The rest of the relay uses `AuthorizationServer`. `provider_requests` sends its requests, blocking;
`identity` finds out who signed in.
"""

from xoauth2_proxy.oauth.authorization.authorization_server import AuthorizationServer
from xoauth2_proxy.oauth.authorization.provider_requests import (
    Attempt,
    DeviceAttempt,
    SignInResult,
)

__all__ = ["Attempt", "AuthorizationServer", "DeviceAttempt", "SignInResult"]
