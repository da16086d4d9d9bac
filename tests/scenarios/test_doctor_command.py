"""`xoauth2-proxy doctor` as a process: it names the first thing that fails, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.documents import upstream_at
from tests.support.identity_server import APPLICATION
from tests.support.logins import provider_entry
from tests.support.person import Person
from tests.support.waiting import PATIENCE_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command_line import Command, Said
    from tests.support.identity_server import IdentityProvider
    from tests.support.mail_server import MailServer
    from tests.support.sandbox import Sandbox

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

MAILBOX = "scanner@example.test"
OTHER = "director@example.test"
OFFICE = "office@example.test"
WRONG_SECRET = "not-the-clients-secret-7Qw3"
STEPS = [
    *("configuration", "stored sign-in", "name of the token host", "name of the mail host"),
    *("connection to the token host", "connection to the mail host", "TLS of the token host"),
    *("TLS of the mail host", "answer of the token host", "access token", "what the token says"),
    *("greeting and extensions", "login", "test message"),
]


@pytest.fixture
def command_line(tmp_path: Path, identity_provider: IdentityProvider) -> Iterator[CommandLine]:
    """A command line; no command that a test ran showed a secret."""
    made = CommandLine(tmp_path / "proxy.json", tmp_path)
    made.secrets |= {identity_provider.secret(APPLICATION), WRONG_SECRET}
    yield made
    assert made.outputs
    assert made.leaked() == []


def document(provider: IdentityProvider, **changes: object) -> dict[str, object]:
    """Return the configuration of a mailbox that an application sends for."""
    client: dict[str, object] = {
        "grant": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": provider.secret(APPLICATION),
    }
    company = provider_entry(provider, **(client | changes))
    account = {"email": MAILBOX, "provider": "company", "password": "opens sesame"}
    return {"providers": {"company": company}, "accounts": [account]}


def upstream(server: MailServer) -> dict[str, object]:
    ca_file = str(server.ca_file)
    return {"host": server.host, "port": server.port, "tls": "starttls", "ca_file": ca_file}


def failed(command: Command | Said) -> dict[str, Any]:
    """Return the step that fails first."""
    assert command.code == 1, command.text
    found = command.document
    assert found.keys() == {"version", "mailbox", "is_well", "steps"}
    assert (found["version"], found["mailbox"], found["is_well"]) == (1, MAILBOX, False)
    assert [one["step"] for one in found["steps"]] == STEPS
    results = [one["result"] for one in found["steps"]]
    at = results.index("failed")
    assert set(results[:at]) <= {"ok", "skipped"}
    step: dict[str, Any] = found["steps"][at]
    assert step["finding"]
    assert step["remedy"]
    return step


async def test_json_of_a_mailbox_that_is_well(
    command_line: CommandLine, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(application_mailbox=MAILBOX)
    command_line.write(document(identity_provider, upstream=upstream(mail_server)))
    command = await command_line.run("doctor", MAILBOX.upper(), "--json", "--send-to", OFFICE)
    assert command.code == 0, command.text
    assert command.stderr == ""
    found = command.document
    assert (found["version"], found["mailbox"], found["is_well"]) == (1, MAILBOX, True)
    assert [one["step"] for one in found["steps"]] == STEPS
    for one in found["steps"]:
        assert one.keys() == {"step", "result", "seconds", "finding", "remedy", "source"}
        assert one["result"] == "ok"
        assert 0 <= one["seconds"] < PATIENCE_SECONDS
        assert one["finding"]
    await until(lambda: len(mail_server.received) == 1)
    assert "queued as" in found["steps"][-1]["finding"]
    assert command_line.secrets > {WRONG_SECRET, identity_provider.secret(APPLICATION)}


async def test_another_mailboxs_token_is_refused_at_the_login(
    command_line: CommandLine, identity_provider: IdentityProvider, mail_server: MailServer
) -> None:
    identity_provider.set(application_mailbox=OTHER)
    command_line.write(document(identity_provider, upstream=upstream(mail_server)))
    step = failed(await command_line.run("doctor", MAILBOX, "--json", "--send-to", OFFICE))
    assert step["step"] == "login"
    assert step["finding"].startswith("535 5.7.8 ")
    assert mail_server.received == []
    shown = await command_line.run("doctor", MAILBOX, environ={"COLUMNS": "80"})
    assert shown.code == 1
    assert all(len(line) <= 80 for line in shown.lines[:-3])
    assert f"the token is {OTHER}'s, not {MAILBOX}'s" in shown.text
    assert "\x1b" not in shown.stdout


async def test_a_wrong_client_secret_fails_where_the_token_is_asked_for(
    command_line: CommandLine, identity_provider: IdentityProvider, provider: Sandbox
) -> None:
    changes = {"upstream": upstream_at(provider), "client_secret": WRONG_SECRET}
    command_line.write(document(identity_provider, **changes))
    step = failed(await command_line.run("doctor", MAILBOX, "--json"))
    assert step["step"] == "access token"
    assert "invalid_client" in step["finding"]
    assert "client_secret" in step["remedy"]
    assert step["source"]
    status = await command_line.ask("status")
    assert status.code == 1
    assert "set-up is wrong" in status.stdout


async def test_a_mail_host_that_there_is_not_fails_by_its_name(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    nowhere = {"host": "smtp.nowhere.invalid", "port": 587}
    command_line.write(document(identity_provider, upstream=nowhere))
    step = failed(await command_line.run("doctor", MAILBOX, "--json"))
    assert step["step"] == "name of the mail host"
    assert "smtp.nowhere.invalid does not resolve" in step["finding"]
    assert "upstream.host" in step["remedy"]
    assert command_line.grant(MAILBOX) is not None  # the token host was tried all the same


async def test_a_sign_in_of_another_client_is_told_from_none_at_all(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    account = {"email": MAILBOX, "provider": "company", "password": "opens sesame"}
    entry = provider_entry(identity_provider)
    command_line.write({"providers": {"company": entry}, "accounts": [account]})
    step = failed(await command_line.run("doctor", MAILBOX, "--json"))
    assert (step["step"], step["finding"]) == ("stored sign-in", "no one has signed in yet")
    async with command_line.start("login", MAILBOX, "--paste") as command:
        async with Person(identity_provider) as person:
            redirect = await person.sign_in(await command.url(), MAILBOX)
        command_line.note_code(redirect)
        await command.type(redirect)
        assert await command.ends() == 0, command.text
    renamed = account | {"client_id": "another"}
    command_line.write({"providers": {"company": entry}, "accounts": [renamed]})
    step = failed(await command_line.run("doctor", MAILBOX, "--json"))
    assert step["step"] == "stored sign-in"
    assert "was granted to another client" in step["finding"]
    assert step["remedy"].endswith(f"xoauth2-proxy login {MAILBOX}")


async def test_an_unknown_mailbox_is_wrong_usage(
    command_line: CommandLine, identity_provider: IdentityProvider
) -> None:
    command_line.write(document(identity_provider))
    command = await command_line.ask("doctor", "scaner@example.test", "--json")
    assert command.code == 2
    assert command.stdout == ""
    assert f"there is no enabled account scaner@example.test; did you mean {MAILBOX}?" in (
        command.stderr
    )
