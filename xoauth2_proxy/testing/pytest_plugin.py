"""Fixtures of pytest for programs that send mail with OAuth2: docs/testing.md shows them in use.

Nothing is started, and nothing but pytest is imported, before a test asks for a fixture. One proxy
with its sandbox serves all tests of a process; each test finds no messages and no faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xoauth2_proxy.testing.proxy_process import BadTokens, ProxyProcess, RunningSandbox, User

_SETTINGS = "xoauth2_sandbox_settings"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting of the sandbox's own settings."""
    parser.addini(_SETTINGS, "JSON or TOML file with the settings of the xoauth2 sandbox")


@pytest.fixture(scope="session")
def _xoauth2_process(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[ProxyProcess]:
    from xoauth2_proxy.testing.proxy_process import ProxyProcess

    settings = str(pytestconfig.getini(_SETTINGS))
    file = pytestconfig.rootpath / settings if settings else None
    with ProxyProcess(tmp_path_factory.mktemp("xoauth2"), file) as process:
        yield process


@pytest.fixture
def xoauth2_relay(_xoauth2_process: ProxyProcess) -> ProxyProcess:
    """A proxy whose provider is the sandbox: `host`, `port`, `admin_url`, `sandbox`."""
    _xoauth2_process.sandbox.clear()
    return _xoauth2_process


@pytest.fixture
def xoauth2_sandbox(xoauth2_relay: ProxyProcess) -> RunningSandbox:
    """A mail provider: SMTP with XOAUTH2, tokens, what it received and what it refused."""
    return xoauth2_relay.sandbox


@pytest.fixture
def xoauth2_users(xoauth2_relay: ProxyProcess) -> Iterator[Callable[[int], list[User]]]:
    """Call it with a number to get as many users, each with a mailbox, a password and a token."""
    yield xoauth2_relay.add_users
    xoauth2_relay.remove_users()


@pytest.fixture
def xoauth2_bad_tokens(xoauth2_sandbox: RunningSandbox) -> Callable[[str], BadTokens]:
    """Call it with a mailbox to get tokens that must be refused for it: expired, tampered, …"""
    return xoauth2_sandbox.bad_tokens
