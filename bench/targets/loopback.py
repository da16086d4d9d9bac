"""Checks whether a host is this machine, which needs no permission to be measured."""

from __future__ import annotations

import asyncio
import socket

from xoauth2_proxy import network


async def is_loopback(host: str) -> bool:
    """Return whether every address of the host is a loopback address.

    Raises:
        OSError: it cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # not a valid DNS name
        raise OSError(str(error)) from error
    return all(network.is_loopback(str(info[4][0])) for info in found)
