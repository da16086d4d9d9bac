"""Users of a benchmark sign in at npm's identity provider, and their mail leaves by Postfix.

The proxy is the benchmarker's own. Nothing of the provider is ours: its pages, its registration of
clients, its tokens, which Dovecot judges, and its revocation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.benchmark.runs import command, validate
from tests.benchmark.test_cli_private_proxy import is_default_target_taken

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.outside,
    pytest.mark.skipif(
        is_default_target_taken(), reason="something listens at 127.0.0.1:2525 already"
    ),
]


def arguments(provider: IdentityProvider, server: MailServer, *more: str) -> tuple[str, ...]:
    upstream = f"{server.host}:{server.port}"
    where = ("--issuer", provider.issuer, "--upstream", upstream, "--to", "someone@example.test")
    run = ("--accounts", "3", "--sign-in", "code", "--num-emails", "9", "--concurrent", "3")
    return (*where, *run, *more)


async def test_they_register_sign_in_send_and_leave_nothing(
    tmp_path: Path, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    environment = {"SSL_CERT_FILE": str(identity_provider.ca_file), "XDG_STATE_HOME": str(tmp_path)}
    results = tmp_path / "run.json"
    options = arguments(identity_provider, mail_server, "--output", str(results))
    async with command(tmp_path, *options, environment=environment) as running:
        code, out, errors = await running.end()
    assert code == 0, out + errors
    document = json.loads(results.read_text())
    validate(document)
    assert document["results"]["successful"] == 9
    assert document["sign_in"]["signed_in"] == 3
    assert document["reconciliation_not_checked_because"].startswith("the mail goes to")
    counters = identity_provider.counters()
    assert counters.token_requests("authorization_code") == 3
    assert counters.token_requests("refresh_token") >= 3  # the proxy's own
    assert "could not be" not in errors
