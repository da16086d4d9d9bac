"""Components of a relay under test: refreshers and a store of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.oauth.stores.memory import MemoryStore
from xoauth2_proxy.service.components import StandardComponents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.config import Config, ConfigSource
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore


class TestComponents(StandardComponents):
    """Refreshers that the test made come first; grants are forgotten at the end."""

    __test__ = False

    def __init__(
        self, source: ConfigSource, config: Config, by_name: Mapping[str, Refresher]
    ) -> None:
        super().__init__(source, config)
        self.store: TokenStore = MemoryStore()
        self._by_name = by_name

    def refreshers(self, config: Config) -> Mapping[str, Refresher]:
        return {**super().refreshers(config), **self._by_name}
