"""The process's own token manager, for programs that hand no manager around."""

from __future__ import annotations

import os
import threading

from xoauth2_proxy.token_manager.manager import TokenManager

CONFIG_VARIABLE = "XOAUTH2_PROXY_CONFIG"

_lock = threading.Lock()
_default: TokenManager | None = None


def default_manager() -> TokenManager:
    """Return the same manager at every call, in every thread; after its `close`, a new one.

    With the environment variable XOAUTH2_PROXY_CONFIG it is that of this configuration
    (`TokenManager.open`), which may raise `ConfigError`; else it is empty and in memory.
    """
    global _default
    with _lock:
        if _default is None or _default.is_closed:
            config = os.environ.get(CONFIG_VARIABLE)
            _default = TokenManager.open(config) if config else TokenManager()
        return _default
