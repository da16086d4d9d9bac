"""Fixtures: a relay with its sandbox provider on free ports, and certificates."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import sys
from contextlib import AsyncExitStack
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
import trustme
import uvloop
from hypothesis import settings

from tests.support.relay import Relay, relay_settings
from tests.support.simulated_time import SimulatedTimeLoop
from xoauth2_proxy.oauth.refreshers import registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tests.support.sandbox import Sandbox
    from xoauth2_proxy.oauth.refreshers import Refresher

# Each test brings its certificate authority. To read those of this machine takes as long as a tenth
# of the proxy's start, in each of the hundreds of processes that the tests start.
os.environ["SSL_CERT_FILE"] = os.devnull

# A shell without job control ignores Ctrl+C for what it runs in the background, and the programs
# that the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=5000)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--both-loops", action="store_true", help="run every asynchronous test on both event loops"
    )
    parser.addoption(
        "--queued-messages", type=int, default=10, help="how many messages wait in a mail server"
    )


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops for a test: uvloop, unless its markers say otherwise.

    `both_loops` is for tests in which a transport of ours is involved. With `--both-loops` all
    tests run on both, except those of another process (`one_loop`), with simulated time, and those
    that name their loops.
    """
    if item.get_closest_marker("simulated_time"):
        return {"simulated time": SimulatedTimeLoop}
    chosen = item.get_closest_marker("asyncio")
    names_its_own = chosen is not None and "loop_factories" in chosen.kwargs
    is_on_both = item.get_closest_marker("both_loops") or (
        config.getoption("--both-loops") and not item.get_closest_marker("one_loop")
    )
    loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return loops if names_its_own or is_on_both else {"uvloop": uvloop.new_event_loop}


PROXY = Path(__file__).parent / "proxy"
# Each starts a program that is not ours; tests that start one by themselves are marked by hand.
OUTSIDE = {"shared_identity_provider", "mail_server"}


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark the tests that need an outside program by way of a fixture."""
    if not OUTSIDE.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.outside)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put `tests/proxy` last: its modules are short, so all processes of a run end together."""
    items.sort(key=lambda item: item.path.is_relative_to(PROXY))


def pytest_collection_finish() -> None:
    """Keep the collected tests out of garbage collections, which would look at them each time."""
    gc.collect()
    gc.freeze()


class StartRelay(Protocol):
    async def __call__(
        self,
        document: dict[str, object] | None = None,
        *,
        sandbox: Sandbox | None = None,
        refreshers: Mapping[str, Refresher] | None = None,
    ) -> Relay: ...


@pytest.fixture(scope="session", autouse=True)
def _entry_points_are_read_once() -> Iterator[None]:
    """Keep the refreshers that the environment offers: to look for them is a third of a start.

    Whoever puts a distribution on `sys.path` has it found.
    """

    @functools.cache
    def found(group: str, path: tuple[str, ...]) -> EntryPoints:
        return entry_points(group=group)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: found(group, tuple(sys.path)))
        yield


@pytest.fixture
async def start_relay(tmp_path: Path) -> AsyncIterator[StartRelay]:
    """Start relays from configurations as a user writes them; each ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            document: dict[str, object] | None = None,
            *,
            sandbox: Sandbox | None = None,
            refreshers: Mapping[str, Refresher] | None = None,
        ) -> Relay:
            chosen = relay_settings(document, tmp_path, sandbox, refreshers)
            return await stack.enter_async_context(Relay(*chosen))

        yield start


@pytest.fixture
async def relay(start_relay: StartRelay) -> Relay:
    """A relay with the four mock mailboxes and its embedded sandbox."""
    return await start_relay()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """A certificate authority for servers of the tests' own."""
    return trustme.CA()
