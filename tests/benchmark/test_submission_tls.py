from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from bench.client.connection import SubmissionFailed
from bench.client.endpoint import Endpoint, Tls
from bench.client.login import ClientLogin, Mechanism
from bench.client.submission import Submission
from tests.benchmark.runs import MAILBOX, invoked
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.beside import beside

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

pytestmark = pytest.mark.both_loops

BOTH = pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.IMPLICIT])


def protected(authority: trustme.CA, tls: Tls) -> ScriptedServer:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return ScriptedServer(tls_context=context, is_tls_implicit=tls is Tls.IMPLICIT)


def submission(server: ScriptedServer, tls: Tls, context: ssl.SSLContext) -> Submission:
    endpoint = Endpoint("127.0.0.1", server.port, tls, context)
    return Submission(endpoint, ClientLogin(MAILBOX, Mechanism.PLAIN, lambda: PASSWORD))


@BOTH
async def test_mail_goes_over_tls(authority: trustme.CA, tls: Tls) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with scripted_server(protected(authority, tls)) as server:
        client = submission(server, tls, context)
        await client.open()
        await client.send(MAILBOX, ["recipient@outlook.com"], b"Subject: x\r\n\r\n")
        await client.close()
    assert len(server.accepted) == 1


@BOTH
async def test_a_certificate_nobody_vouches_for_is_refused(authority: trustme.CA, tls: Tls) -> None:
    async with scripted_server(protected(authority, tls)) as server:
        client = submission(server, tls, ssl.create_default_context())
        with pytest.raises(SubmissionFailed, match="tls failed"):
            await client.open()
        assert not client.is_open
    assert not any(line.startswith(b"AUTH") for line in server.commands)


@BOTH
def test_who_to_trust_is_named_when_nobody_vouches(
    authority: trustme.CA, tls: Tls, tmp_path: Path
) -> None:
    with beside(scripted_server(protected(authority, tls))) as server:
        login = ("--from", MAILBOX, "--password", PASSWORD, "--num-emails", "2")
        code, out, errors = invoked(
            tmp_path, "--port", str(server.port), "--tls", tls.value, *login
        )
    assert code == 1
    assert f"{'STARTTLS' if tls is Tls.STARTTLS else 'CONNECT'}: tls failed" in out
    assert "--ca-file" in errors


def test_a_port_that_does_not_begin_with_tls_is_told_from_a_bad_certificate(
    authority: trustme.CA, tmp_path: Path
) -> None:
    with beside(scripted_server(protected(authority, Tls.STARTTLS))) as server:
        login = ("--from", MAILBOX, "--password", PASSWORD, "--num-emails", "2")
        code, out, errors = invoked(
            tmp_path, "--port", str(server.port), "--tls", "implicit", *login
        )
    assert code == 1
    assert "CONNECT: tls failed the server answers in clear, not in TLS" in out
    assert "--tls starttls" in errors
    assert "--ca-file" not in errors


def test_a_port_that_begins_with_tls_is_suspected_where_none_greets(
    authority: trustme.CA, tmp_path: Path
) -> None:
    with beside(scripted_server(protected(authority, Tls.IMPLICIT))) as server:
        load = ("--num-emails", "2", "--timeout", "0.3", "--tls", "starttls")
        login = ("--from", MAILBOX, "--password", PASSWORD)
        code, _, errors = invoked(tmp_path, "--port", str(server.port), *load, *login)
    assert code == 1
    assert "--tls implicit" in errors


async def test_a_server_without_starttls_gets_no_login() -> None:
    async with scripted_server() as server:
        client = submission(server, Tls.STARTTLS, ssl.create_default_context())
        with pytest.raises(SubmissionFailed, match="STARTTLS"):
            await client.open()
    assert not any(line.startswith(b"AUTH") for line in server.commands)
