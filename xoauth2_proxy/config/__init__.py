"""The configuration: what the file may say, and what the proxy is started with.

What is named here needs no pydantic, which takes as long to import as many a command runs.
"""

from xoauth2_proxy.config.config import Config, needs_restart
from xoauth2_proxy.config.overrides import Overrides
from xoauth2_proxy.config.source import ConfigSource

__all__ = ["Config", "ConfigSource", "Overrides", "needs_restart"]
