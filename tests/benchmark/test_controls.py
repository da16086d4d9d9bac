from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.cost.client import Entrance, LoadFailed
from bench.cost.content import content
from bench.cost.measure import CheckFailed, measure
from bench.cost.plan import WORKLOADS, RelayName, mailbox
from bench.cost.provider import Flavour, provider
from bench.cost.relays import Relay, flavour_for, relay
from bench.process.child_process import ChildError, running_child
from bench.process.interruption import Interruption
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from bench.cost.provider import Provider

# The relays' own loop is their own matter.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

MESSAGE = content(5000)


@asynccontextmanager
async def running(name: RelayName, folder: Path) -> AsyncIterator[Relay]:
    async with (
        provider(flavour_for(name, 0.0), folder, Interruption()) as upstream,
        relay(name, upstream, folder / name, Interruption()) as started,
    ):
        yield started


def entrance(started: Relay, *, is_pipelined: bool = False) -> Entrance:
    return Entrance(started.address, started.token_for, MESSAGE.wire, is_pipelined=is_pipelined)


@pytest.mark.parametrize("name", RelayName)
async def test_each_relay_delivers_unchanged(name: RelayName, tmp_path: Path) -> None:
    async with running(name, tmp_path) as started:
        for is_pipelined in (False, True):
            enter = entrance(started, is_pipelined=is_pipelined)
            client = await enter.open(mailbox(1))
            for _ in range(2):
                await client.carry_out(*enter.message)
            await enter.close(client)
        assert await started.provider.digests(0) == [MESSAGE.sha256] * 4
        stats = await started.provider.stats()
    assert stats.messages == 4
    assert stats.turns > 4


async def test_naive_refuses_a_wrong_password(tmp_path: Path) -> None:
    async with running(RelayName.NAIVE, tmp_path) as started:
        with pytest.raises(LoadFailed, match="535"):
            await entrance(started).open("nobody@example.com")


async def test_a_refused_message_is_a_failed_load(tmp_path: Path) -> None:
    async with running(RelayName.NAIVE, tmp_path) as started:
        enter = entrance(started)
        client = await enter.open(mailbox(1))
        with pytest.raises(LoadFailed, match="503"):
            await client.carry_out((b"DATA\r\n", b"3"))
        client.close()


async def test_a_connection_lost_is_a_failed_load() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        with pytest.raises(LoadFailed, match="closed the connection"):
            await Entrance(address, None, b"", is_pipelined=False).open(mailbox(0))
    with pytest.raises(LoadFailed, match="no connection"):
        await Entrance(address, None, b"", is_pipelined=False).open(mailbox(0))


async def test_messages_that_do_not_arrive_fail_the_check(tmp_path: Path) -> None:
    few = replace(WORKLOADS["kept"], clients=2, messages=6, warmup_messages=1)
    async with (
        running(RelayName.NAIVE, tmp_path) as started,
        provider(Flavour(has_tls=False), tmp_path, Interruption()) as other,
    ):
        figures, _ = await measure(few, started, is_pipelined=False)
        assert figures.messages == 6
        assert figures.turns_per_message == 4.0
        elsewhere = replace(started, provider=other)
        with pytest.raises(CheckFailed, match="8 messages were acknowledged, 0 arrived"):
            await measure(few, elsewhere, is_pipelined=False)


@pytest.fixture
async def echo() -> AsyncIterator[tuple[str, int]]:
    """A server that says hello, and answers everything with itself once the client is through."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n")
        writer.write(await reader.read())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield host, port


@asynccontextmanager
async def forwarder(upstream: tuple[str, int], folder: Path) -> AsyncIterator[tuple[str, int]]:
    module = ("bench.controls.forwarder", "--upstream", f"{upstream[0]}:{upstream[1]}")
    async with running_child("forwarder", module, folder, Interruption()) as process:
        yield process.address("smtp")


async def test_the_forwarder_changes_no_octet(echo: tuple[str, int], tmp_path: Path) -> None:
    octets = os.urandom(3_000_000)
    async with forwarder(echo, tmp_path) as address, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(octets)
        writer.write_eof()
        assert await reader.read() == b"hello\r\n" + octets
        writer.close()


async def test_the_forwarder_hangs_up_without_an_upstream(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0) as server:
        closed = server.sockets[0].getsockname()
    async with forwarder(closed, tmp_path) as address, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await asyncio.open_connection(*address)
        with suppress(ConnectionResetError):
            assert not await reader.read()
        writer.close()


async def test_a_child_that_does_not_start_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match=r"(?s)it ended at once. It wrote:.*--upstream"):
        async with running_child("it", ("bench.controls.forwarder",), tmp_path, Interruption()):
            pass


async def test_a_fact_that_a_child_does_not_tell(echo: tuple[str, int], tmp_path: Path) -> None:
    module = ("bench.controls.forwarder", "--upstream", f"{echo[0]}:{echo[1]}")
    async with running_child("forwarder", module, tmp_path, Interruption()) as process:
        with pytest.raises(ChildError, match="names no admin"):
            process.text("admin")


async def test_a_sandbox_of_each_flavour_holds_its_turns_back(tmp_path: Path) -> None:
    async with provider(Flavour(False, False, 0.05), tmp_path, Interruption()) as slow:
        assert await greeting_seconds(slow) >= 0.045


async def greeting_seconds(upstream: Provider) -> float:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    reader, writer = await asyncio.open_connection(*upstream.smtp)
    await reader.readline()
    writer.close()
    return loop.time() - begun
