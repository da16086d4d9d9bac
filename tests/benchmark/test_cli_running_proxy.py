from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bench.process.interruption import Interruption
from bench.targets.private_proxy import private_proxy
from tests.benchmark.runs import invoked, only_file, strict_json
from tests.support.beside import beside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.one_loop


@asynccontextmanager
async def running_proxy() -> AsyncIterator[tuple[str, ...]]:
    """Run a proxy with the sandbox; yields the options that lead to it."""
    async with private_proxy(Interruption()) as proxy:
        yield (
            *("--port", str(proxy.port), "--admin-url", proxy.admin_url),
            *("--state-dir", str(proxy.state_dir)),
        )


@pytest.fixture(scope="module")
def target() -> Iterator[tuple[str, ...]]:
    with beside(running_proxy()) as options:
        yield options


def test_two_runs_through_one_proxy_are_reconciled_each_by_itself(
    tmp_path: Path, target: tuple[str, ...]
) -> None:
    for name in ("first.json", "second.json"):
        code, out, errors = invoked(
            tmp_path, *target, "--use-mock-tokens", "--num-emails", "40", "--output", name
        )
        assert code == 0, out + errors
        assert "private" not in errors
        document = strict_json((tmp_path / name).read_text())
        assert document["reconciliation"]["acknowledged"] == 40
        assert document["reconciliation"]["arrived"] == 40


def test_without_the_admin_url_it_says_that_nothing_was_checked(
    tmp_path: Path, target: tuple[str, ...]
) -> None:
    code, out, _ = invoked(
        tmp_path, *target[:2], *target[4:], "--use-mock-tokens", "--num-emails", "5"
    )
    assert code == 0
    assert "Reconciliation:  not checked (give the --admin-url" in out
    assert strict_json(only_file(tmp_path).read_text())["reconciliation"] is None


def test_a_wrong_password_fails_every_message(tmp_path: Path, target: tuple[str, ...]) -> None:
    code, out, _ = invoked(
        tmp_path,
        *target,
        *("--from", "test.account1@gmail.com", "--password", "wrong", "--num-emails", "6"),
    )
    assert code == 1
    document = strict_json(only_file(tmp_path).read_text())
    assert [(error["code"], error["count"]) for error in document["errors"]] == [("535", 6)]
    assert "Errors (6):\n  AUTH: 535 5.7.8" in out
    assert document["results"]["latency"]["avg_seconds"] is None


def test_tokens_of_another_machine_are_refused(tmp_path: Path, target: tuple[str, ...]) -> None:
    (tmp_path / "other").mkdir()
    code, _, errors = invoked(
        tmp_path,
        *target[:4],
        *("--state-dir", str(tmp_path / "other"), "--use-mock-tokens", "--num-emails", "4"),
    )
    assert code == 1
    assert "Mock tokens were refused (535)" in errors
