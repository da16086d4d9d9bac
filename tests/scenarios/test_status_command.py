"""`xoauth2-proxy status` as a process: eight mailboxes, each of which stands otherwise."""

from __future__ import annotations

import asyncio
import re
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.beside import beside
from tests.support.command_line import CommandLine
from tests.support.identity_server import APPLICATION
from tests.support.logins import provider_entry
from tests.support.proxy_process import ProxyProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.command_line import Said
    from tests.support.identity_server import IdentityProvider

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

PASSWORD = "opens sesame"
WRONG_SECRET = "not-the-clients-secret-7Qw3"
ADMIN_TOKEN = "admin-bearer-token-3Nm9"
ENDS_IN_DAYS = 9

# As `status` orders them: who needs somebody soonest comes first.
STATES = {
    "unsigned@example.com": "sign_in_needed",
    "wrong.secret@example.com": "misconfigured",
    "ends.soon@example.com": "attention",
    "unreachable@example.com": "trouble",
    "unused@example.com": "unused",
    "well@example.com": "ok",
    "own.token@example.com": "own_token",
    "mock@example.com": "mock",
}
USED = ("well@example.com", "wrong.secret@example.com", "unreachable@example.com")
WORDS = (
    "sign-in needed",
    "set-up is wrong",
    "needs you soon",
    "in trouble",
    "not used yet",
    "ok",
)


@pytest.fixture(scope="module")
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, and that nobody else is given."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture(scope="module")
def document(shared_identity_provider: IdentityProvider, closed_port: int) -> dict[str, object]:
    shared_identity_provider.reset()
    school = provider_entry(shared_identity_provider)
    application = school | {
        "grant": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": shared_identity_provider.secret(APPLICATION),
    }
    last_day = datetime.now(UTC).date() + timedelta(days=ENDS_IN_DAYS - 1)
    nowhere = f"https://127.0.0.1:{closed_port}/token"
    upstream = {"upstream": school["upstream"]}
    kinds: dict[str, dict[str, object]] = {
        "unsigned@example.com": {"provider": "school"},
        "wrong.secret@example.com": {"provider": "application", "client_secret": WRONG_SECRET},
        "ends.soon@example.com": {
            "provider": "application",
            "client_secret_expires": last_day.isoformat(),
        },
        "unreachable@example.com": {"provider": "application", "oauth_token_url": nowhere},
        "unused@example.com": {"provider": "application"},
        "well@example.com": {"provider": "application"},
        "own.token@example.com": {"provider": "outlook"},
        "mock@example.com": {"provider": "mock"} | upstream,
    }
    assert kinds.keys() == STATES.keys()
    return {
        "providers": {"school": school, "application": application},
        "accounts": [{"email": one, "password": PASSWORD} | kinds[one] for one in sorted(kinds)],
        "admin": {"token": ADMIN_TOKEN},
    }


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, object]
) -> Iterator[ProxyProcess]:
    """A proxy whose clients have used some of the mailboxes, one for all tests: they only look."""
    with beside(ProxyProcess(tmp_path_factory.mktemp("proxy"), document)) as process:
        asyncio.run(use(process))
        yield process


async def use(proxy: ProxyProcess) -> None:
    for mailbox in USED:
        async with await proxy.connect() as client:
            await client.ehlo()
            code = (await client.auth_plain(mailbox, PASSWORD)).code
            assert code == (235 if mailbox == "well@example.com" else 454)


@pytest.fixture
def command_line(
    proxy: ProxyProcess, shared_identity_provider: IdentityProvider
) -> Iterator[CommandLine]:
    """A command line beside the proxy; no command that a test ran showed a secret."""
    made = CommandLine(proxy.directory / "proxy.json", proxy.directory)
    made.secrets |= {shared_identity_provider.secret(APPLICATION), WRONG_SECRET, ADMIN_TOKEN}
    yield made
    assert len(made.secrets) == 4, "the access token was not noticed"
    assert made.leaked(proxy.stdout, proxy.stderr) == []


async def test_json_is_versioned_and_tells_everything(command_line: CommandLine) -> None:
    command = await command_line.run("status", "--json")
    assert command.code == 1
    assert command.stderr == ""
    assert command.document.keys() == {"version", "mailboxes", "listeners"}
    assert command.document["version"] == 1
    found: dict[str, dict[str, Any]] = {
        one["mailbox"]: one for one in command.document["mailboxes"]
    }
    assert {mailbox: one["state"] for mailbox, one in found.items()} == STATES
    assert list(found) == list(STATES)
    for one in found.values():
        assert one.keys() == {
            *("mailbox", "provider", "state", "last_success", "next_refresh", "days_left"),
            *("reason", "remedy", "last_error"),
        }
    date = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
    assert date.fullmatch(found["well@example.com"]["last_success"])
    assert date.fullmatch(found["well@example.com"]["next_refresh"])
    assert found["unused@example.com"]["last_success"] is None
    assert found["ends.soon@example.com"]["days_left"] == pytest.approx(ENDS_IN_DAYS, abs=1)
    assert "client_secret_expires" in found["ends.soon@example.com"]["remedy"]
    assert found["unsigned@example.com"]["remedy"] == (
        "sign in: xoauth2-proxy login unsigned@example.com"
    )
    assert "invalid_client" in found["wrong.secret@example.com"]["last_error"]
    assert "client_secret" in found["wrong.secret@example.com"]["remedy"]
    assert "refuse" in found["unreachable@example.com"]["last_error"]


async def test_the_table_is_read_at_usual_widths(command_line: CommandLine) -> None:
    for columns in (80, 120):
        command = await command_line.ask("status", environ={"COLUMNS": str(columns)})
        check_table(command, columns, command_line.program)


def check_table(command: Said, columns: int, program: str) -> None:
    assert command.code == 1
    assert command.stderr == ""
    assert "\x1b" not in command.stdout
    heading, *rows = command.lines[: len(STATES) + 1]
    assert heading.split("  ")[0] == "Mailbox"
    assert all(len(line) <= columns for line in (heading, *rows))
    # One line for each: neither an address nor a state is broken.
    assert [row.split()[0] for row in rows] == list(STATES)
    for row, words in zip(rows, WORDS, strict=False):
        assert words in row
    assert {row.index(words) for row, words in zip(rows, WORDS, strict=False)} == {
        heading.index("State") + 2
    }
    remedies = command.lines[len(STATES) + 1 :]
    # A command is whole, however narrow the screen, so that it can be copied.
    assert f"  → sign in: {program} login unsigned@example.com" in remedies
    prose = [line for line in remedies if not line.startswith("  →")]
    assert all(len(line) <= columns for line in prose)
    assert remedies[-1] == "8 mailboxes; 3 need attention; 1 with temporary trouble"


async def test_through_a_pipe_each_mailbox_is_one_line_without_colour(
    command_line: CommandLine,
) -> None:
    command = await command_line.run("status", environ={"TERM": "xterm-256color"})
    assert "\x1b" not in command.stdout
    for mailbox in STATES:
        assert sum(line.startswith(f"{mailbox} ") for line in command.lines) == 1
    cause = next(line for line in command.lines if line.startswith("wrong.secret@example.com: "))
    assert cause.endswith(".")


async def test_the_exit_code_is_of_the_mailboxes_asked_for(command_line: CommandLine) -> None:
    for mailbox, state in STATES.items():
        needs_somebody = state in ("sign_in_needed", "misconfigured", "attention")
        command = await command_line.ask("status", mailbox.upper())
        assert command.code == needs_somebody, mailbox
        assert command.lines[1].startswith(mailbox)
    soon = ("status", "ends.soon@example.com", "--warn-days")
    assert (await command_line.ask(*soon, str(ENDS_IN_DAYS - 2))).code == 0
    assert (await command_line.ask(*soon, str(ENDS_IN_DAYS + 1))).code == 1
    assert (await command_line.ask(*soon, "-1")).code == 2
    unknown = await command_line.ask("status", "wel@example.com")
    assert unknown.code == 2
    assert "there is no account wel@example.com; did you mean well@" in unknown.stderr


async def test_a_running_proxy_says_the_same(
    command_line: CommandLine, proxy: ProxyProcess
) -> None:
    url = ("--url", str(proxy.admin_url))
    environ = {"XOAUTH2_PROXY_ADMIN_TOKEN": ADMIN_TOKEN}
    asked = await command_line.ask("status", "--json", *url, environ=environ)
    assert asked.code == 1, asked.text
    read = await command_line.ask("status", "--json")
    documents = asked.document, read.document
    for one in [one for document in documents for one in document["mailboxes"]]:
        del one["days_left"]  # which grow less meanwhile
    running, configured = (document.pop("listeners") for document in documents)
    assert running[0]["addresses"] == [f"{proxy.host}:{proxy.port}"]
    assert configured[0]["addresses"] == ["127.0.0.1:2525"]
    assert documents[0] == documents[1]
    wrong = {"XOAUTH2_PROXY_ADMIN_TOKEN": "guessed"}
    refused = await command_line.ask("status", *url, environ=wrong)
    assert refused.code == 1
    assert "XOAUTH2_PROXY_ADMIN_TOKEN" in refused.stderr
