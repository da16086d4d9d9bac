"""Access tokens for programs: the proxy's cache, refreshes and stores as a Python API.

Described in docs/token-manager.md. Importing it starts nothing.
"""

import logging

from xoauth2_proxy.oauth.token_info import TokenInfo
from xoauth2_proxy.token_manager.blocking import BlockingTokenManager
from xoauth2_proxy.token_manager.default import default_manager
from xoauth2_proxy.token_manager.manager import TokenManager
from xoauth2_proxy.token_manager.providers import (
    ClientCredentials,
    Google,
    Microsoft,
    Provider,
    SignedIn,
)
from xoauth2_proxy.token_manager.service import ManagerClosed
from xoauth2_proxy.token_manager.tokens import Token

__all__ = [
    "BlockingTokenManager",
    "ClientCredentials",
    "Google",
    "ManagerClosed",
    "Microsoft",
    "Provider",
    "SignedIn",
    "Token",
    "TokenInfo",
    "TokenManager",
    "default_manager",
]

# Otherwise Python prints the bare words of our records for a program that set up no logging, which
# is told by the errors.
logging.getLogger("xoauth2_proxy").addHandler(logging.NullHandler())
