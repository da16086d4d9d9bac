"""Users of a benchmark sign in at npm's identity provider, and their mail leaves by Postfix.

The proxy is the benchmarker's own. Nothing of the provider is ours: its pages, its registration of
clients, its tokens, which Dovecot judges, and its revocation.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmark.runs import command, validate
from tests.benchmark.test_cli_private_proxy import is_default_target_taken
from tests.support.identity_server import CONFIDENTIAL

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer

pytest_plugins = ["tests.support.identity"]
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


async def outcome(
    folder: Path, provider: IdentityProvider, server: MailServer, *more: str
) -> tuple[str, dict[str, Any]]:
    """Run to a successful end; return what was said on standard error, and the document."""
    environment = {"SSL_CERT_FILE": str(provider.ca_file), "XDG_STATE_HOME": str(folder)}
    results = folder / "run.json"
    options = arguments(provider, server, "--output", str(results), *more)
    async with command(folder, *options, environment=environment) as running:
        code, out, errors = await running.end()
    assert code == 0, out + errors
    document = json.loads(results.read_text())
    validate(document)
    return errors, document


def kept_file(folder: Path) -> Path:
    (file,) = folder.glob("xoauth2-proxy/bench-clients/*.json")
    return file


async def test_they_sign_in_and_send_and_leave_nothing(
    tmp_path: Path, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    errors, document = await outcome(tmp_path, identity_provider, mail_server)
    assert document["results"]["successful"] == 9
    assert document["sign_in"]["signed_in"] == 3
    assert document["reconciliation_not_checked_because"].startswith("the mail goes to")
    assert len(mail_server.received) == 9
    counters = identity_provider.counters()
    assert counters.token_requests("authorization_code") == 3
    # The proxy gets a token for each, and the provider replaces the refresh token: its successor
    # ends with the grant.
    assert counters.token_requests("refresh_token") >= 3
    assert counters.of["grants revoked"] >= 3
    assert "could not be" not in errors


async def test_the_client_is_kept_and_registered_anew_where_it_is_unknown(
    tmp_path: Path, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    errors, _ = await outcome(tmp_path, identity_provider, mail_server)
    file = kept_file(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    kept = json.loads(file.read_text())
    assert str(file) in errors
    assert kept["client_secret"]
    assert kept["client_secret"] not in errors
    await outcome(tmp_path, identity_provider, mail_server)
    assert identity_provider.counters().of["clients registered"] == 1
    assert json.loads(file.read_text()) == kept
    file.write_text(json.dumps(kept | {"client_id": "unknown"}))
    await outcome(tmp_path, identity_provider, mail_server)
    assert identity_provider.counters().of["clients registered"] == 2
    assert json.loads(file.read_text())["client_id"] not in {"unknown", kept["client_id"]}


async def test_a_given_clients_secret_is_read_from_a_file_and_shown_nowhere(
    tmp_path: Path, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    secret = identity_provider.secret(CONFIDENTIAL)
    file = tmp_path / "secret"
    file.write_text(f"{secret}\n")
    errors, document = await outcome(
        tmp_path,
        identity_provider,
        mail_server,
        *("--client-id", CONFIDENTIAL, "--client-secret-file", str(file)),
    )
    assert "clients registered" not in identity_provider.counters().of
    assert secret not in errors + json.dumps(document)


async def test_users_without_a_refresh_token_are_named_with_the_reason(
    tmp_path: Path, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(issues_refresh_tokens=False)
    environment = {"SSL_CERT_FILE": str(identity_provider.ca_file), "XDG_STATE_HOME": str(tmp_path)}
    async with command(
        tmp_path, *arguments(identity_provider, mail_server), environment=environment
    ) as running:
        code, out, errors = await running.end()
    assert (code, out) == (1, ""), errors
    reason = "the provider gives no refresh token; ask for it with --scopes"
    for number in (1, 2, 3):
        assert f"bench_user00{number}@mock.test is not signed in: {reason}" in errors
    assert "0 of 3 mailboxes could be added" in errors
