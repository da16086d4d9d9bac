"""Programs that print tokens: how they are run, what their ends mean, and that they do end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.command import CommandRefresher

if TYPE_CHECKING:
    from xoauth2_proxy.oauth.grant import TokenResponse

MAILBOX = "someone@example.com"
SECRET = "s3cret-" + "x" * 40


async def run(
    *command: str, mailbox: str = MAILBOX, seconds: float = PATIENCE_SECONDS
) -> TokenResponse:
    grant = Grant(mailbox=mailbox, client=OAuthClient(command=command))
    return await CommandRefresher(seconds).refresh(grant)


async def shell(script: str, *, seconds: float = PATIENCE_SECONDS) -> TokenResponse:
    return await run("sh", "-c", script, seconds=seconds)


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # killed, and its own parent has not looked yet


# How it is run.


async def test_a_program_prints_a_token() -> None:
    issued = await run("echo", "token-1")
    assert issued.access_token == "token-1"
    assert issued.refresh_token == ""


async def test_a_program_may_print_how_long_the_token_lasts() -> None:
    issued = await run("echo", '{"access_token": "token-1", "expires_in": 1800}')
    assert issued.lifetime_seconds == 1800.0


async def test_a_program_finds_the_mailbox_in_its_arguments() -> None:
    issued = await run("printf", "%s|", "--user={mailbox}", "{mailbox}")
    assert issued.access_token == f"--user={MAILBOX}|{MAILBOX}|"


async def test_a_program_finds_the_mailbox_in_its_environment() -> None:
    assert (await shell('echo "$XOAUTH2_PROXY_MAILBOX"')).access_token == MAILBOX


async def test_no_shell_reads_the_arguments() -> None:
    issued = await run("echo", "$(id);{mailbox}", mailbox="`id`@example.com")
    assert issued.access_token == "$(id);`id`@example.com"


async def test_an_address_is_not_read_as_an_option() -> None:
    with pytest.raises(TokenEndpointRefused, match="option"):
        await run("cat", "{mailbox}", mailbox="--version@example.com")


async def test_a_program_has_the_environment_but_not_the_relays_own_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/of-mine")
    monkeypatch.setenv("XOAUTH2_PROXY_ADMIN_TOKEN", SECRET)
    issued = await shell('echo "$HOME:$XOAUTH2_PROXY_ADMIN_TOKEN"')
    assert issued.access_token == "/home/of-mine:"


async def test_a_program_that_asks_a_question_gets_no_answer() -> None:
    assert (await shell("read answer || echo token-1")).access_token == "token-1"


async def test_a_program_may_leave_something_running_that_holds_its_pipes(tmp_path: Path) -> None:
    agent = tmp_path / "agent"
    try:
        issued = await shell(f"sleep 60 & echo $! > {agent}; echo token-1")
        assert issued.access_token == "token-1"
        assert is_running(int(agent.read_text()))
    finally:
        os.kill(int(agent.read_text()), signal.SIGKILL)


async def test_a_program_may_complain_at_length_and_succeed() -> None:
    issued = await shell("head -c 1000000 /dev/zero >&2; echo token-1")
    assert issued.access_token == "token-1"


async def test_programs_run_at_the_same_time() -> None:
    async def one(number: int) -> str:
        return (await run("echo", f"token-{number}")).access_token

    numbers = range(10)
    got = await asyncio.gather(*(one(number) for number in numbers))
    assert got == [f"token-{number}" for number in numbers]


# What its end means.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (1, TokenEndpointUnavailable),
        (75, TokenEndpointUnavailable),  # EX_TEMPFAIL
        (77, GrantRevoked),
        (78, TokenEndpointRefused),
        (126, TokenEndpointRefused),
        (127, TokenEndpointRefused),
    ],
)
async def test_an_exit_code_tells_whose_turn_it_is(status: int, kind: type[TokenError]) -> None:
    with pytest.raises(TokenError) as caught:
        await shell(f"echo token-1; exit {status}")
    assert type(caught.value) is kind
    assert str(caught.value) == f"sh ended with exit code {status}"


async def test_a_program_that_a_signal_ends_is_transient() -> None:
    with pytest.raises(TokenEndpointUnavailable, match="sh ended with signal 15"):
        await shell("kill $$")


async def test_an_error_quotes_the_last_complaint_without_tokens() -> None:
    with pytest.raises(TokenEndpointUnavailable) as caught:
        await shell(f"echo first >&2; echo 'no luck with {SECRET} today' >&2; exit 1")
    assert str(caught.value) == "sh ended with exit code 1: no luck with … today"


async def test_no_error_quotes_the_arguments() -> None:
    with pytest.raises(TokenEndpointUnavailable) as caught:
        await run("false", SECRET)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("script", ["true", "echo Please sign in first", "echo '{}'"])
async def test_no_token_is_transient(script: str) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="sh printed"):
        await shell(script)


async def test_endless_output_is_not_read_to_its_end() -> None:
    with pytest.raises(TokenEndpointUnavailable, match="more than 65536 octets"):
        await run("yes")


async def test_a_missing_program_is_the_operators_matter() -> None:
    with pytest.raises(TokenEndpointRefused, match="no-such-program cannot be run: No such file"):
        await run("/no/such-place/no-such-program")


async def test_a_file_that_is_no_program_is_the_operators_matter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo token-1")
    with pytest.raises(TokenEndpointRefused, match="script cannot be run: Permission denied"):
        await run(str(script))


@pytest.mark.parametrize("word", ["one\0two", "\ud800"])
async def test_a_broken_argument_is_the_operators_matter(word: str) -> None:
    with pytest.raises(TokenEndpointRefused, match="cannot be passed to a program"):
        await run("echo", word)


async def test_no_command_is_the_operators_matter() -> None:
    with pytest.raises(TokenEndpointRefused, match="no command"):
        await run()


# That it ends.


async def test_a_program_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = await until_given_up(tmp_path / "pids", "sleep 60 & echo $! $$ > {file}; wait")
    assert len(pids) == 2
    await until(lambda: not any(is_running(int(pid)) for pid in pids))


async def test_a_program_that_ignores_signals_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM INT HUP; echo $$ > {file}; sleep 60"
    (pid,) = await until_given_up(tmp_path / "pid", script)
    assert not exists(int(pid))


def words_in(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


async def until_given_up(file: Path, script: str) -> list[str]:
    """Return what the script wrote to the file before it was given up."""
    for seconds in (0.5, 5.0, 50.0):  # until it had the time to begin
        with pytest.raises(
            TokenEndpointUnavailable, match=rf"sh printed no token in {seconds:g} s"
        ):
            await shell(script.format(file=file), seconds=seconds)
        if words := words_in(file):
            return words
    raise AssertionError("it never began")


@pytest.mark.parametrize("turns", range(10))
async def test_a_refresh_cancelled_while_the_program_starts_leaves_nothing(
    tmp_path: Path, turns: int
) -> None:
    refresh = asyncio.create_task(shell(f"sleep 60 & : {tmp_path}; wait"))
    for _ in range(turns):
        await asyncio.sleep(0)
    refresh.cancel()
    await asyncio.wait([refresh], timeout=PATIENCE_SECONDS)
    assert refresh.cancelled()
    await until(lambda: not processes_naming(str(tmp_path)))


def processes_naming(words: str) -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            lines.append(path.read_bytes().decode(errors="replace"))
    return [line for line in lines if words in line]


async def test_a_cancelled_refresh_kills_the_program(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    refresh = asyncio.create_task(shell(f"echo $$ > {pid}; sleep 60"))
    await until(lambda: pid.exists() and pid.read_text().strip() != "")
    refresh.cancel()
    await asyncio.wait([refresh], timeout=PATIENCE_SECONDS)
    assert refresh.cancelled()
    assert not exists(int(pid.read_text()))  # not even as a zombie
