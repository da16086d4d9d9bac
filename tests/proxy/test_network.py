from __future__ import annotations

import pytest

from xoauth2_proxy.network import host_of, is_loopback


@pytest.mark.parametrize("host", ["localhost", "LocalHost", "127.0.0.1", "127.255.0.9", "::1"])
def test_hosts_of_this_machine_only_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "192.0.2.1", "example.com", "localhost.example", "127.1", "[::1]"],
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("LOCALHOST:8025", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:8025", "::1"),
        ("[::1]", "::1"),
        ("127.0.0.1.example.com:80", "127.0.0.1.example.com"),
        ("", ""),
    ],
)
def test_a_host_header_names_a_host(header: str, host: str) -> None:
    assert host_of(header) == host
