"""Fixtures: a relay with a listener in clear or with TLS, and a person's directory beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support.desk import Desk, Security
from tests.support.documents import account
from tests.support.scan import SENDER

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay


class SetUpDesk(Protocol):
    async def __call__(self, security: Security, **of_the_account: object) -> Desk: ...


@pytest.fixture
def set_up(start_relay: StartRelay, authority: trustme.CA, tmp_path: Path) -> SetUpDesk:
    """Start a relay with one listener, and prepare the home directory of the person who sends."""

    async def set_up(security: Security, **of_the_account: object) -> Desk:
        listener: dict[str, object] = {}
        if security != "in clear":
            certificate = authority.issue_cert("localhost", "relay.example")
            certificate.private_key_pem.write_to_path(str(tmp_path / "relay.key"))
            (tmp_path / "relay.key").chmod(0o600)
            with (tmp_path / "relay.pem").open("wb") as chain:
                for pem in certificate.cert_chain_pems:
                    chain.write(pem.bytes())
            # Open to the network, so that no password passes in clear.
            listener = {
                "host": "0.0.0.0",
                "tls": "starttls" if security == "STARTTLS" else "implicit",
                "tls_cert": "relay.pem",
                "tls_key": "relay.key",
            }
        accounts = [account(SENDER, password="PASSWORD", **of_the_account)]
        relay = await start_relay({"accounts": accounts, "listener": listener})
        home = tmp_path / "home"
        home.mkdir()
        authority.cert_pem.write_to_path(str(home / "ca.pem"))
        return Desk(relay, security, home)

    return set_up


@pytest.fixture
def queued_messages(pytestconfig: pytest.Config) -> int:
    """How many messages wait in a mail server: `make test-clients` has hundreds."""
    return int(pytestconfig.getoption("--queued-messages"))
