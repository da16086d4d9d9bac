"""`xoauth2-proxy token`: another program gets the token that the proxy has, or one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.command_line import CommandLine
from tests.support.identity_server import APPLICATION
from tests.support.logins import provider_entry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider

pytest_plugins = ["tests.support.identity"]
pytestmark = pytest.mark.one_loop

WELL, BROKEN, OWN = "well@example.com", "broken@example.com", "own@example.com"


@pytest.fixture
def command_line(tmp_path: Path, shared_identity_provider: IdentityProvider) -> CommandLine:
    """Three mailboxes: one that gets tokens, one with a wrong secret, one for clients' tokens."""
    shared_identity_provider.reset()
    application = provider_entry(shared_identity_provider) | {
        "grant": "client_credentials",
        "client_id": APPLICATION,
        "client_secret": shared_identity_provider.secret(APPLICATION),
    }
    made = CommandLine(tmp_path / "proxy.json", tmp_path)
    made.write(
        {
            "providers": {"application": application},
            "accounts": [
                {"email": WELL, "password": "p", "provider": "application"},
                {
                    "email": BROKEN,
                    "password": "p",
                    "provider": "application",
                    "client_secret": "wrong",
                },
                {"email": OWN, "password": "p", "provider": "outlook"},
            ],
        }
    )
    return made


async def test_the_token_stands_alone_and_is_the_stored_one(command_line: CommandLine) -> None:
    first = await command_line.ask("token", WELL)
    assert first.code == 0, first.stderr
    grant = command_line.grant(WELL)
    assert grant is not None
    assert first.stdout == f"{grant['access_token']}\n"
    assert (await command_line.ask("token", WELL.upper())).stdout == first.stdout
    fresh = await command_line.ask("token", WELL, "--refresh")
    assert fresh.code == 0
    assert fresh.stdout != first.stdout


async def test_what_is_known_of_a_token_does_not_hold_it(command_line: CommandLine) -> None:
    before = await command_line.ask("token", WELL, "--info", "--json")
    assert (before.code, before.document["type"]) == (1, None)
    token = (await command_line.ask("token", WELL)).stdout.strip()
    told = await command_line.ask("token", WELL, "--info", "--json")
    assert told.code == 0
    document = told.document
    assert (document["mailbox"], document["provider"]) == (WELL, "application")
    assert (document["type"], document["last_error"]) == ("Bearer", None)
    assert document["remaining_seconds"] > 0
    assert token not in told.stdout
    assert token not in (await command_line.ask("token", WELL, "--info")).stdout


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ((BROKEN,), 1, "no token for broken@example.com: invalid_client"),
        ((OWN,), 1, "its clients bring their own"),
        (("nobody@example.com",), 2, "there is no account nobody@example.com"),
        ((WELL, "--json"), 2, "--json is for --info"),
        ((), 2, "name one mailbox, or write --all"),
        ((WELL, "--all", "--info"), 2, "name one mailbox, or write --all"),
        (("--all",), 2, "--all is for --info, --refresh and --clear"),
        ((WELL, "--clear", "--refresh"), 2, "--clear does not go with --refresh"),
    ],
)
async def test_without_a_token_nothing_is_printed_and_the_reason_is_told(
    command_line: CommandLine, words: tuple[str, ...], code: int, why: str
) -> None:
    said = await command_line.ask("token", *words)
    assert (said.code, said.stdout) == (code, "")
    assert why in said.text


async def test_where_nobody_has_signed_in_the_command_to_type_is_told_once(
    command_line: CommandLine,
) -> None:
    client = {"provider": "gmail", "client_id": "c", "client_secret": "s"}
    command_line.write({"accounts": [{"email": WELL, "password": "p"} | client]})
    said = await command_line.ask("token", WELL)
    assert (said.code, said.stdout) == (1, "")
    assert "no one has signed in yet" in said.text
    assert said.text.count(f"login {WELL}") == 1


async def test_a_terminal_is_not_shown_the_token_unless_told_to(command_line: CommandLine) -> None:
    forced = {"TTY_COMPATIBLE": "1", "FORCE_COLOR": "1"}
    said = await command_line.ask("token", WELL, environ=forced)
    assert (said.code, said.stdout) == (2, "")
    assert "add --show" in said.text
    assert command_line.grant(WELL) is None
    shown = await command_line.ask("token", WELL, "--show", environ=forced)
    assert shown.code == 0


async def test_a_cleared_token_is_gone_and_the_next_one_is_new(command_line: CommandLine) -> None:
    first = await command_line.ask("token", WELL)
    cleared = await command_line.ask("token", WELL, "--clear")
    assert (cleared.code, cleared.stderr) == (0, "")
    assert "Its sign-in stays" in cleared.stdout
    grant = command_line.grant(WELL)
    assert grant is not None
    assert (grant["access_token"], grant["access_token_expires_at"]) == ("", 0.0)
    assert (await command_line.ask("token", WELL, "--clear")).code == 0
    assert (await command_line.ask("token", WELL)).stdout not in ("", first.stdout)


async def test_all_mailboxes_are_renewed_described_and_cleared_without_showing_a_token(
    command_line: CommandLine,
) -> None:
    renewed = await command_line.ask("token", "--all", "--refresh")
    assert renewed.code == 1
    assert renewed.stdout.startswith(f"Renewed: {WELL}, until 2")
    assert "no token for broken@example.com: invalid_client" in renewed.text
    told = await command_line.ask("token", "--all", "--info", "--json")
    assert told.code == 1
    facts = {one["mailbox"]: one for one in told.document["tokens"]}
    assert {name: one["type"] for name, one in facts.items()} == {WELL: "Bearer", BROKEN: None}
    assert "invalid_client" in facts[BROKEN]["last_error"]
    assert (await command_line.ask("token", "--all", "--info")).stdout.count("mailbox  ") == 2
    assert (await command_line.ask("token", "--all", "--clear")).code == 0
    assert (await command_line.ask("token", WELL, "--info")).code == 1
    assert command_line.leaked() == []
