"""Pieces of configuration files for scenarios, and what the sandbox's answers say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.relay import MAILBOX, PASSWORD

if TYPE_CHECKING:
    from tests.support.sandbox import Sandbox
    from xoauth2_proxy.smtp.protocol import Reply


def account(email: str = MAILBOX, **changes: object) -> dict[str, object]:
    """Return a mock account whose upstream is the embedded sandbox, with `changes`."""
    return {"email": email, "provider": "mock", "password": PASSWORD} | changes


def one_account(**changes: object) -> dict[str, object]:
    """Return a configuration of that account alone."""
    return {"accounts": [account() | changes]}


def upstream_at(sandbox: Sandbox) -> dict[str, object]:
    """Return the `upstream` of an account whose provider is `sandbox`, which was started."""
    host, port = sandbox.smtp_address
    return {"host": host, "port": port, "tls": "starttls", "ca_file": str(sandbox.ca_file)}


def id_in(answer: Reply) -> str:
    """Return the id under which the sandbox kept the message of this 250."""
    assert answer.code == 250, str(answer)
    assert answer.text[0].startswith("OK "), str(answer)
    return answer.text[0].removeprefix("OK ")
