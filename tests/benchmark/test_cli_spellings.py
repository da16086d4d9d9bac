"""The spellings of other load testers, and the presets: the same as our own, word for word."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer

from bench.options.request_builder import request_of
from bench.options.run_options import RunOptions
from bench.plan.scenarios import SCENARIOS
from bench.process.interruption import Interruption
from bench.targets.http_client import fetch_object
from bench.targets.private_proxy import private_proxy
from tests.benchmark.runs import invoked, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.support.beside import beside

if TYPE_CHECKING:
    from bench.runs.run_request import RunRequest

pytestmark = pytest.mark.one_loop

LOGIN = ("--from", "someone@example.org", "--password", PASSWORD)


def requested(**options: Any) -> RunRequest:
    return request_of(RunOptions(**options))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this process's temporary files lie; the name is short, as sockets need it."""
    made = Path(tempfile.mkdtemp(prefix="b-"))
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    monkeypatch.setenv("TMPDIR", str(made))
    return made


def ran(folder: Path, *arguments: str) -> tuple[dict[str, Any], str]:
    """Run the command, which must succeed; return its document and standard error."""
    code, out, errors = invoked(folder, *arguments)
    assert code == 0, out + errors
    document = strict_json((folder / "run.json").read_text())
    validate(document)
    return document, errors


def test_users_duration_warmup_output_verbose_and_workload_in_their_short_forms(
    tmp_path: Path, temporary: Path
) -> None:
    load = ("--workload", "refresh-storm", "-u", "4", "-d", "1", "-w", "0.3", "-v")
    document, errors = ran(tmp_path, *load, "-o", "run.json", "--cleanup")
    config = document["config"]
    assert (config["scenario"], config["concurrent"]) == ("storm", 4)
    assert config["mailboxes"] == 4
    assert document["warmup"]["requests"] == 60  # 200 a second
    assert document["results"]["planned"] == 200
    assert "This directory stays" not in errors
    assert not os.listdir(temporary)


def test_without_cleanup_the_directory_of_a_private_proxy_stays_and_is_told(
    tmp_path: Path, temporary: Path
) -> None:
    load = ("--workload", "refresh-storm", "-u", "2", "-d", "0.5", "-o", "run.json")
    _, errors = ran(tmp_path, *load, "--no-cleanup")
    (kept,) = temporary.iterdir()
    assert f"This directory stays: {kept}\n" in errors
    assert (kept / "state").is_dir()
    assert "bench_user001@mock.test" in (kept / "accounts.json").read_text()
    assert kept.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(kept)


def test_no_cleanup_where_a_run_makes_nothing_is_wrong_usage(tmp_path: Path) -> None:
    code, _, errors = invoked(tmp_path, *LOGIN, "--no-cleanup")
    assert code == 2
    assert "--use-mock-tokens" in errors


def test_a_mixed_workload_has_all_sizes_recipients_and_mailboxes_of_two_providers(
    tmp_path: Path,
) -> None:
    plan = requested(scenario="mixed", use_mock_tokens=True).plan
    sizes = {plan.workload.sizes.pick(number) for number in range(500)}
    recipients = {plan.workload.recipients.pick(number) for number in range(500)}
    assert (sizes, recipients) == ({4000, 100_000, 1_000_000}, {1, 2, 3, 4, 5})
    assert {one.partition("@")[2] for one in plan.mailboxes} == {"gmail.com", "outlook.com"}
    assert str(plan.workload.reuse) == "20-messages"
    with beside(private_proxy(Interruption())) as proxy:
        target = ("--port", str(proxy.port), "--admin-url", proxy.admin_url)
        mock = ("--use-mock-tokens", "--state-dir", str(proxy.state_dir))
        load = ("--workload", "mixed", "--num-emails", "60", "-o", "run.json")
        document, _ = ran(tmp_path, *target, *mock, *load)
        answer = asyncio.run(fetch_object(f"{proxy.sandbox_url}/messages"))
    assert document["config"]["recipients_per_message"] == "1-5"
    assert document["reconciliation"]["arrived"] == 60
    messages: Any = answer["messages"]
    assert {len(one["forward_paths"]) for one in messages} == {1, 2, 3, 4, 5}
    assert {one["size_bytes"] // 1000 for one in messages} > {4, 100}
    assert {one["mailbox"] for one in messages} == set(plan.mailboxes)


@pytest.mark.parametrize("name", ["baseline", "churn", "reuse", "mixed", "refresh-storm"])
def test_the_workloads_of_the_documents_exist(name: str) -> None:
    plan = requested(scenario=name, use_mock_tokens=name != "refresh-storm").plan
    assert plan.scenario == name.removeprefix("refresh-")


def test_users_are_mailboxes_with_a_connection_each() -> None:
    request = requested(users=7)
    assert request.accounts is not None
    assert (request.accounts.count, request.plan.concurrent) == (7, 7)
    assert len(request.plan.mailboxes) == 7
    assert requested(users=7, concurrent=3).plan.concurrent == 3
    with pytest.raises(typer.BadParameter, match="--accounts"):
        requested(users=7, accounts=7)


def test_the_load_of_fifty_users_is_a_scenario() -> None:
    request = requested(scenario="users")
    assert request.accounts is not None
    assert (request.accounts.count, request.plan.concurrent) == (50, 50)
    assert request.plan.pace.planned == 50 * 10
    assert SCENARIOS["users"].purpose == "50 mailboxes, 10 messages each on average"


@pytest.mark.parametrize(("refused", "code"), [(0, 0), (1, 0), (2, 2)])
def test_the_preset_of_thresholds_decides_the_exit_code(
    tmp_path: Path, refused: int, code: int
) -> None:
    script = ScriptedServer(
        reply_to_content=lambda count: "550 5.7.1 no" if count <= refused else "250 ok"
    )
    with beside(scripted_server(script)) as server:
        load = ("--num-emails", "20", "--concurrent", "1", "-o", "run.json")
        found, out, errors = invoked(
            tmp_path, "--port", str(server.port), *LOGIN, *load, "--assert", "@default"
        )
    assert found == code, out + errors
    checked = strict_json((tmp_path / "run.json").read_text())["assertions"]
    assert [one["expression"] for one in checked] == ["success>=95%", "p95<=500ms", "mean<=200ms"]
    assert checked[0]["is_met"] is (code == 0)


def test_help_names_the_preset_and_what_it_stands_for(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "--help")
    assert code == 0
    words = " ".join(out.split())
    assert "@default stands for success>=95% p95<=500ms mean<=200ms" in words
    assert "--scenario users --assert @default" in words
