"""Servers that are none of ours, driven by the command: the counts must be theirs, exactly."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.benchmark.runs import invoked, only_file, strict_json, validate
from tests.support.beside import beside
from tests.support.mail_server import MailServer
from tests.support.programs import program
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    import trustme

pytestmark = [pytest.mark.one_loop, pytest.mark.outside]

MAILBOX = "scanner@example.test"
ISSUER = "https://login.example.test"
KEY_ID = "key-1"
_ID = re.compile(rb"^X-Bench-Id: [0-9a-f]{16}\.([0-9]+)\r?$", re.MULTILINE)
_MESSAGES = 150


class Sink:
    """Postfix's smtp-sink, which accepts everything and keeps it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder

    def numbers(self) -> list[int]:
        """The numbers of the messages that it kept, ascending."""
        return numbers(file.read_bytes() for file in self._folder.glob("message.*"))


def numbers(contents: Any) -> list[int]:
    """The numbers of messages, ascending; each has exactly one."""
    found = []
    for content in contents:
        (number,) = _ID.findall(content)
        found.append(int(number))
    return sorted(found)


@asynccontextmanager
async def smtp_sink(*arguments: str) -> AsyncIterator[Sink]:
    """Run smtp-sink on a free port."""
    path = program("smtp-sink")
    folder = Path(tempfile.mkdtemp(prefix="sink-", dir="/tmp"))
    owner = ["-u", "nobody"] if os.geteuid() == 0 else []
    if owner:
        shutil.chown(folder, "nobody")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(path, *owner, *arguments, "-d", "message.", f"127.0.0.1:{port}", "128"),
        cwd=folder,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: answers(port))
        yield Sink(folder, port)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


async def answers(port: int) -> bool:
    with suppress(OSError):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()
        return True
    return False


def measured(
    folder: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    code: int = 0,
    messages: int = _MESSAGES,
) -> dict[str, Any]:
    """Run the command and return its document."""
    more = ("--num-emails", str(messages), "--concurrent", "10")
    ended, out, errors = invoked(folder, *arguments, *more, environment=environment)
    assert ended == code, out + errors
    document = strict_json(only_file(folder).read_text())
    validate(document)
    return document


@pytest.mark.parametrize(
    "behaviour",
    [
        (),
        ("--pipelined",),
        ("--connection", "7"),
        ("--recipients", "1-5", "--sizes", "600:1,30k:1"),
    ],
    ids=["kept", "pipelined", "seven-a-connection", "recipients"],
)
def test_smtp_sink_keeps_what_was_counted(tmp_path: Path, behaviour: tuple[str, ...]) -> None:
    with beside(smtp_sink("-a")) as sink:
        document = measured(tmp_path, "--port", str(sink.port), "--no-auth", *behaviour)
        assert sink.numbers() == list(range(_MESSAGES))
    results = document["results"]
    assert (results["successful"], results["failed"]) == (_MESSAGES, 0)
    assert results["phases"]["auth"]["count"] == 0
    expected = 10 if "--connection" not in behaviour else (_MESSAGES + 6) // 7
    assert results["phases"]["connect"]["count"] >= expected


def test_smtp_sink_that_refuses_is_counted_as_refusing(tmp_path: Path) -> None:
    with beside(smtp_sink("-a", "-f", "RCPT")) as sink:
        document = measured(tmp_path, "--port", str(sink.port), "--no-auth", code=1)
        assert sink.numbers() == []
    assert document["results"]["failed"] == _MESSAGES
    assert [(error["code"], error["count"]) for error in document["errors"]] == [("500", _MESSAGES)]


def test_smtp_sink_is_driven_at_a_rate(tmp_path: Path) -> None:
    with beside(smtp_sink("-a")) as sink:
        arguments = ("--port", str(sink.port), "--no-auth", "--arrival-rate", "100")
        document = measured(tmp_path, *arguments)
        assert sink.numbers() == list(range(_MESSAGES))
    assert document["results"]["total_time_seconds"] >= (_MESSAGES - 1) / 100


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """What signs the tokens of an identity provider that exists only here."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def mail_server(key: rsa.RSAPrivateKey, authority: trustme.CA) -> Iterator[MailServer]:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with beside(MailServer(authority, ISSUER, KEY_ID, public.decode())) as server:
        yield server


def token(key: rsa.RSAPrivateKey, mailbox: str) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "sub": mailbox, "email": mailbox, "iat": now, "exp": now + 600}
    return jwt.encode(claims, key, "RS256", {"kid": KEY_ID})


def arguments_for(server: MailServer, mechanism: str) -> tuple[str, ...]:
    return (
        *("--host", server.host, "--port", str(server.port)),
        *("--tls", "starttls", "--ca-file", str(server.ca_file)),
        *("--mechanism", mechanism, "--from", MAILBOX, "--to", "office@example.test"),
    )


@pytest.mark.parametrize("mechanism", ["xoauth2", "oauthbearer"])
def test_postfix_delivers_what_was_counted(
    tmp_path: Path, key: rsa.RSAPrivateKey, mail_server: MailServer, mechanism: str
) -> None:
    environment = {"XOAUTH2_BENCH_PASSWORD": token(key, MAILBOX)}
    document = measured(tmp_path, *arguments_for(mail_server, mechanism), environment=environment)
    results = document["results"]
    assert (results["successful"], results["failed"]) == (_MESSAGES, 0), mail_server.log
    assert results["phases"]["auth"]["count"] == 10
    # Postfix says 250 when a message is in its queue; Dovecot's Maildir gets it later.
    asyncio.run(until(lambda: len(mail_server.received) == _MESSAGES))
    assert numbers(mail_server.received) == list(range(_MESSAGES))


def test_a_token_of_somebody_else_is_refused_by_dovecot_each_time(
    tmp_path: Path, key: rsa.RSAPrivateKey, mail_server: MailServer
) -> None:
    environment = {"XOAUTH2_BENCH_PASSWORD": token(key, "director@example.test")}
    # Few: each refusal takes longer than the last, as Dovecot sees where they come from.
    arguments = arguments_for(mail_server, "xoauth2")
    document = measured(tmp_path, *arguments, environment=environment, code=1, messages=4)
    codes = {error["code"] for error in document["errors"]}
    assert (document["results"]["failed"], codes) == (4, {"535"}), mail_server.log
    assert mail_server.received == []
