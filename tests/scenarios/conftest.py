"""Fixtures for scenarios: a provider that outlives relays, and the proxy as a process."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.mail_server import MailServer
from tests.support.planted import Planted
from tests.support.proxy_process import ProxyProcess
from tests.support.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    import trustme

    from tests.support.identity_server import IdentityProvider


class StartProcess(Protocol):
    async def __call__(
        self,
        document: object,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
    ) -> ProxyProcess: ...


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """A provider in the test's own process; a proxy that shares `tmp_path` mints its tokens."""
    async with Sandbox(tmp_path, http_port=None) as sandbox:
        yield sandbox


@pytest.fixture
async def start_process(tmp_path: Path) -> AsyncIterator[StartProcess]:
    """Start proxies as a user does; each is killed with the test unless it ended before."""
    async with AsyncExitStack() as stack:

        async def start(
            document: object, *arguments: str, environ: Mapping[str, str] | None = None
        ) -> ProxyProcess:
            process = ProxyProcess(tmp_path, document, *arguments, environ=environ)
            return await stack.enter_async_context(process)

        yield start


@pytest.fixture
def planted() -> Planted:
    """Secrets that no text may hold."""
    return Planted()


@pytest.fixture
async def mail_server(
    identity_provider: IdentityProvider, authority: trustme.CA
) -> AsyncIterator[MailServer]:
    """A mail server that takes the identity provider's tokens."""
    server = MailServer(
        authority,
        identity_provider.issuer,
        identity_provider.key_id,
        identity_provider.public_key_pem,
    )
    async with server:
        yield server
