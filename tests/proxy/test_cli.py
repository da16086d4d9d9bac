"""The command line: exit codes, and words a person can act on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from tests.support.help_pages import PYTHON_TYPE, help_pages
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy import __version__
from xoauth2_proxy.cli import cli
from xoauth2_proxy.config.schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typer.testing import Result

SECRET = "opens sesame"
ACCOUNT = {"email": "someone@example.com", "provider": "mock", "password": SECRET}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "accounts.json"
    file.write_text(json.dumps({"accounts": [ACCOUNT]}))
    return file


def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
    """Run a command that ends by itself, in this process."""
    return CliRunner().invoke(cli, [str(one) for one in arguments], env=env)


def plain(text: str) -> str:
    """Return what a person reads: without colours, and without line breaks of a narrow terminal."""
    return re.sub(r"\s+", " ", re.sub(r"\x1b\[[0-9;]*m", "", text))


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound and not listening: refuses, and stays ours
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "xoauth2_proxy", *(str(one) for one in arguments)]


# Commands that only say something.


@pytest.mark.parametrize("word", ["version", "--version"])
def test_version(word: str) -> None:
    result = run(word)
    assert (result.exit_code, result.stdout) == (0, f"xoauth2-proxy {__version__}\n")


def test_schema_is_json_and_the_models_own() -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema([])


def test_help_names_values_by_words_and_not_by_types() -> None:
    pages = [*help_pages(lambda *words: run(*words).output)]
    assert len(pages) == 19
    for page in pages:
        assert PYTHON_TYPE.findall(page) == []
    assert "--port PORT" in pages[0]
    assert any("[MAILBOX]..." in page for page in pages)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command_and_option(option: str) -> None:
    result = run(option)
    said = plain(result.stdout)
    assert result.exit_code == 0
    for word in (
        "check", "schema", "version", "health", "--config", "--sandbox", "--port", "--host",
        "--admin-port", "--tls-cert", "--tls-key", "--allow-insecure-auth", "--state-dir",
        "--log-level", "--log-format", "--loop", "--ready-file", "2525",
    ):  # fmt: skip
        assert word in said


@pytest.mark.parametrize("name", ["check", "schema", "version", "health"])
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage" in plain(result.stdout)


@pytest.mark.parametrize(
    "arguments",
    [["--prot", "1"], ["nonsense"], ["--port", "70000"], ["--port", "x"], ["--loop", "none"]],
)
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


# check


def test_check_of_a_good_file(config: Path, tmp_path: Path) -> None:
    result = run("check", "--config", config, "--sandbox", "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert result.stdout == f"{config}: 1 account enabled, 0 disabled; no problems found\n"
    assert SECRET not in result.output


def test_check_counts_disabled_accounts(config: Path, tmp_path: Path) -> None:
    accounts = [ACCOUNT, ACCOUNT | {"email": "b@x.example", "enabled": False}]
    config.write_text(json.dumps(accounts))
    result = run("check", "--config", config, "--sandbox", "--state-dir", tmp_path)
    assert "1 account enabled, 1 disabled" in result.stdout


def test_check_of_the_sandbox_alone(tmp_path: Path) -> None:
    result = run("check", "--sandbox", "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert "4 accounts enabled" in result.stdout


def test_check_tells_of_mock_accounts_without_a_sandbox(config: Path, tmp_path: Path) -> None:
    result = run("check", "--config", config, "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: 1 account(s) use the sandbox, which runs")
    assert result.stdout.endswith("; no problems found, 1 warning\n")


def test_check_tells_of_a_store_that_cannot_be_used(config: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir(mode=0o755)
    result = run("check", "--config", config, "--sandbox", "--state-dir", tmp_path)
    assert result.stderr.startswith(f"warning: {tmp_path}/tokens is open to other users: chmod 700")
    config.write_text(json.dumps({"accounts": [ACCOUNT], "store": {"kind": "memory"}}))
    result = run("check", "--config", config, "--sandbox", "--state-dir", tmp_path)
    assert result.stderr == ""


def test_check_tells_who_has_to_sign_in(config: Path, tmp_path: Path) -> None:
    gmail = ACCOUNT | {"provider": "gmail", "client_id": "a", "client_secret": "b"}
    accounts = [gmail, gmail | {"email": "b@x.example"}, gmail | {"email": "c@x.example"}]
    accounts[0]["refresh_token"] = "r"
    config.write_text(json.dumps(accounts))
    config.chmod(0o600)
    result = run("check", "--config", config, "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert result.stderr == (
        "warning: 2 mailbox(es) cannot send until a person signs in; the first: "
        f"xoauth2-proxy --config {config} --state-dir {tmp_path} login b@x.example\n"
    )
    assert not (tmp_path / "tokens").exists(), "check writes nothing"


def test_check_shows_warnings(config: Path, tmp_path: Path) -> None:
    document = {"accounts": [ACCOUNT], "listener": {"allow_insecure_auth": True}}
    config.write_text(json.dumps(document))
    result = run("check", "--config", config, "--sandbox", "--state-dir", tmp_path)
    assert result.exit_code == 0
    assert "warning: listener.allow_insecure_auth" in result.stderr


@pytest.mark.parametrize("name", ["check", None])
def test_every_problem_is_told_at_once_by_its_path(
    name: str | None, config: Path, tmp_path: Path
) -> None:
    accounts = [ACCOUNT | {"email": "none"}, ACCOUNT | {"provider": "nowhere"}]
    document = {"accounts": accounts, "listener": {"prot": 25}}
    config.write_text(json.dumps(document))
    result = run(*([name] if name else []), "--config", config, "--state-dir", tmp_path)
    assert result.exit_code == 2
    head, *problems = result.stderr.splitlines()
    assert head == f"xoauth2-proxy: {len(problems)} problems in {config}:"
    paths = {line.strip().partition(": ")[0] for line in problems}
    assert {"accounts[0].email", "accounts[1].provider", "listener.prot"} <= paths
    assert SECRET not in result.output


def test_check_takes_the_options_of_the_proxy_itself(config: Path, tmp_path: Path) -> None:
    before = ("--config", config, "--sandbox", "--state-dir", tmp_path)
    result = run(*before, "check")
    assert (result.exit_code, result.stdout.partition(":")[0]) == (0, str(config))
    result = run(*before, "--host", "0.0.0.0", "check")
    assert result.exit_code == 2
    assert "--host: clients could not log in: 0.0.0.0" in result.stderr
    result = run(*before, "--host", "0.0.0.0", "--allow-insecure-auth", "check")
    assert result.exit_code == 0
    assert "warning: listener.allow_insecure_auth" in result.stderr


def test_options_behind_check_beat_those_before_it(config: Path, tmp_path: Path) -> None:
    result = run("--config", tmp_path / "gone.json", "check", "--config", config, "--sandbox")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{config}: ")


def test_a_pem_file_that_is_none_is_a_problem_of_the_file(config: Path) -> None:
    (config.parent / "empty.pem").write_text("")
    listener = {"tls_cert": "empty.pem", "tls_key": "empty.pem"}
    account = ACCOUNT | {"upstream": {"ca_file": "empty.pem"}}
    config.write_text(json.dumps({"accounts": [account], "listener": listener}))
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert f"xoauth2-proxy: 2 problems in {config}:" in result.stderr
    assert "listener.tls_cert: " in result.stderr
    assert "accounts[0].upstream.ca_file: " in result.stderr
    assert "holds no certificates (PEM)" in result.stderr


def test_a_malformed_key_hides_no_other_problem_of_its_account(config: Path) -> None:
    account = ACCOUNT | {"enabled": "perhaps", "password": "${NOT_SET_ANYWHERE}"}
    config.write_text(json.dumps([account]))
    result = run("check", "--config", config)
    assert result.exit_code == 2
    for path in ("accounts[0].enabled: ", "accounts[0].password: "):
        assert path in result.stderr


def test_one_problem_is_one_problem(config: Path) -> None:
    config.write_text("{")
    result = run("check", "--config", config)
    assert result.exit_code == 2
    assert f"xoauth2-proxy: 1 problem in {config}:\n" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["check"]])
def test_without_a_configuration_the_way_out_is_named(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--config accounts.json" in result.stderr
    assert "--sandbox" in result.stderr


# health


def test_health_of_nobody(unused_port: int) -> None:
    result = run("health", "--url", f"http://127.0.0.1:{unused_port}")
    assert result.exit_code == 1
    assert "refused" in result.stdout


def test_address_for_health_comes_from_the_environment(unused_port: int) -> None:
    url = f"http://127.0.0.1:{unused_port}"
    result = run("health", env={"XOAUTH2_PROXY_ADMIN_URL": url})
    assert result.exit_code == 1
    assert url in result.stdout


# Serving, in a process of its own.


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_port_in_use_is_1_and_said_clearly(tmp_path: Path, loop: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        ended = subprocess.run(
            command("--sandbox", "--state-dir", tmp_path, "--port", port, "--admin-port", 0,
                    "--loop", loop),
            capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith("xoauth2-proxy: cannot start: ")
    assert "in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "is ready" not in ended.stdout


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_signing_key_that_is_none_is_1_and_said_clearly(tmp_path: Path, loop: str) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "signing-key").write_bytes(b"short")
    ended = subprocess.run(
        command("--sandbox", "--state-dir", tmp_path, "--port", 0, "--admin-port", 0,
                "--loop", loop),
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith("xoauth2-proxy: cannot start: ")
    assert str(tmp_path / "sandbox" / "signing-key") in line
    assert "too short" in line


def test_serves_tells_where_and_stops_when_asked(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command("--sandbox", "--state-dir", tmp_path, "--port", 0, "--admin-port", 0,
                "--ready-file", ready),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            welcome = [process.stdout.readline()]
            while welcome[-1] and "Health" not in welcome[-1]:
                welcome.append(process.stdout.readline())
            told = json.loads(ready.read_text())
            result = run("health", "--url", told["admin"])
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert f"is ready on {told['smtp']}. Ctrl+C stops it." in welcome[0]
    assert f"{told['admin']}/health" in welcome[-1]
    assert told["pid"] == process.pid
    assert (result.exit_code, json.loads(result.stdout)["status"]) == (0, "healthy")
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_json_logs_leave_standard_output_alone(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with subprocess.Popen(
        command("--sandbox", "--state-dir", tmp_path, "--port", 0, "--admin-port", 0,
                "--log-format", "json", "--ready-file", ready, "--allow-insecure-auth"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            warning = json.loads(process.stderr.readline())
        finally:
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert warning["level"] == "warning"
    assert "allow_insecure_auth" in warning["message"]
    assert said == ""
    assert [json.loads(line)["level"] for line in errors.splitlines()] == ["info"]
    assert process.returncode == 0
