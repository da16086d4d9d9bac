"""Fixtures that several modules share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.config_files import ConfigFile
from tests.support.fragile_store import FragileStore
from tests.support.leases import Opened
from tests.support.parts import Parts, parts
from tests.support.peers import Upstreams, upstreams
from tests.support.provider import Tokens
from tests.support.refreshers import Clock, ScriptedRefresher
from tests.support.store_places import Place, place_of
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.token_source import TokenSource
from xoauth2_proxy.upstream.connector import Connector
from xoauth2_proxy.upstream.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.sandbox import Sandbox


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Parts]:
    """Parts whose refresher can judge tokens itself."""
    async with parts(tmp_path) as built:
        yield built


@pytest.fixture
def refresher() -> ScriptedRefresher:
    """A refresher that answers as a test says."""
    return ScriptedRefresher()


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    """A configuration file to write."""
    return ConfigFile(tmp_path)


@pytest.fixture
async def network() -> AsyncIterator[Upstreams]:
    """Connections of ours, each with the peer at its other end."""
    async with upstreams() as made:
        yield made


@pytest.fixture
def tokens() -> Tokens:
    """Access tokens for a connector."""
    return Tokens()


@pytest.fixture
def connector(tokens: Tokens) -> Connector:
    return Connector(tokens, "relay.example")


@pytest.fixture
async def opened() -> AsyncIterator[Opened]:
    """What opens connections for a pool."""
    async with upstreams() as network:
        yield Opened(network)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def pool(metrics: Metrics) -> AsyncIterator[Pool]:
    made = Pool(metrics)
    yield made
    made.close()


@pytest.fixture
def clock() -> Clock:
    """A clock that a test puts forward."""
    return Clock()


@pytest.fixture
def store() -> FragileStore:
    """A store that fails when a test says so."""
    return FragileStore()


@pytest.fixture
async def http(sandbox: Sandbox) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the sandbox's pages; the module has the sandbox."""
    async with aiohttp.ClientSession(sandbox.http_url) as session:
        yield session


@pytest.fixture
async def source(
    refresher: ScriptedRefresher, metrics: Metrics, store: FragileStore, clock: Clock
) -> AsyncIterator[TokenSource]:
    """A source of tokens from the refresher, under two of its names."""
    refreshers = {"mock": refresher, "outlook": refresher}
    made = TokenSource(refreshers, metrics, store, clock)
    yield made
    await made.close()


@pytest.fixture
async def place(kind: str, tmp_path: Path) -> AsyncIterator[Place]:
    """A place for grants; the module says of which kinds."""
    async with place_of(kind, tmp_path) as made:
        yield made
