from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measurement.sample import SendFailure
from bench.reports.progress import Progress
from tests.benchmark.runs import sample

if TYPE_CHECKING:
    import pytest


def test_lines_that_are_announced_stay_lines_and_command_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Progress().announce("It did not start:\n  first \x1b[2J\n  second")
    assert capsys.readouterr().err == "It did not start:\n  first \\x1b[2J\n  second\n"


def test_words_of_a_server_make_no_line_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    failure = SendFailure("550", "no\nAll messages were accepted.", "RCPT")
    Progress(is_verbose=True).on_sample(sample(3, "550", failure=failure))
    told = "Message 3: RCPT: 550 no\\nAll messages were accepted.\n"
    assert capsys.readouterr().err == told
