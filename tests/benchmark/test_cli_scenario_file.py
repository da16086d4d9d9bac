from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmark.runs import invoked, only_file, strict_json, validate

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_loop

EXAMPLES = Path(__file__).parents[2] / "docs" / "scenarios"


@pytest.fixture(autouse=True)
def _nothing_temporary_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # read TMPDIR again
    yield
    assert not list(temporary.iterdir())


def result(folder: Path) -> dict[str, Any]:
    document = strict_json(only_file(folder).read_text())
    validate(document)
    return document


def test_drop_after_dot_is_told_to_the_client_and_nobody_else_suffers(tmp_path: Path) -> None:
    code, out, errors = invoked(tmp_path, "--scenario-file", str(EXAMPLES / "drop-after-dot.toml"))
    assert code == 0, out + errors
    document = result(tmp_path)
    assert document["config"]["scenario"] == "drop-after-dot"
    assert [one["is_met"] for one in document["assertions"]] == [True] * 6
    assert document["results"]["successful"] == 58


def test_outlooks_three_connections_are_learned(tmp_path: Path) -> None:
    path = EXAMPLES / "outlook-three-connections.toml"
    code, out, errors = invoked(tmp_path, "--scenario-file", str(path))
    assert code == 0, out + errors
    document = result(tmp_path)
    assert document["results"]["failed"] > 0
    assert {one["code"] for one in document["errors"]} == {"451"}
    assert "432" not in {one["code"] for one in document["errors"]}


def test_the_token_endpoint_of_the_case_is_asked_and_may_fail(tmp_path: Path) -> None:
    document = {
        "version": 1,
        "name": "no-token-at-first",
        "load": {"num_emails": 12, "concurrent": 2, "from": ["a@example.org", "b@example.org"]},
        "provider": {
            "token_endpoint": {"clients": {"me": "hush"}, "ttl_seconds": 600},
            "faults": [{"step": "token", "action": "invalid_grant", "mailbox": "a@example.org"}],
        },
        "assert": ["failed>=1", "lost==0"],
    }
    path = tmp_path / "case.json"
    path.write_text(json.dumps(document))
    code, out, errors = invoked(tmp_path, "--scenario-file", str(path))
    assert code == 0, out + errors
    found = result(tmp_path)
    assert found["config"]["mechanism"] == "plain"
    assert found["provider"]["token_requests"] >= 2


def test_the_relay_of_the_case_keeps_to_its_limits(tmp_path: Path) -> None:
    load = {"num_emails": 40, "concurrent": 4, "from": ["test.account1@gmail.com"]}
    case = {"version": 1, "name": "limits", "load": load}
    limits = {"max_connections": 2, "max_messages_per_connection": 5}
    file = tmp_path / "case.json"
    file.write_text(json.dumps(case | {"relay": {"limits": limits}}))
    code, out, errors = invoked(tmp_path, "--scenario-file", str(file))
    assert code == 0, out + errors
    provider = result(tmp_path)["provider"]
    assert provider["peak_connections_per_mailbox"] == 2
    assert provider["connections_opened"] >= 8


def test_the_private_proxy_s_reason_for_a_failure_is_shown(tmp_path: Path) -> None:
    fault = {"step": "token", "action": "503", "rate": 1.0}
    load = {"num_emails": 4, "concurrent": 4, "mechanism": "plain"}
    case = {"version": 1, "name": "no-tokens", "load": load, "provider": {"faults": [fault]}}
    file = tmp_path / "case.json"
    file.write_text(json.dumps(case))
    code, out, errors = invoked(tmp_path, "--scenario-file", str(file))
    assert code == 1
    assert "AUTH: 454 4.7.0 Temporary authentication failure" in out
    assert "The last lines of the private proxy's log:" in errors
    assert "temporarily_unavailable" in errors


def test_a_storm_asks_for_tokens_again_and_again_and_logs_in_with_each(
    tmp_path: Path,
) -> None:
    code, out, errors = invoked(
        tmp_path,
        *("--scenario", "storm", "--accounts", "4", "--duration", "4", "--arrival-rate", "40"),
    )
    assert code == 0, out + errors
    document = result(tmp_path)
    assert document["config"]["mechanism"] == "plain"
    assert document["results"]["successful"] == 160
    assert document["reconciliation"]["lost"] == 0
    provider = document["provider"]
    # Tokens last 2 s, and so do sessions: in four seconds each mailbox needs several.
    assert provider["token_requests"] >= 8
    assert provider["auth_accepted"] >= 8
    assert provider["auth_refused"] == 0


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    path = EXAMPLES / "drop-after-dot.toml"
    more = ("--num-emails", "5", "--assert", "p95<=1us", "--json")
    code, out, _ = invoked(tmp_path, "--scenario-file", str(path), *more)
    document = strict_json(out)
    assert code == 2  # of five messages none met the fault
    assert document["results"]["planned"] == 5
    assert [one["expression"] for one in document["assertions"]][-1] == "p95<=1us"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--port", "2626"), "starts its own proxy"), (("--accounts", "3"), "starts its own proxy")],
)
def test_a_case_has_its_own_target(
    tmp_path: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    path = EXAMPLES / "drop-after-dot.toml"
    code, _, errors = invoked(tmp_path, "--scenario-file", str(path), *arguments)
    assert code == 2
    assert complaint in errors


def test_a_wrong_file_is_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "case.toml"
    path.write_text('version = 1\nname = "a"\n[load]\nspeed = 1\n[provider]\nprofile = "yahoo"\n')
    code, _, errors = invoked(tmp_path, "--scenario-file", str(path))
    assert code == 2
    assert "load.speed: there is no such key" in errors
    assert "provider.profile: " in errors


def test_the_schema_is_printed(tmp_path: Path) -> None:
    code, out, _ = invoked(tmp_path, "schema", "scenario")
    assert code == 0
    assert json.loads(out)["title"] == "Scenario"


def test_tokens_is_a_command(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    code, out, _ = invoked(tmp_path, "tokens", "list", "--json", *state)
    assert (code, len(out.splitlines())) == (0, 4)
