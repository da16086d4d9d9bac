"""What `xoauth2-bench sandbox` says of refusals when there are many, and what faults mean."""

from __future__ import annotations

from bench.commands.refusal_log import MAX_LINES, RefusalLog
from xoauth2_proxy.sandbox.faults import Action, Step, TokenAction
from xoauth2_proxy.sandbox.refusals import Refusals
from xoauth2_proxy.sandbox.settings_document import document_schema


def test_a_load_of_refusals_is_counted_instead_of_said() -> None:
    now, said = 0.0, list[str]()
    complaints = RefusalLog("http://here/refused", said.append, lambda: now)
    refusals = Refusals()
    refusals.listener = complaints
    for _ in range(MAX_LINES + 7):
        refusals.add("127.0.0.1:1", "", "MAIL", b"550 5.7.1 No\r\n")
    assert len(said) == MAX_LINES + 1
    assert said[-1] == "Further refusals of this minute are only counted: http://here/refused"
    now = 60.0
    refusals.add("127.0.0.1:1", "", "MAIL", b"550 5.7.1 No\r\n", "last")
    assert said[-2] == "… and 7 more: http://here/refused"
    assert said[-1].endswith("127.0.0.1:1 MAIL: last – 550 5.7.1 No")


def test_the_schema_describes_every_action() -> None:
    defs = document_schema()["$defs"]
    for kind in (Step, Action, TokenAction):
        said = {one["const"]: one["description"] for one in defs[kind.__name__]["oneOf"]}
        assert said == {word.value: word.meaning for word in kind}
