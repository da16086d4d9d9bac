"""The configuration: what the file may say, and what the proxy is started with."""

from xoauth2_proxy.config.load import load_config
from xoauth2_proxy.config.schema import json_schema
from xoauth2_proxy.config.settings import (
    AdminConfig,
    Config,
    ListenerConfig,
    Overrides,
    RelayConfig,
)

__all__ = [
    "AdminConfig",
    "Config",
    "ListenerConfig",
    "Overrides",
    "RelayConfig",
    "json_schema",
    "load_config",
]
