from __future__ import annotations

import asyncio
import base64
import ssl
import time
from typing import Any

import pytest

from bench.client import connection
from bench.client.connection import SubmissionFailed
from bench.client.endpoint import Endpoint, Tls
from bench.client.login import ClientLogin, Mechanism, initial_response
from bench.client.submission import ClientBehaviour, Submission, is_listening
from bench.measurement.sample import SendFailure
from tests.benchmark.runs import MAILBOX
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.both_loops

PIPELINED_OR_NOT = pytest.mark.parametrize("is_pipelined", [False, True])
CONTENT = b"Subject: dots\r\n\r\n.one\r\n..two\r\n.\r\nend\r\n"


def submission(
    server: ScriptedServer,
    mechanism: Mechanism = Mechanism.PLAIN,
    secret: str = PASSWORD,
    **behaviour: Any,
) -> Submission:
    login = ClientLogin(MAILBOX, mechanism, lambda: secret)
    return Submission(Endpoint("127.0.0.1", server.port), login, ClientBehaviour(**behaviour))


@pytest.mark.parametrize("mechanism", [one for one in Mechanism if one is not Mechanism.NONE])
async def test_each_mechanism_logs_in_and_the_octets_arrive(mechanism: Mechanism) -> None:
    async with scripted_server() as server:
        client = submission(server, mechanism)
        await client.open()
        await client.send(MAILBOX, ["recipient@outlook.com"], CONTENT)
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
    assert str(caught.value.failure) == "AUTH: 535 5.7.8 no"
    assert server.commands[-1] == answer
    assert not client.is_open


async def test_a_refused_recipient_leaves_the_connection_usable() -> None:
    script = ScriptedServer(
        reply_to_recipient=lambda path: "550 5.1.1 who?" if path == "nobody@x.test" else "250 ok"
    )
    async with scripted_server(script) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"^RCPT: 550 5\.1\.1 who\?"):
            await client.send(MAILBOX, ["nobody@x.test"], CONTENT)
        await client.send(MAILBOX, ["somebody@x.test"], CONTENT)
        await client.close()
    assert (server.connections, len(server.accepted)) == (1, 1)


async def test_421_ends_the_connection() -> None:
    async with scripted_server(
        ScriptedServer(reply_to_content=lambda _: "421 4.3.2 bye")
    ) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"421 4\.3\.2 bye"):
            await client.send(MAILBOX, ["somebody@x.test"], CONTENT)
        assert not client.is_open


async def test_a_lost_connection_is_a_kind_of_its_own() -> None:
    async with scripted_server(ScriptedServer(drops_connection=lambda _: True)) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed) as caught:
            await client.send(MAILBOX, ["somebody@x.test"], CONTENT)
    assert caught.value.failure.code == "connection lost"
    assert not client.is_open


async def test_sending_without_a_connection_fails() -> None:
    async with scripted_server() as server:
        with pytest.raises(SubmissionFailed, match="connection lost"):
            await submission(server).send(MAILBOX, ["somebody@x.test"], CONTENT)


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
        return initial_response(ClientLogin(mailbox, mechanism, lambda: "s"), "s")

    assert response(Mechanism.PLAIN) == b"\0a=b@x.test\0s"
    assert response(Mechanism.XOAUTH2) == b"user=a=b@x.test\1auth=Bearer s\1\1"
    assert response(Mechanism.OAUTHBEARER) == b"n,a=a=3Db@x.test,\1auth=Bearer s\1\1"


def test_the_secret_is_not_shown() -> None:
    assert "hidden" not in repr(ClientLogin(MAILBOX, Mechanism.PLAIN, lambda: "hidden"))
    assert base64.b64encode(b"hidden").decode() not in repr(Mechanism.PLAIN)


async def test_without_a_login_nothing_is_authenticated() -> None:
    async with scripted_server(ScriptedServer(needs_login=False)) as server:
        client = submission(server, Mechanism.NONE)
        opening = await client.open()
        await client.send(MAILBOX, ["recipient@outlook.com"], CONTENT)
        await client.close()
    assert opening.auth_seconds is None
    assert len(server.accepted) == 1
    assert not any(line.startswith(b"AUTH") for line in server.commands)


@PIPELINED_OR_NOT
async def test_all_recipients_get_the_message(is_pipelined: bool) -> None:
    paths = ["a@x.test", "b@x.test", "c@x.test"]
    async with scripted_server() as server:
        client = submission(server, is_pipelined=is_pipelined)
        await client.open()
        await client.send(MAILBOX, paths, CONTENT)
        await client.close()
    (accepted,) = server.accepted
    assert (accepted.forward_paths, accepted.content) == (paths, CONTENT)


@PIPELINED_OR_NOT
async def test_one_refused_recipient_fails_the_message_for_all(is_pipelined: bool) -> None:
    script = ScriptedServer(
        reply_to_recipient=lambda path: "550 5.1.1 who?" if path == "b@x.test" else "250 ok"
    )
    async with scripted_server(script) as server:
        client = submission(server, is_pipelined=is_pipelined)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"550 5\.1\.1 who\?"):
            await client.send(MAILBOX, ["a@x.test", "b@x.test", "c@x.test"], CONTENT)
        # A pipelined DATA has been granted: only the end of the connection ends that transaction.
        assert client.is_open is not is_pipelined
        if not client.is_open:
            await client.open()
        await client.send(MAILBOX, ["a@x.test"], CONTENT)
        await client.close()
    assert [accepted.forward_paths for accepted in server.accepted] == [["a@x.test"]]


async def test_a_refusal_behind_the_final_dot_is_one_of_the_content() -> None:
    script = ScriptedServer(reply_to_content=lambda _: "554 5.7.1 spam")
    async with scripted_server(script) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed) as caught:
            await client.send(MAILBOX, ["a@x.test"], CONTENT)
        await client.close()
    assert caught.value.failure == SendFailure("554", "5.7.1 spam", "content")


async def test_a_success_that_is_none_of_this_step_is_called_out_of_turn() -> None:
    script = ScriptedServer(reply_to_content=lambda _: "354 more?")
    async with scripted_server(script) as server:
        client = submission(server)
        await client.open()
        with pytest.raises(SubmissionFailed) as caught:
            await client.send(MAILBOX, ["a@x.test"], CONTENT)
        assert not client.is_open
    assert str(caught.value.failure) == "content: protocol error the server answered 354 more?"


async def test_a_pipelined_message_whose_recipients_are_all_refused_keeps_the_connection() -> None:
    script = ScriptedServer(
        reply_to_recipient=lambda path: "550 5.1.1 who?" if path == "b@x.test" else "250 ok"
    )
    async with scripted_server(script) as server:
        client = submission(server, is_pipelined=True)
        await client.open()
        with pytest.raises(SubmissionFailed, match="550"):
            await client.send(MAILBOX, ["b@x.test"], CONTENT)
        await client.send(MAILBOX, ["a@x.test"], CONTENT)
        await client.close()
    assert (server.connections, len(server.accepted)) == (1, 1)


@pytest.mark.parametrize("is_offered", [True, False])
async def test_pipelining_is_used_only_where_it_is_offered(is_offered: bool) -> None:
    async with scripted_server(ScriptedServer(is_pipelining=is_offered)) as server:
        client = submission(server, is_pipelined=True)
        await client.open()
        server.stall()
        task = asyncio.create_task(client.send(MAILBOX, ["a@x.test"], CONTENT))
        await server.happened(lambda: any(line.startswith(b"MAIL") for line in server.commands))
        server.go_on()
        await task
        assert server.was_ahead is is_offered
        await client.close()
    assert len(server.accepted) == 1


async def test_content_of_eight_bits_is_declared() -> None:
    async with scripted_server() as server:
        client = submission(server)
        await client.open()
        await client.send(MAILBOX, ["a@x.test"], "Subject: ü\r\n\r\n".encode())
        await client.send(MAILBOX, ["a@x.test"], CONTENT)
        await client.close()
    first, second = (line for line in server.commands if line.startswith(b"MAIL"))
    assert first.endswith(b"SIZE=15 BODY=8BITMIME")
    assert b"BODY" not in second


async def test_a_slow_client_takes_the_time_its_content_needs() -> None:
    content = b"Subject: x\r\n\r\n" + b"x" * 984 + b"\r\n"
    async with scripted_server() as server:
        client = submission(server, slow_bytes_per_second=5000.0)
        await client.open()
        seconds = await client.send(MAILBOX, ["a@x.test"], content)
        await client.close()
    assert server.accepted[0].content == content
    assert seconds >= 0.19


async def test_content_shorter_than_a_slice_takes_its_time_as_well() -> None:
    content = b"Subject: x\r\n\r\n" + b"x" * 384 + b"\r\n"
    async with scripted_server() as server:
        client = submission(server, slow_bytes_per_second=5000.0)
        await client.open()
        seconds = await client.send(MAILBOX, ["a@x.test"], content)
        await client.close()
    assert seconds >= 0.07


async def test_a_slow_client_does_not_wait_behind_the_last_octet() -> None:
    async with scripted_server() as server:
        client = submission(server, slow_bytes_per_second=10_000_000.0)
        await client.open()
        began = time.perf_counter()
        for _ in range(300):
            await client.send(MAILBOX, ["a@x.test"], CONTENT)
        seconds = time.perf_counter() - began
        await client.close()
    assert seconds < 15  # a tenth of a second behind each would make thirty


async def test_a_slow_client_hears_the_server_in_the_middle_of_its_content() -> None:
    async with scripted_server() as server:
        client = submission(server, slow_bytes_per_second=10.0)
        await client.open()
        task = asyncio.create_task(client.send(MAILBOX, ["a@x.test"], CONTENT))
        await server.happened(lambda: b"DATA" in server.commands)
        server.interrupt(b"452 4.3.1 full\r\n")
        with pytest.raises(SubmissionFailed, match=r"452 4\.3\.1 full"):
            await task
        assert not client.is_open


async def test_a_second_reply_ends_the_connection_before_it_is_taken_for_the_next() -> None:
    script = ScriptedServer(reply_to_content=lambda _: "250 2.0.0 kept\r\n250 2.0.0 kept")
    async with scripted_server(script) as server:
        client = submission(server)
        await client.open()
        await client.send(MAILBOX, ["a@x.test"], CONTENT)
        assert not client.is_open
        await client.close()  # without QUIT


async def test_a_connection_that_the_server_has_ended_is_not_open() -> None:
    async with scripted_server() as server:
        client = submission(server)
        await client.open()
        server.interrupt(b"421 4.4.2 idle\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while client.is_open:  # noqa: ASYNC110 - the client's own state is what is tested
                await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"what?\r\n", "protocol error not a reply line"),
        (b"250-a\r\n550 b\r\n", "protocol error reply code changes"),
        (b"2" * 5000, "protocol error "),
        (b"554 5.7.1 a\x1b[2J " + b"x" * 999 + b"\r\n", "554 5.7.1 a [2J xxx"),
    ],
)
async def test_what_is_no_reply_or_too_much(octets: bytes, expected: str) -> None:
    async with scripted_server() as server:
        client = submission(server)
        await client.open()
        server.stall()
        task = asyncio.create_task(client.send(MAILBOX, ["a@x.test"], CONTENT))
        await server.happened(lambda: any(line.startswith(b"MAIL") for line in server.commands))
        server.interrupt(octets)
        server.go_on()
        with pytest.raises(SubmissionFailed) as caught:
            await task
    assert str(caught.value.failure).startswith(f"MAIL: {expected}")
    assert len(caught.value.failure.text) <= 200


async def test_replies_without_an_end_are_not_kept() -> None:
    wire = connection.SmtpConnection()
    wire.data_received(b"250 ok\r\n" * 5000)
    with pytest.raises(SubmissionFailed, match="replies without an end"):
        await wire.reply()


async def test_no_reply_in_time_is_a_timeout() -> None:
    async with scripted_server(ScriptedServer(hold_after=0)) as server:
        client = submission(server, reply_seconds=0.5)
        await client.open()
        with pytest.raises(SubmissionFailed, match=r"timeout no answer within 0\.5 s"):
            await client.send(MAILBOX, ["a@x.test"], CONTENT)
        assert not client.is_open


async def test_no_greeting_in_time_is_a_timeout() -> None:
    async with scripted_server() as server:
        server.stall()
        with pytest.raises(SubmissionFailed, match=r"timeout no answer within 0\.05 s"):
            await submission(server, reply_seconds=0.05).open()


async def test_no_connection_in_the_time_for_a_reply_is_a_timeout() -> None:
    async with scripted_server() as server:
        server.stall()  # so that TLS gets no answer
        endpoint = Endpoint("127.0.0.1", server.port, Tls.IMPLICIT, ssl.create_default_context())
        login = ClientLogin(MAILBOX, Mechanism.NONE, lambda: "")
        client = Submission(endpoint, login, ClientBehaviour(reply_seconds=0.05))
        with pytest.raises(SubmissionFailed, match=r"timeout no connection within 0\.05 s"):
            await client.open()


async def test_a_host_that_is_none_is_a_failed_connection() -> None:
    login = ClientLogin(MAILBOX, Mechanism.NONE, lambda: "")
    client = Submission(Endpoint("no-such-host.invalid", 25), login)
    with pytest.raises(SubmissionFailed, match="connection failed"):
        await client.open()
