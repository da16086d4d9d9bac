from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import aiohttp
import aiosmtplib
import pytest

from tests.benchmark.runs import command, outcome
from tests.benchmark.scripted_server import WAIT_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmark.runs import Command

# The loop under test is the command's own.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])

MAILBOX = "someone@example.org"
CONTENT = b"Message-ID: <1@example.org>\r\n\r\nHello.\r\n"


async def ready(file: Path, running: Command) -> dict[str, str]:
    async with asyncio.timeout(WAIT_SECONDS):
        while not (text := read(file)):
            assert running.process.returncode is None, await running.end()
            await asyncio.sleep(0.02)
    facts = json.loads(text)
    assert facts["pid"] == running.process.pid
    assert isinstance(facts, dict)
    return facts


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""  # written whole, by renaming


def options(folder: Path, *more: str) -> tuple[str, ...]:
    ports = ("--smtp-port", "0", "--http-port", "0")
    files = ("--state-dir", str(folder / "state"), "--ready-file", str(folder / "ready"))
    return ("sandbox", *ports, *files, *more)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_takes_a_message_with_its_token_and_ends_on_a_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    async with command(tmp_path, *options(tmp_path, "--token", MAILBOX)) as running:
        facts = await ready(tmp_path / "ready", running)
        assert running.process.stdout is not None
        async with asyncio.timeout(WAIT_SECONDS):
            said = ""
            while "Token" not in said:
                said = (await running.process.stdout.readline()).decode()
        host, _, port = facts["smtp"].rpartition(":")
        token = said.split()[-1]
        client = aiosmtplib.SMTP(
            hostname=host, port=int(port), start_tls=True, cert_bundle=facts["ca_file"]
        )
        async with client:
            await client.auth_xoauth2(MAILBOX, token)
            await client.sendmail(MAILBOX, ["anyone@example.org"], CONTENT)
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{facts['http']}/messages") as answer,
        ):
            (message,) = (await answer.json())["messages"]
        assert message["mailbox"] == MAILBOX
        running.process.send_signal(number)
        code, _, errors = await running.end()
    assert (code, errors) == (0, "")


async def test_what_it_offers_can_be_chosen(tmp_path: Path) -> None:
    arguments = options(tmp_path, "--tls", "none", "--withhold", "chunking", "--rtt", "1ms")
    async with command(tmp_path, *arguments) as running:
        facts = await ready(tmp_path / "ready", running)
        host, _, port = facts["smtp"].rpartition(":")
        async with aiosmtplib.SMTP(hostname=host, port=int(port)) as client:
            await client.ehlo()
            assert client.supports_extension("auth")
            assert client.supports_extension("pipelining")
            assert not client.supports_extension("chunking")
            assert not client.supports_extension("starttls")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [(("--rtt", "40"), "not a duration"), (("--tls", "perhaps"), "--tls")],
)
async def test_wrong_usage(more: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    code, _, errors = await outcome(tmp_path, *options(tmp_path, *more))
    assert code == 2
    assert complaint in errors


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        arguments = options(tmp_path, "--smtp-port", port)
        code, _, errors = await outcome(tmp_path, *arguments)
    assert code == 1
    assert "The sandbox cannot start" in errors
