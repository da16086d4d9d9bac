from __future__ import annotations

import asyncio
import socket

import pytest

from tests.benchmark.scripted_server import scripted_server


@pytest.mark.asyncio(loop_factories=["asyncio"])
async def test_the_connection_of_a_client_that_comes_as_the_server_ends_is_closed() -> None:
    async with scripted_server() as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        await asyncio.sleep(0)  # in this turn of the loop the client is accepted, and in the
        await asyncio.sleep(0)  # next, before its transport is made, the server ends
    with client:
        client.setblocking(False)
        assert client.recv(100) in {b"", b"220 scripted.test ESMTP\r\n"}
        assert not client.recv(100)
