"""systemd opens the ports and hands them over: each listener takes those with its name."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.proxy_process import ProxyProcess
from tests.support.relay import MAILBOX, PASSWORD
from tests.support.smtp_client import Client, message
from tests.support.waiting import until
from xoauth2_proxy.service.addresses import CannotListen
from xoauth2_proxy.service.inherited_sockets import take_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNTS = [{"email": MAILBOX, "provider": "mock", "password": PASSWORD}]

# What systemd does before it starts a service: it has the sockets as descriptors 3, 4, … and
# says so in variables.
HAND_OVER = """
import os, socket, sys
names, addresses, *command = sys.argv[1:]
opened = [socket.create_server((one, 0), family=socket.AF_INET6 if ":" in one else socket.AF_INET,
                               dualstack_ipv6=one == "::")
          for one in addresses.split(",")]
spare = [os.dup2(one.fileno(), 50 + place) for place, one in enumerate(opened)]
for place, one in enumerate(spare):
    os.dup2(one, 3 + place)
    os.close(one)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(opened)),
               "LISTEN_FDNAMES": names, "LISTEN_PIDFDID": "1"}
os.execv(command[0], command)
"""


def proxy_of(
    directory: Path, document: object, names: str, addresses: str, *arguments: str
) -> ProxyProcess:
    prefix = (sys.executable, "-c", HAND_OVER, names, addresses)
    return ProxyProcess(directory, document, "--sandbox", *arguments, prefix=prefix)


async def sends(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with await Client.connect(host.strip("[]"), int(port)) as client:
        await client.ehlo()
        assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
        assert (await client.send(message())).code == 250


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
async def test_each_listener_has_the_sockets_with_its_name(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    listeners = [{"name": name, "port": 0} for name in ("office", "hall", "yard")]
    document = {"accounts": ACCOUNTS, "listeners": listeners}
    names, addresses = "yard.socket:office:yard.socket", "127.0.0.4,127.0.0.3,::1"
    async with proxy_of(tmp_path, document, names, addresses, *workers) as proxy:
        found = {
            name: [one.rpartition(":")[0] for one in listening]
            for name, listening in proxy.listeners.items()
        }
        assert found == {
            "office": ["127.0.0.3"],
            "hall": ["127.0.0.1"],
            "yard": ["127.0.0.4", "[::1]"],
        }
        for listening in proxy.listeners.values():
            for address in listening:
                await sends(address)
        assert not any(b"LISTEN_" in one for one in environments_of_workers(proxy.process.pid))
        assert await proxy.stop() == 0


def environments_of_workers(parent: int) -> list[bytes]:
    return [
        Path(f"/proc/{pid}/environ").read_bytes()
        for task in Path(f"/proc/{parent}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]


async def test_the_only_listener_takes_them_all_whatever_their_names(tmp_path: Path) -> None:
    async with proxy_of(
        tmp_path, {"accounts": ACCOUNTS}, "proxy.socket:x", "127.0.0.3,127.0.0.4"
    ) as proxy:
        assert len(proxy.listeners["default"]) == 2
        for address in proxy.listeners["default"]:
            await sends(address)
        assert await proxy.stop() == 0


async def test_a_socket_for_the_network_allows_no_more_than_its_configuration(
    tmp_path: Path,
) -> None:
    proxy = proxy_of(tmp_path, {"accounts": ACCOUNTS}, "default", "0.0.0.0")
    with pytest.raises(AssertionError):
        await proxy.__aenter__()
    assert "is on 0.0.0.0, which is no loopback, and there is no TLS" in proxy.stderr
    assert "Traceback" not in proxy.stderr


async def test_a_socket_for_both_kinds_of_addresses_shows_ipv4_as_such(tmp_path: Path) -> None:
    listener = {"allow_insecure_auth": True, "networks": ["127.0.0.0/8"]}
    document = {"accounts": ACCOUNTS, "listener": listener}
    async with proxy_of(tmp_path, document, "default", "::") as proxy:
        async with await Client.connect("127.0.0.1", proxy.port) as client:
            await client.ehlo()
            assert (await client.auth_plain(MAILBOX, "wrong")).code == 535
        await until(lambda: "client=127.0.0.1 " in proxy.stderr)
        assert "::ffff" not in proxy.stderr
        assert await proxy.stop() == 0


# The variables and descriptors.


@pytest.fixture
def descriptor() -> Iterator[int]:
    """The first of two listening sockets, whose descriptors follow one another."""
    first = 700
    for place in range(2):
        with socket.create_server(("127.0.0.1", 0)) as opened:
            os.dup2(opened.fileno(), first + place)
    yield first
    for place in range(2):
        with suppress(OSError):  # it was taken, and closed
            os.close(first + place)


def environ(**changes: str) -> dict[str, str]:
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "HOME": "/"} | changes


def test_descriptors_are_taken_once_and_for_no_child(descriptor: int) -> None:
    given = environ(LISTEN_FDNAMES="a:b", LISTEN_PIDFDID="7")
    found = take_sockets(["a", "b"], given, descriptor)
    assert given == {"HOME": "/"}
    assert {name: [one.fileno() for one in sockets] for name, sockets in found.items()} == {
        "a": [descriptor],
        "b": [descriptor + 1],
    }
    for (one,) in found.values():
        assert not one.get_inheritable()
        assert not one.getblocking()
        one.close()


@pytest.mark.parametrize(
    "changes",
    [{"LISTEN_PID": "1"}, {"LISTEN_PID": ""}, {"LISTEN_FDS": ""}, {"LISTEN_FDS": "-2"}],
)
def test_what_is_for_another_process_is_left_alone(
    descriptor: int, changes: dict[str, str]
) -> None:
    given = environ(**changes)
    assert take_sockets(["a"], given, descriptor) == {}
    assert given == {"HOME": "/"}
    os.fstat(descriptor)


def test_a_socket_without_a_listener_is_named(descriptor: int) -> None:
    with pytest.raises(CannotListen, match=r"named c, .*FileDescriptorName= to one of a, b"):
        take_sockets(["a", "b"], environ(LISTEN_FDNAMES="a:c"), descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)  # closed again


@pytest.mark.parametrize("kind", ["file", "datagrams", "unix", "connection", "nothing"])
def test_what_is_no_listening_socket_is_refused(tmp_path: Path, kind: str) -> None:
    number = 710
    if kind == "file":
        opened: object = (tmp_path / "file").open("w")
    elif kind == "datagrams":
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    elif kind == "unix":
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(str(tmp_path / "socket"))
        opened.listen()
    else:
        opened = socket.socket()
    os.dup2(opened.fileno(), number)  # type: ignore[attr-defined]
    opened.close()  # type: ignore[attr-defined]
    if kind == "nothing":
        os.close(number)
    with pytest.raises(CannotListen, match=r"710 \(a\).* is no listening TCP socket"):
        take_sockets(["a"], environ(LISTEN_FDS="1", LISTEN_FDNAMES="a"), number)
