"""Whether a host is this machine: what the benchmarker may reach without being told so."""

from __future__ import annotations

import asyncio
import ipaddress
import socket


async def is_loopback(host: str) -> bool:
    """Return whether every address of the host is a loopback one.

    Raises:
        OSError: it cannot be resolved.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # no name that DNS could have
        raise OSError(str(error)) from error
    return all(_is_loopback_address(str(info[4][0])) for info in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
