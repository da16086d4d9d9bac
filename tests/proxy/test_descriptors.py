"""How descriptors are divided, and what clients hear when there are none."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.smtp_client import Client, message
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.service.descriptors import divide, open_file_limit, open_files
from xoauth2_proxy.submission.acceptor import Acceptor, listening_sockets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("wanted", "upstream", "limit", "places"),
    [
        ([1000], 3, 4096, (1000,)),
        ([1000], 3, 1024, (937,)),  # less 20 in use, the reserve of 64, and 3
        ([1000], 5000, 1024, (502,)),  # one client, one connection
        ([1000, 1000], 0, 1084, (500, 500)),
        ([300, 100], 0, 284, (150, 50)),
        ([10], 0, 16, (1,)),  # it would not even start
    ],
)
def test_clients_get_what_is_not_needed_elsewhere(
    wanted: list[int], upstream: int, limit: int, places: tuple[int, ...]
) -> None:
    division = divide(wanted, upstream, limit, open_now=20)
    assert division.places == places
    assert bool(division.warning()) is (sum(places) < sum(wanted))


def test_the_warning_says_what_to_type() -> None:
    warning = divide([1000], 3, 1024, open_now=20).warning()
    assert "ulimit -n 1087" in warning
    assert "LimitNOFILE=1087" in warning
    assert "937 clients" in warning


def test_the_system_is_asked() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert open_file_limit() == soft
    before = open_files()
    with open(os.devnull, "rb"):
        assert open_files() == before + 1


@pytest.mark.one_loop
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_clients_beyond_the_descriptors_get_a_line_and_the_log_one(
    tmp_path: Path, loop: str, workers: str
) -> None:
    limit = 100
    ready_file, log_file = tmp_path / "ready", tmp_path / "log"
    with log_file.open("wb") as stderr:
        proxy = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "xoauth2_proxy", "--sandbox", "--loop", loop),
            *("--port", "0", "--admin-port", "0", "--state-dir", str(tmp_path)),
            *("--ready-file", str(ready_file), "--workers", workers),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)),
        )
    try:
        await until(ready_file.exists)
        host, _, port = json.loads(ready_file.read_text())["smtp"].rpartition(":")
        async with AsyncExitStack() as stack:
            greetings = [
                (await stack.enter_async_context(await Client.connect(host, int(port)))).greeting
                for _ in range(4 * limit)
            ]
            assert {greeting.code for greeting in greetings} == {220, 421}
            assert greetings[-1] == replies.TOO_MANY_CONNECTIONS
        await until(lambda: is_served(host, int(port)))
    finally:
        proxy.terminate()
        await proxy.wait()
    lines = log_file.read_text().splitlines()
    assert sum("LimitNOFILE=" in line for line in lines) == 1
    assert not [line for line in lines if "Traceback" in line or "out of system" in line]


async def is_served(host: str, port: int) -> bool:
    async with await Client.connect(host, port) as client:
        if client.greeting.code != 220:
            return False
        await client.ehlo()
        logged_in = await client.auth_plain("test.account1@gmail.com", "secret")
        return logged_in.code == 235 and (await client.send(message())).is_positive


class Alone:
    """There are no other workers."""

    def count(self, clients: int) -> int:
        return clients

    def is_ahead(self, clients: int) -> bool:
        return False


@pytest.mark.simulated_time
async def test_without_a_descriptor_clients_wait_and_the_log_tells_it_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    served = asyncio.get_running_loop().create_future()

    async def receive(connection: socket.socket) -> None:
        connection.close()
        served.set_result(None)

    (listening,) = listening_sockets(["127.0.0.1"], 0)
    with socket.socket() as client:
        acceptor = Acceptor([listening], receive, lambda: 0, Alone())
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
        try:
            client.connect(listening.getsockname())
            await asyncio.sleep(150)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not served.done()
        lines = [one for one in caplog.records if "cannot accept clients" in one.getMessage()]
        assert len(lines) == 3
        await served
        acceptor.close()
