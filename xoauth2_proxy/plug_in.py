"""What the author of a plug-in imports: docs/refreshers.md says how to write one."""

from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.accounts.refresher_info import RefresherInfo
from xoauth2_proxy.config.secret import Secret
from xoauth2_proxy.config.section import Section as Options
from xoauth2_proxy.config.section import optional, required
from xoauth2_proxy.config.values import Url
from xoauth2_proxy.errors import (
    GrantRevoked,
    SignInRefused,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
)
from xoauth2_proxy.oauth.attempt import Attempt, DeviceAttempt, SignInResult
from xoauth2_proxy.oauth.endpoint import open_session, send_request
from xoauth2_proxy.oauth.grant import Grant, TokenResponse
from xoauth2_proxy.oauth.refreshers import Refresher, Revokes, SignsIn, SignsInOnDevice

__all__ = [
    "Attempt",
    "DeviceAttempt",
    "Grant",
    "GrantRevoked",
    "OAuthClient",
    "Options",
    "Refresher",
    "RefresherInfo",
    "Revokes",
    "Secret",
    "SignInRefused",
    "SignInResult",
    "SignsIn",
    "SignsInOnDevice",
    "TokenEndpointRefused",
    "TokenEndpointUnavailable",
    "TokenResponse",
    "Url",
    "open_session",
    "optional",
    "required",
    "send_request",
]
