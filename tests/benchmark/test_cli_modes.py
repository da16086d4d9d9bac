from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmark.runs import invoked, only_file, strict_json, validate
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer, scripted_server
from tests.benchmark.stand_in import stand_in
from tests.support.beside import beside
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

MAILBOX = "someone@example.org"
LOGIN = ("--from", MAILBOX, "--password", PASSWORD)


def document_of(
    folder: Path, server: ScriptedServer, *options: str, expected: int = 0
) -> dict[str, Any]:
    """Run the command against the server and return what it wrote."""
    code, out, errors = invoked(
        folder, "--port", str(server.port), *options, "--output", "run.json"
    )
    assert code == expected, out + errors
    document = strict_json((folder / "run.json").read_text())
    validate(document)
    return document


def test_the_open_model_for_a_time_after_a_warm_up(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        document = document_of(
            tmp_path,
            server,
            *LOGIN,
            *("--arrival-rate", "100", "--duration", "0.5", "--warmup", "0.3"),
            *("--ramp-from", "50", "--ramp-seconds", "0.2", "--concurrent", "7"),
        )
    config, results = document["config"], document["results"]
    assert (config["model"], config["arrival_rate_per_second"]) == ("open", 100)
    assert (config["ramp_from_per_second"], config["ramp_seconds"]) == (50, 0.2)
    assert (config["scenario"], config["concurrent"]) == ("custom", 7)
    assert document["warmup"]["requests"] == 25  # 75 a second, then 100
    assert (results["planned"], results["successful"]) == (50, 50)
    assert results["lateness"]["count"] == 50
    assert len(server.accepted) == 75
    assert document["generator"]["processes"] == 1


def test_the_closed_model_for_a_time(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        document = document_of(tmp_path, server, *LOGIN, "--duration", "0.3")
    results = document["results"]
    assert (results["planned"], results["not_attempted"]) == (None, None)
    assert results["successful"] == len(server.accepted) > 0
    assert results["total_time_seconds"] > 0.2
    assert results["lateness"]["count"] == 0


def test_no_login_at_all(tmp_path: Path) -> None:
    with beside(scripted_server(ScriptedServer(needs_login=False))) as server:
        document = document_of(tmp_path, server, "--no-auth")
    assert document["config"]["mechanism"] == "none"
    assert document["results"]["phases"]["auth"]["count"] == 0
    assert len(server.accepted) == 100
    assert not any(line.startswith(b"AUTH") for line in server.commands)


def test_clients_as_they_were_asked_for(tmp_path: Path) -> None:
    mailboxes = ("one@example.org", "two@example.com")
    with beside(scripted_server()) as server:
        document = document_of(
            tmp_path,
            server,
            *("--from", mailboxes[0], "--from", mailboxes[1], "--password", PASSWORD),
            *("--num-emails", "40", "--concurrent", "4", "--connection", "5", "--pipelined"),
            *("--sizes", "1k:3,3k:1", "--recipients", "1-3", "--idle-clients", "6"),
        )
    assert {accepted.mailbox for accepted in server.accepted} == set(mailboxes)
    assert {len(accepted.content) for accepted in server.accepted} == {1000, 3000}
    assert {len(accepted.forward_paths) for accepted in server.accepted} == {1, 2, 3}
    assert server.was_ahead  # pipelined
    assert server.connections >= 40 / 5 + 6
    assert document["idle_crowd"] == {"clients": 6, "refused": 0, "lost": 0}
    assert document["config"]["from_emails"] == list(mailboxes)
    assert document["config"]["connection"] == "5-messages"


def test_a_folder_of_messages(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    (folder / "a.eml").write_text("Subject: first\n\none\n")
    (folder / "b.eml").write_text("Subject: second\n\ntwo\n")
    with beside(scripted_server()) as server:
        document = document_of(
            tmp_path, server, *LOGIN, "--num-emails", "6", "--eml-dir", str(folder)
        )
    assert (document["config"]["sizes"], document["config"]["size_bytes"]) == ("files", None)
    ends = sorted(accepted.content[-5:] for accepted in server.accepted)
    assert ends == [b"one\r\n"] * 3 + [b"two\r\n"] * 3


def test_each_login_brings_a_token_of_its_own_that_is_soon_stale(tmp_path: Path) -> None:
    tokens = MockTokens(load_signing_key(tmp_path))
    with beside(scripted_server()) as server:
        document_of(
            tmp_path,
            server,
            *("--use-mock-tokens", "--state-dir", str(tmp_path), "--token-ttl", "7"),
            *("--num-emails", "5", "--connection", "per-message"),
            expected=1,  # the scripted server knows no token
        )
    lines = [line for line in server.commands if line.startswith(b"AUTH XOAUTH2 ")]
    responses = [base64.b64decode(line.split()[2]).decode() for line in lines]
    claims = [tokens.read(one.split("Bearer ")[1].rstrip("\1")) for one in responses]
    assert len({one.token_id for one in claims}) == 5
    assert all(one.expires_at - one.issued_at == pytest.approx(7) for one in claims)


def test_a_scenario_brings_its_own_load(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        document = document_of(
            tmp_path, server, *LOGIN, "--scenario", "churn", "--num-emails", "20", "--yes"
        )
    assert document["config"]["scenario"] == "churn"
    assert document["config"]["connection"] == "per-message"
    assert server.connections == 21  # with the one that looked whether anybody listens


def test_a_page_is_written_beside_the_json(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        document_of(tmp_path, server, *LOGIN, "--html", "report.html")
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("expressions", "expected"),
    [
        (("success>=0.5",), 0),  # some have failed, and enough have not
        (("success>=0.5", "failed==0"), 2),
        (("p99<=1ms", "success>=0.5"), 2),
    ],
)
def test_assertions_decide_and_are_written_down(
    tmp_path: Path, expressions: tuple[str, ...], expected: int
) -> None:
    script = ScriptedServer(
        reply_to_content=lambda number: "550 5.1.1 who?" if number % 10 == 0 else "250 ok",
        delay_seconds=lambda _: 0.01,
    )
    asserted = ("--assert", *expressions)  # one option, several words
    with beside(scripted_server(script)) as server:
        document = document_of(tmp_path, server, *asserted, *LOGIN, expected=expected)
    assert [one["expression"] for one in document["assertions"]] == list(expressions)
    assert all(one["is_met"] for one in document["assertions"]) is (expected == 0)


def test_assertions_are_shown(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        options = ("--port", str(server.port), *LOGIN, "--assert", "failed == 0")
        _, out, _ = invoked(tmp_path, *options)
    assert "Assertions:\n  met      failed == 0  (0)\n" in out


@pytest.mark.parametrize("asserted", [(), ("--assert", "success>=0.9")])
def test_a_server_that_loses_is_found_out_whatever_is_asserted(
    tmp_path: Path, asserted: tuple[str, ...]
) -> None:
    script = ScriptedServer(loses=lambda number: number % 25 == 0)
    with beside(scripted_server(script)) as server, beside(stand_in(server)) as url:
        code, out, _ = invoked(
            tmp_path,
            *("--port", str(server.port), *LOGIN, "--admin-url", url, *asserted),
            *("--warmup", "0.1", "--num-emails", "50"),
        )
    document = strict_json(only_file(tmp_path).read_text())
    validate(document)
    warmed_up = document["warmup"]["requests"]
    lost = (50 + warmed_up) // 25
    assert (code, warmed_up > 0) == (1, True)
    assert document["reconciliation"]["acknowledged"] == 50 + warmed_up
    assert document["reconciliation"]["lost"] == lost
    assert f"  Lost:          {lost}\n" in out
    assert document["provider"]["transactions_accepted"] == 50 + warmed_up - lost
    assert document["provider"]["token_requests"] == 0
    assert document["provider"]["connections_opened"] == 10
    # Not the connection before them, which looked whether anybody listens.
    assert document["provider"]["peak_connections_per_mailbox"] == 10


def test_json_and_screen_are_of_one_run(tmp_path: Path) -> None:
    with beside(scripted_server()) as server:
        options = ("--port", str(server.port), *LOGIN, "--json", "--output", "run.json")
        _, out, _ = invoked(tmp_path, *options)
    assert json.loads(out) == json.loads((tmp_path / "run.json").read_text())
