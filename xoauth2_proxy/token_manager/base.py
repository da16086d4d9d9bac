"""What the asynchronous and the blocking manager have in common: how they are made and filled."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from xoauth2_proxy.errors import ConfigError
from xoauth2_proxy.files import default_state_dir
from xoauth2_proxy.oauth.stores.factory import open_store
from xoauth2_proxy.token_manager.service import TokenService

if TYPE_CHECKING:
    from xoauth2_proxy.token_manager.providers import Provider

STATE_VARIABLE = "XOAUTH2_PROXY_STATE_DIR"


class ManagerBase:
    """Access tokens by name: a mailbox of a configuration, or what `add_provider` was given.

    Letter case does not matter.
    """

    def __init__(self, directory: Path | str | None = None, *, key: str = "") -> None:
        """Keep tokens in memory, or in a private directory that other processes may share.

        `key` encrypts what is in the directory. Nothing is started or written yet. Raises
        `ConfigError`: it is no usable key.
        """
        kind, place = ("memory", Path()) if directory is None else ("file", Path(directory))
        try:
            self._service = TokenService(
                lambda: open_store(kind, place, key=key), default_state_dir()
            )
        except ValueError as error:
            raise ConfigError([("key", str(error).removeprefix("store.key: "))]) from None

    @classmethod
    def open(cls, config: Path | str, state_dir: Path | str | None = None) -> Self:
        """Return a manager of the mailboxes and the store of a proxy, which may be running.

        `state_dir` is the proxy's; by default that of the environment variable
        XOAUTH2_PROXY_STATE_DIR, or the platform's. Blocks while files are read. Raises
        `ConfigError`: the configuration is invalid, or its store cannot be shared.
        """
        # Here, since a program without a configuration needs none of it.
        from xoauth2_proxy.token_manager.configured import open_service

        state = state_dir or os.environ.get(STATE_VARIABLE) or default_state_dir()
        return cls._of(open_service(Path(config), Path(state)))

    @classmethod
    def _of(cls, service: TokenService) -> Self:
        made = cls.__new__(cls)
        made._service = service
        return made

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else f"{len(self._service.names)} providers"
        return f"<{type(self).__name__}: {state}>"

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._service.is_closed

    def add_provider(self, name: str, provider: Provider) -> None:
        """Add a provider, or replace the one that was added under this name.

        It is not asked for a token yet. Raises `ConfigError` with every problem, `ManagerClosed`.
        """
        self._service.add(name, provider)

    def list_providers(self) -> list[str]:
        """Return the names, in the order in which they were added."""
        return self._service.names
