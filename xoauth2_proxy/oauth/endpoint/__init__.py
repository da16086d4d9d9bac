"""Sends requests to token endpoints and interprets the responses. RFC 6749 §5.

Every library that requests tokens does so through `open_session`, so the same rules apply to all:
`transport` sends, `responses` interprets the response, `failures` explains why there is none.
"""

from xoauth2_proxy.oauth.endpoint.failures import connection_error
from xoauth2_proxy.oauth.endpoint.responses import (
    json_object,
    seconds,
    secrets_of,
    token_error,
    token_response,
    tokens_of,
)
from xoauth2_proxy.oauth.endpoint.transport import (
    EXCHANGE_SECONDS,
    MAX_BODY_BYTES,
    open_session,
    send_request,
)

__all__ = [
    "EXCHANGE_SECONDS",
    "MAX_BODY_BYTES",
    "connection_error",
    "json_object",
    "open_session",
    "seconds",
    "secrets_of",
    "send_request",
    "token_error",
    "token_response",
    "tokens_of",
]
