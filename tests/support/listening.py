"""Closing a test's server without losing a connection that it has just accepted."""

from __future__ import annotations

import asyncio

# asyncio makes the transport, calls its protocol and begins that protocol's task in turns of their
# own.
_TURNS_TO_BEGIN = 4


async def stop_listening(server: asyncio.Server) -> None:
    """Close the server once each connection it accepted has a transport, and its task has begun.

    asyncio (not uvloop) makes the transport in the turn after it accepts. A server that is closed
    in between never makes it, and the socket stays open until the garbage collector finds it.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(_TURNS_TO_BEGIN):
        await asyncio.sleep(0)
    server.close()
