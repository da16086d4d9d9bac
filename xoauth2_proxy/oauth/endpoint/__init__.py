"""How token endpoints are spoken to, and what their answers mean. RFC 6749 §5.

Every library that asks for tokens does it through `open_session`, so that one set of rules holds
for all of them: `transport` makes the exchange, `answers` judges what came, `failures` says why
nothing came.
"""

from xoauth2_proxy.oauth.endpoint.failures import unreachable
from xoauth2_proxy.oauth.endpoint.responses import document, issued, refusal, secrets_of
from xoauth2_proxy.oauth.endpoint.transport import (
    EXCHANGE_SECONDS,
    MAX_BODY_BYTES,
    ask,
    guard,
    open_session,
)

__all__ = [
    "EXCHANGE_SECONDS",
    "MAX_BODY_BYTES",
    "ask",
    "document",
    "guard",
    "issued",
    "open_session",
    "refusal",
    "secrets_of",
    "unreachable",
]
