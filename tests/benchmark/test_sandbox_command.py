from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
from typing import TYPE_CHECKING

import aiohttp
import aiosmtplib
import pytest

from tests.benchmark.runs import command, invoked, outcome
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.sandbox.faults import Action, Step, TokenAction
from xoauth2_proxy.sandbox.settings_document import OVERRIDES
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens
from xoauth2_proxy.sandbox.tokens.signing import algorithm_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmark.runs import Command

pytestmark = pytest.mark.one_loop

MAILBOX = "someone@example.org"
CONTENT = b"Message-ID: <1@example.org>\r\n\r\nHello.\r\n"


async def ready(file: Path, running: Command) -> dict[str, str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
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
        async with asyncio.timeout(PATIENCE_SECONDS):
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
def test_wrong_usage(more: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    code, _, errors = invoked(tmp_path, *options(tmp_path, *more))
    assert code == 2
    assert complaint in errors


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    async with await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0) as server:
        port = str(server.sockets[0].getsockname()[1])
        arguments = options(tmp_path, "--smtp-port", port)
        code, _, errors = await outcome(tmp_path, *arguments)
    assert code == 1
    assert "The sandbox cannot start" in errors
    assert "--smtp-port and --http-port take others, 0 a free one" in errors


# A provider's profile, faults and tokens.


async def line_of(running: Command, words: str) -> str:
    """Return the first line of standard output with these words."""
    assert running.process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while line := (await running.process.stdout.readline()).decode():
            if words in line:
                return line
    raise AssertionError(await running.end())


async def test_one_line_of_json_says_all_a_program_needs(tmp_path: Path) -> None:
    settings = ("--set", "tls=none", "--set", "algorithm=ES256", "--seed", "7")
    arguments = options(tmp_path, "--json", "--token", MAILBOX, *settings)
    async with command(tmp_path, *arguments) as running:
        told = json.loads(await line_of(running, "{"))
        facts = await ready(tmp_path / "ready", running)
        assert {key: told[key] for key in facts} == facts
        assert (told["tls"], told["dialect"], told["seed"]) == ("none", "unlimited", 7)
        assert algorithm_of(told["tokens"][MAILBOX]) == "ES256"
        async with aiohttp.ClientSession() as session:
            url = f"{told['http']}/test/tokens/explain"
            async with session.post(url, json={"token": told["tokens"][MAILBOX]}) as answer:
                assert (await answer.json())["is_valid"] is True
            form = {"grant_type": "refresh_token", "refresh_token": f"mock-refresh-token:{MAILBOX}"}
            async with session.post(told["token_endpoint"], data=form) as answer:
                assert answer.status == 200
        running.process.send_signal(signal.SIGTERM)
        code, out, errors = await running.end()
    assert (code, out, errors) == (0, "", "")


async def test_it_tells_what_it_does_and_does_it(tmp_path: Path) -> None:
    more = [
        *("--profile", "outlook", "--tls", "none", "--rtt-ms", "1", "--seed", "3"),
        *("--set", "max_recipients=1", "--accept-delay-ms", "10,50", "--rotation", "once"),
        *("--fault", "mail:reply:nth=2:text=451 4.3.0 Not: now", "--token-ttl", "60"),
    ]
    async with command(tmp_path, *options(tmp_path, *more, "--token", MAILBOX)) as running:
        facts = await ready(tmp_path / "ready", running)
        assert running.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = ""
            while "Token     " not in said:
                said += (await running.process.stdout.readline()).decode()
        rows = {line.split()[0]: line.split()[1] for line in said.splitlines() if line.strip()}
        assert {name: rows[name] for name in EXPECTED_ROWS} == EXPECTED_ROWS
        assert "fault at mail" in said
        assert "nth=2" in said
        host, _, port = facts["smtp"].rpartition(":")
        async with aiosmtplib.SMTP(hostname=host, port=int(port)) as client:
            await client.auth_xoauth2(MAILBOX, said.split()[-1])
            assert client.supports_extension("dsn")
            await client.mail(MAILBOX)
            await client.rcpt("a@example.org")
            with pytest.raises(aiosmtplib.SMTPRecipientRefused) as refused:
                await client.rcpt("b@example.org")
            assert refused.value.code == 452
            await client.rset()
            with pytest.raises(aiosmtplib.SMTPSenderRefused, match=r"Not: now"):
                await client.mail(MAILBOX)


EXPECTED_ROWS = {
    "dialect": "outlook",
    "max_recipients": "1",
    "messages_per_minute": "30",
    "rtt_seconds": "0.001",
    "accept_seconds": "0.01",
    "accept_p99_seconds": "0.05",
    "ttl_seconds": "60",
    "rotation": "once",
    "seed": "3",
}


@pytest.mark.parametrize("kind", ["json", "toml"])
async def test_settings_come_from_a_file_and_options_differ_from_it(
    kind: str, tmp_path: Path
) -> None:
    file = tmp_path / f"provider.{kind}"
    file.write_text(
        {
            "json": '{"profile": "gmail", "seed": 5, "overrides": {"tls": "none"}}',
            "toml": 'profile = "gmail"\nseed = 5\noverrides = {tls = "none"}\n',
        }[kind]
    )
    arguments = options(tmp_path, "--settings", str(file), "--set", "greeting=b", "--json")
    async with command(tmp_path, *arguments) as running:
        told = json.loads(await line_of(running, "{"))
        assert (told["dialect"], told["seed"], told["tls"]) == ("gmail", 5, "none")
        host, _, port = told["smtp"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.readline() == b"220 b\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--fault", "end"), "step:action"),
        (("--fault", "end:drop:rate=2"), "--fault: 'end:drop:rate=2': rate:"),
        (("--fault", "token:drip"), "--fault: 'token:drip': action: Input should be '429'"),
        (("--fault", "dot:drop"), "or 'token' for the token endpoint"),
        (("--set", "rtt=1"), "overrides.rtt: there is no such key"),
        (("--set", "rtt_seconds"), "setting=value"),
        (("--profile", "hotmail"), "--profile"),
        (("--rtt", "1ms", "--rtt-ms", "1"), "not both"),
        (("--rtt-ms", "-1"), "--rtt-ms"),
        (("--accept-delay-ms", "1,2,3"), "--accept-delay-ms"),
        (("--accept-delay-ms", "fast"), "--accept-delay-ms"),
        (("--accept-delay-ms", "5,2"), "smaller than accept_seconds"),
        (("--rotation", "often"), "--rotation"),
        (("--settings", "nowhere.json"), "--settings"),
        (("--settings", "."), "--settings"),
    ],
)
def test_what_it_cannot_do_is_wrong_usage(
    more: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    code, out, errors = invoked(tmp_path, *options(tmp_path, *more))
    assert (code, out) == (2, "")
    assert complaint in errors


@pytest.mark.parametrize("text", ["{", "[]", '{"faults": {}}'])
def test_a_settings_file_that_is_none_is_wrong_usage(text: str, tmp_path: Path) -> None:
    file = tmp_path / "provider.json"
    file.write_text(text)
    code, _, errors = invoked(tmp_path, *options(tmp_path, "--settings", str(file)))
    assert code == 2
    assert "faults" in errors or "--settings" in errors


def test_the_help_names_every_setting(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "sandbox", "--help")
    assert code == 0
    assert all(name in out for name in OVERRIDES)


def test_the_help_names_every_step_and_action_with_its_meaning(tmp_path: Path) -> None:
    _, out, _ = invoked(tmp_path, "sandbox", "--help")
    for word in (*Step, *Action, *TokenAction):
        line = rf"^ +{re.escape(word.value)} +{re.escape(word.meaning)}$"
        assert re.search(line, out, re.MULTILINE), line


# What it says of refusals.


async def refused_once(folder: Path, *more: str) -> tuple[str, str]:
    """Return what a sandbox says on standard error of one refused login, and the token."""
    arguments = options(folder, "--tls", "none", *more)
    async with command(folder, *arguments) as running:
        facts = await ready(folder / "ready", running)
        host, _, port = facts["smtp"].rpartition(":")
        token = MockTokens(b"x" * 32).mint(MAILBOX)
        async with aiosmtplib.SMTP(hostname=host, port=int(port)) as client:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError):
                await client.auth_xoauth2(MAILBOX, token)
        running.process.send_signal(signal.SIGTERM)
        code, _, errors = await running.end()
    assert code == 0
    return errors, token


async def test_it_says_why_a_login_was_refused(tmp_path: Path) -> None:
    errors, token = await refused_once(tmp_path)
    (line,) = errors.splitlines()
    assert f"{MAILBOX} AUTH: the token was altered, or is signed with another key" in line
    assert line.endswith("535 5.7.8 Username and Password not accepted")
    assert token not in line


async def test_quiet_it_says_nothing(tmp_path: Path) -> None:
    assert (await refused_once(tmp_path, "--quiet"))[0] == ""


async def test_it_begins_with_a_line_for_a_client_to_copy(tmp_path: Path) -> None:
    async with command(tmp_path, *options(tmp_path, "--token", MAILBOX)) as running:
        facts = await ready(tmp_path / "ready", running)
        trust = await line_of(running, "the client has to trust")
        assert trust.split()[-1] == facts["ca_file"]
        line = await line_of(running, "curl ")
    words = shlex.split(line)
    assert words[1] == f"smtp://{facts['smtp']}"
    assert words[words.index("--cacert") + 1] == facts["ca_file"]
    assert words[words.index("--mail-from") + 1] == MAILBOX
