"""`list`, `hash-password`, `revoke`, `remove`, and what `status --url` does without."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import argon2
import pytest
from rich.console import Console as RichConsole
from typer.testing import CliRunner

from tests.support.accounts import mailbox
from tests.support.proxy_process import ROOT
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.cli import cli
from xoauth2_proxy.commands.console import Console
from xoauth2_proxy.commands.mailbox_changes import ChangeOptions, ProxyFiles, revoke
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.oauth.refresh import issued_to
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

WAIT_SECONDS = 60.0
SECRET = "opens sesame"
CLIENT = {"password": SECRET, "client_id": "a-client"}
MINE = {"email": "Me@example.com", "provider": "outlook"} | CLIENT
OFF = {"email": "off@example.com", "provider": "gmail", "enabled": False} | CLIENT
ADDED = {"email": "added@example.com", "provider": "outlook"} | CLIENT
TOKEN = "admin-bearer-token-5Kd2"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XOAUTH2_PROXY_CONFIG", "XOAUTH2_PROXY_ADMIN_URL", "XOAUTH2_PROXY_ADMIN_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "accounts.json"
    admin = {"port": 1, "token": TOKEN}
    file.write_text(json.dumps({"accounts": [MINE, OFF], "admin": admin}))
    return file


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """Return the directory of a proxy to which an account was added."""
    directory = tmp_path / "state"
    (directory / "accounts").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (directory / "accounts" / "one.json").write_text(json.dumps(ADDED))
    return directory


def run(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(cli, [str(one) for one in arguments], input=stdin)


# list


def test_list_names_every_account_and_where_it_is_written(config: Path, state_dir: Path) -> None:
    result = run("list", "--json", "--config", config, "--state-dir", state_dir)
    assert result.exit_code == 0, result.output
    assert [tuple(one.values()) for one in json.loads(result.stdout)["accounts"]] == [
        ("added@example.com", "outlook", "enabled", "added"),
        ("Me@example.com", "outlook", "enabled", "file"),
        ("off@example.com", "gmail", "disabled", "file"),
    ]


def test_an_added_account_that_is_disabled_is_listed_too(config: Path, state_dir: Path) -> None:
    (state_dir / "accounts" / "one.json").write_text(json.dumps(ADDED | {"enabled": False}))
    result = run("list", "--json", "--config", config, "--state-dir", state_dir)
    shown = {tuple(one.values()) for one in json.loads(result.stdout)["accounts"]}
    assert ("added@example.com", "outlook", "disabled", "added") in shown


def test_list_is_a_table_for_a_person(config: Path, state_dir: Path) -> None:
    result = run("list", "--config", config, "--state-dir", state_dir)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["Mailbox", "Provider", "State", "Source"]
    assert lines[3].split() == ["off@example.com", "gmail", "disabled", "file"]
    assert lines[-1] == "3 accounts, 1 of them disabled"


# hash-password


def test_a_password_from_a_pipe_becomes_a_hash_that_it_opens() -> None:
    result = run("hash-password", stdin=f"{SECRET}\nand a second line\n")
    assert result.exit_code == 0
    assert argon2.PasswordHasher().verify(result.stdout.strip(), SECRET)
    assert SECRET not in result.output


@pytest.mark.parametrize("given", ["", "\n", "x" * 5000])
def test_what_is_no_password_is_wrong_usage(given: str) -> None:
    result = run("hash-password", stdin=given)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "password" in result.stderr


def typed(*lines: str) -> tuple[int, bytes, bytes]:
    """Run `hash-password` at a terminal; type each line when it is asked for."""
    parent, child = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "xoauth2_proxy", "hash-password"],
        stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        cwd=ROOT, bufsize=0,
    )  # fmt: skip
    os.close(child)
    try:
        assert process.stderr is not None
        said = b""
        for line in lines:
            while not said.endswith(b": "):
                part = process.stderr.read(100)
                assert part, said
                said += part
            os.write(parent, f"{line}\n".encode())
            said += b"|"
        out, err = process.communicate(timeout=WAIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    return process.returncode, out, said + err


@pytest.mark.parametrize(("again", "code"), [(SECRET, 0), ("opens nothing", 2)])
def test_a_person_types_the_password_twice(again: str, code: int) -> None:
    found, out, said = typed(SECRET, again)
    assert found == code, said
    assert out.startswith(b"$argon2id$") is (code == 0)
    assert (b"differ" in said) is (code == 2)
    assert SECRET.encode() not in said


# revoke and remove where no proxy runs


def test_an_added_mailbox_is_removed_from_the_files(config: Path, state_dir: Path) -> None:
    result = run("remove", "Added@example.com", "--config", config, "--state-dir", state_dir)
    assert result.exit_code == 0, result.output
    assert "Removed: Added@example.com" in result.stdout
    assert "no proxy answered" in " ".join(result.stdout.split())
    assert list((state_dir / "accounts").iterdir()) == []


@pytest.mark.parametrize(
    ("command", "mailbox", "words"),
    [
        ("remove", "me@example.com", "defined in the configuration file"),
        ("remove", "mee@example.com", "did you mean Me@example.com?"),
        ("revoke", "nobody@example.com", "there is no enabled account nobody@example.com"),
    ],
)
def test_what_cannot_be_changed_says_why(
    config: Path, state_dir: Path, command: str, mailbox: str, words: str
) -> None:
    result = run(command, mailbox, "--config", config, "--state-dir", state_dir)
    assert result.exit_code == 2
    assert words in result.stderr


def test_where_there_is_no_grant_none_is_revoked(config: Path, state_dir: Path) -> None:
    result = run("revoke", "me@example.com", "--config", config, "--state-dir", state_dir)
    assert result.exit_code == 1
    assert "Me@example.com has no grant to revoke" in result.stderr


async def test_a_grant_in_the_store_is_forgotten_once_the_provider_has_been_told(
    state_dir: Path,
) -> None:
    """Its provider has no address for that, so its own pages are named."""
    client = OAuthClient(client_id="a-client", token_endpoint="https://127.0.0.1:1/token")
    account = replace(mailbox("me@example.com"), refresher="oidc", oauth=client)
    store = MemoryStore()
    grant = StoredGrant(issued_to=issued_to(account), refresh_token="a-refresh-token")
    await store.save(account.key, grant)
    out, err = io.StringIO(), io.StringIO()
    console = Console(RichConsole(file=out, width=200), RichConsole(file=err, width=200))
    source = ConfigSource(None, Overrides(sandbox=True), state_dir)
    files = ProxyFiles(
        config=replace(source.load(BUILT_IN_REFRESHERS, {}), accounts=(account,)),
        open_store=lambda: store,
        open_added=lambda: pytest.fail("nothing is removed"),
        open_made=lambda: pytest.fail("nothing is removed"),
        refresher=lambda _name: None,
    )
    options = ChangeOptions(
        mailbox="Me@example.com", url="http://127.0.0.1:1", token="", is_url_given=False
    )
    assert await revoke(options, files, console) == 0, err.getvalue()
    assert "end the application's access on the provider's own pages" in out.getvalue()
    assert await store.load(account.key) is None


@pytest.mark.parametrize("command", ["remove", "revoke", "status"])
def test_a_proxy_that_is_named_and_does_not_run_is_not_replaced_by_files(
    state_dir: Path, command: str, config: Path
) -> None:
    mailbox = [] if command == "status" else ["added@example.com"]
    result = run(command, *mailbox, "--url", "http://127.0.0.1:1", "--state-dir", state_dir)
    assert result.exit_code == 1
    assert "the proxy could not be asked at 127.0.0.1:1: nothing listens there" in result.stderr
    assert (state_dir / "accounts" / "one.json").exists()


# With a proxy that runs.


@contextmanager
def running(*arguments: object, ready: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the proxy; give its process and the address of its admin server."""
    command = [sys.executable, "-m", "xoauth2_proxy", *map(str, arguments), "--port", "0",
               "--admin-port", "0", "--ready-file", str(ready)]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert any("Health" in line for line in process.stdout)
        yield process, json.loads(ready.read_text())["admin"]
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_SECONDS)


@pytest.fixture
def proxy(config: Path, state_dir: Path, tmp_path: Path) -> Iterator[str]:
    arguments = ("--config", config, "--state-dir", state_dir)
    with running(*arguments, ready=tmp_path / "ready.json") as (_, address):
        yield address


def accounts(url: str, config: Path) -> list[Any]:
    result = run("--config", config, "status", "--json", "--url", url)
    return [one["mailbox"] for one in json.loads(result.stdout)["mailboxes"]]


def test_a_proxy_that_runs_makes_the_change_itself(
    proxy: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disabled = "off@example.com"
    assert accounts(proxy, config) == ["added@example.com", "Me@example.com", disabled]
    refused = run("remove", "me@example.com", "--url", proxy, "--config", config)
    assert refused.exit_code == 1
    assert "defined in the configuration file" in refused.stderr
    removed = run("remove", "added@example.com", "--url", proxy, "--config", config)
    assert (removed.exit_code, removed.stdout) == (
        0,
        "Removed: added@example.com. Its sign-in is forgotten.\n",
    )
    assert accounts(proxy, config) == ["Me@example.com", disabled]
    revoked = run("revoke", "me@example.com", "--url", proxy, "--config", config)
    assert (revoked.exit_code, revoked.stderr) == (
        1,
        "xoauth2-proxy: Me@example.com has no grant to revoke\n",
    )
    # Without a configuration its token comes from the environment.
    monkeypatch.delenv("XOAUTH2_PROXY_CONFIG", raising=False)
    without = run("status", "--url", proxy)
    assert without.exit_code == 1
    assert "XOAUTH2_PROXY_ADMIN_TOKEN" in without.stderr
    monkeypatch.setenv("XOAUTH2_PROXY_ADMIN_TOKEN", TOKEN)
    assert "Me@example.com" in run("status", "--url", proxy).stdout


# Places that cannot be used.


def test_sandbox_ports_need_the_sandbox(config: Path) -> None:
    result = run("--config", config, "--sandbox-port", 2600)
    assert result.exit_code == 2
    assert "need --sandbox" in result.stderr


@pytest.fixture
def unusable(tmp_path: Path) -> Path:
    """Return a state directory whose place for grants is taken by a file."""
    directory = tmp_path / "taken"
    directory.mkdir(mode=0o700)
    (directory / "tokens").touch()
    return directory


@pytest.mark.parametrize("workers", [1, 2])
def test_a_state_directory_that_cannot_be_used_is_told_at_the_start_and_in_health(
    config: Path, unusable: Path, tmp_path: Path, workers: int
) -> None:
    arguments = ("--config", config, "--state-dir", unusable, "--workers", workers)
    with running(*arguments, ready=tmp_path / "ready.json") as (process, address):
        assert process.stderr is not None
        said = next(line for line in process.stderr if "ERROR" in line)
        asked = subprocess.run(
            [sys.executable, "-m", "xoauth2_proxy", "health", "--url", address],
            capture_output=True, text=True, check=False, cwd=ROOT,
            env=os.environ | {"XOAUTH2_PROXY_ADMIN_TOKEN": TOKEN},
        )  # fmt: skip
    assert f"no mailbox can get tokens: {unusable / 'tokens'} is not a directory" in said
    assert asked.returncode == 1
    assert '"status": "unhealthy"' in asked.stdout
    assert "is not a directory" in asked.stdout
