from __future__ import annotations

import base64
import socket
import ssl
from typing import TYPE_CHECKING

import aiosmtplib
import pytest

from bench.submission import (
    Endpoint,
    Login,
    Mechanism,
    Submission,
    SubmissionFailed,
    failure_of,
    initial_response,
    is_listening,
)
from tests.benchmark.runs import MAILBOX
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTENT = b"Subject: dots\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"


def submission(
    server: ScriptedServer, mechanism: Mechanism = Mechanism.PLAIN, secret: str = PASSWORD
) -> Submission:
    return Submission(Endpoint("127.0.0.1", server.port), Login(MAILBOX, mechanism, lambda: secret))


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound and not listening: refuses, and stays ours
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("mechanism", list(Mechanism))
async def test_each_mechanism_logs_in_and_the_octets_arrive(mechanism: Mechanism) -> None:
    async with scripted_server() as server:
        client = submission(server, mechanism)
        await client.open()
        await client.send(MAILBOX, "recipient@outlook.com", CONTENT)
        await client.close()
    (accepted,) = server.accepted
    assert (accepted.mailbox, accepted.reverse_path) == (MAILBOX, MAILBOX)
    assert accepted.forward_path == "recipient@outlook.com"
    assert accepted.content == CONTENT
    assert server.commands[-1] == b"QUIT"


@pytest.mark.parametrize("mechanism", [Mechanism.PLAIN, Mechanism.XOAUTH2, Mechanism.OAUTHBEARER])
async def test_a_long_secret_goes_in_two_steps(mechanism: Mechanism) -> None:
    async with scripted_server() as server:
        client = submission(server, mechanism, PASSWORD + "x" * 1000)
        await client.open()
        client.abort()
    auth = next(line for line in server.commands if line.startswith(b"AUTH"))
    assert auth == b"AUTH " + mechanism.upper().encode()


async def test_the_longest_command_line_is_512_octets() -> None:
    async with scripted_server() as server:
        for length in range(300, 400):
            client = submission(server, Mechanism.XOAUTH2, PASSWORD + "x" * length)
            await client.open()
            client.abort()
    lines = [line for line in server.commands if line.startswith(b"AUTH")]
    assert {len(line.split()) for line in lines} == {2, 3}
    assert max(map(len, lines)) + 2 <= 512


@pytest.mark.parametrize(
    ("mechanism", "answer"), [(Mechanism.XOAUTH2, b""), (Mechanism.OAUTHBEARER, b"AQ==")]
)
async def test_the_error_challenge_is_answered_and_the_refusal_read(
    mechanism: Mechanism, answer: bytes
) -> None:
    async with scripted_server() as server:
        client = submission(server, mechanism, "stale token")
        with pytest.raises(SubmissionFailed) as caught:
            await client.open()
    assert str(caught.value.failure) == "535 5.7.8 no"
    assert server.commands[-1] == answer
    assert not client.is_open


async def test_a_refused_recipient_leaves_the_connection_usable() -> None:
    script = ScriptedServer(
        reply_to_recipient=lambda path: "550 5.1.1 who?" if path == "nobody@x.test" else "250 ok"
    )
    async with scripted_server(script) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"550 5\.1\.1 who\?"):
            await client.send(MAILBOX, "nobody@x.test", CONTENT)
        await client.send(MAILBOX, "somebody@x.test", CONTENT)
        await client.close()
    assert (server.connections, len(server.accepted)) == (1, 1)


async def test_421_ends_the_connection() -> None:
    async with scripted_server(
        ScriptedServer(reply_to_content=lambda _: "421 4.3.2 bye")
    ) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"421 4\.3\.2 bye"):
            await client.send(MAILBOX, "somebody@x.test", CONTENT)
        assert not client.is_open


async def test_a_lost_connection_is_a_kind_of_its_own() -> None:
    async with scripted_server(ScriptedServer(drops_connection=lambda _: True)) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed) as caught:
            await client.send(MAILBOX, "somebody@x.test", CONTENT)
    assert caught.value.failure.code == "connection lost"
    assert not client.is_open


async def test_sending_without_a_connection_fails() -> None:
    async with scripted_server() as server:
        with pytest.raises(SubmissionFailed, match="connection lost"):
            await submission(server).send(MAILBOX, "somebody@x.test", CONTENT)


async def test_a_refused_connection_is_a_kind_of_its_own(unused_port: int) -> None:
    client = submission(ScriptedServer(port=unused_port))
    with pytest.raises(SubmissionFailed) as caught:
        await client.open()
    assert caught.value.failure.code == "connection refused"


async def test_listening_or_not(unused_port: int) -> None:
    async with scripted_server() as server:
        assert await is_listening(Endpoint("127.0.0.1", server.port), 5.0)
    assert not await is_listening(Endpoint("127.0.0.1", unused_port), 5.0)


def test_initial_responses() -> None:
    def response(mechanism: Mechanism, mailbox: str = "a=b@x.test") -> bytes:
        return initial_response(Login(mailbox, mechanism, lambda: "s"), "s")

    assert response(Mechanism.PLAIN) == b"\0a=b@x.test\0s"
    assert response(Mechanism.XOAUTH2) == b"user=a=b@x.test\1auth=Bearer s\1\1"
    assert response(Mechanism.OAUTHBEARER) == b"n,a=a=3Db@x.test,\1auth=Bearer s\1\1"


def test_the_secret_is_not_shown() -> None:
    assert "hidden" not in repr(Login(MAILBOX, Mechanism.PLAIN, lambda: "hidden"))
    assert base64.b64encode(b"hidden").decode() not in repr(Mechanism.PLAIN)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (aiosmtplib.SMTPResponseException(550, "5.1.1 a\nb\x1b[2J"), "550 5.1.1 a b [2J"),
        (aiosmtplib.SMTPResponseException(-1, "Malformed"), "protocol error (-1, 'Malformed')"),
        (aiosmtplib.SMTPReadTimeoutError("x"), "timeout no answer within 120 s"),
        (aiosmtplib.SMTPConnectTimeoutError("x"), "timeout no answer within 120 s"),
        (aiosmtplib.SMTPServerDisconnected("x"), "connection lost"),
        (
            caused(aiosmtplib.SMTPConnectError("x"), OSError("Multiple: [Errno 111] a")),
            "connection refused",
        ),
        (
            caused(aiosmtplib.SMTPConnectError("x"), OSError("no route")),
            "connection failed no route",
        ),
        (caused(aiosmtplib.SMTPConnectError("x"), ssl.SSLError("bad cert")), "tls failed"),
        (aiosmtplib.SMTPException("no STARTTLS"), "protocol error no STARTTLS"),
    ],
)
def test_kinds_of_failure(error: Exception, expected: str) -> None:
    assert str(failure_of(error)).startswith(expected)


def test_a_long_reply_is_cut() -> None:
    assert len(failure_of(aiosmtplib.SMTPResponseException(550, "x" * 9999)).text) == 200
