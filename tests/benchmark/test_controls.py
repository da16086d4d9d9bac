from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.client.connection import SubmissionFailed
from bench.client.endpoint import Endpoint
from bench.client.login import ClientLogin, Mechanism
from bench.client.submission import ClientBehaviour, Submission
from bench.cost.fleet import Fleet
from bench.cost.measure import CheckFailed, Measurement
from bench.cost.relays import ProviderKind, RunningRelay, running_provider, running_relay
from bench.cost.workloads import WORKLOADS, RelayName
from bench.load.messages import SameMessage
from bench.process.child_process import ChildError, running_child
from bench.process.interruption import Interruption
from bench.reconciliation.reconcile import SandboxMessages
from tests.benchmark.scripted_server import (
    PASSWORD,
    ScriptedServer,
    scripted_server,
)
from tests.support.waiting import PATIENCE_SECONDS, until
from tests.support.workers import open_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# The relays' own loop is their own matter.
pytestmark = pytest.mark.one_loop

MESSAGE = SameMessage(5000)
KEPT = replace(WORKLOADS["kept"], clients=2, messages=6, warmup_messages=1)


@asynccontextmanager
async def running(name: RelayName, folder: Path) -> AsyncIterator[RunningRelay]:
    async with (
        running_provider(ProviderKind.of(name, 0.0), folder, Interruption()) as provider,
        running_relay(name, provider, folder / name, Interruption()) as started,
    ):
        yield started


@pytest.mark.parametrize("name", RelayName)
async def test_each_relay_delivers_unchanged(name: RelayName, tmp_path: Path) -> None:
    async with running(name, tmp_path) as started:
        for is_pipelined in (False, True):
            fleet = Fleet(KEPT, started, MESSAGE, pipelined=is_pipelined)
            assert (await fleet.send(3)).count == 3
            assert (await fleet.send(1)).count == 1
            assert fleet.acknowledged == 4
            fleet.close()
        arrivals = [one async for one in SandboxMessages(started.sandbox_url).arrivals(0)]
    assert [one.sha256 for one in arrivals] == [MESSAGE.sha256] * 8
    assert {one.forward_paths for one in arrivals} == {("recipient@example.org",)}


async def test_each_connection_is_the_next_mailboxs(tmp_path: Path) -> None:
    one_each = replace(KEPT, mailboxes=5, session_messages=1)
    async with running(RelayName.NAIVE, tmp_path) as started:
        await Fleet(one_each, started, MESSAGE, pipelined=False).send(5)
        arrivals = [one async for one in SandboxMessages(started.sandbox_url).arrivals(0)]
    assert len({one.mailbox for one in arrivals}) >= 3
    assert all(one.mailbox.startswith("mailbox0") for one in arrivals)


async def test_naive_refuses_a_wrong_password(tmp_path: Path) -> None:
    async with running(RelayName.NAIVE, tmp_path) as started:
        stranger = ClientLogin("nobody@example.com", Mechanism.PLAIN, lambda: "secret")
        client = Submission(started.endpoint, stranger, ClientBehaviour())
        with pytest.raises(SubmissionFailed, match="535"):
            await client.open()


async def test_a_load_that_fails_ends_at_once() -> None:
    login = ClientLogin("someone@example.org", Mechanism.PLAIN, lambda: PASSWORD)
    refusing = ScriptedServer(reply_to_recipient=lambda _: "550 5.1.1 no")
    async with scripted_server(refusing) as server, asyncio.timeout(PATIENCE_SECONDS):
        relay = RunningRelay(Endpoint("127.0.0.1", server.port), 0, "", "", [login])
        fleet = Fleet(KEPT, relay, MESSAGE, pipelined=False)
        with pytest.raises(SubmissionFailed, match="550"):
            await fleet.send(100_000)
        fleet.close()
        assert server.commands.count(b"DATA") == 0


async def test_messages_that_do_not_arrive_fail_the_check(tmp_path: Path) -> None:
    clear = ProviderKind.of(RelayName.SPLICE, 0.0)
    async with (
        running(RelayName.NAIVE, tmp_path) as started,
        running_provider(clear, tmp_path, Interruption()) as other,
    ):
        figures = await Measurement(KEPT, started, pipelined=False).figures()
        assert figures.messages == 6
        assert figures.turns_per_message == 4.0
        elsewhere = replace(started, sandbox_url=other.http_url)
        with pytest.raises(CheckFailed, match="8 messages were acknowledged, 0 arrived"):
            await Measurement(KEPT, elsewhere, pipelined=False).figures()


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


async def test_the_forwarder_closes_a_connection_that_both_ends_have_ended(
    echo: tuple[str, int], tmp_path: Path
) -> None:
    module = ("bench.controls.forwarder", "--upstream", f"{echo[0]}:{echo[1]}")
    async with running_child("forwarder", module, tmp_path, Interruption()) as process:
        before = open_files(process.pid)
        for is_first_to_end in (True, False):
            reader, writer = await asyncio.open_connection(*process.address("smtp"))
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reader.readline()
                if is_first_to_end:
                    writer.write_eof()
                    assert not await reader.read()
            writer.close()
        await until(lambda: open_files(process.pid) == before)


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


async def test_a_sandbox_holds_its_turns_back(tmp_path: Path) -> None:
    slow = ProviderKind.of(RelayName.SPLICE, 0.05)
    async with running_provider(slow, tmp_path, Interruption()) as provider:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        reader, writer = await asyncio.open_connection(*provider.smtp)
        await reader.readline()
        writer.close()
        assert loop.time() - begun >= 0.045
