from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from bench.load.messages import Messages
from bench.measurement.recorder import Recorder
from bench.measurement.result import NotReconciled, Reconciliation
from bench.reconciliation.reconcile import SandboxMessages, reconcile
from tests.benchmark.runs import MAILBOX, SMALL, sample, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def json_server(answer: Any) -> AsyncIterator[str]:
    """Serve GET /messages with what `answer(after, limit)` returns."""

    async def messages(request: web.Request) -> web.Response:
        return web.json_response(answer(int(request.query["after"]), int(request.query["limit"])))

    application = web.Application()
    application.router.add_get("/messages", messages)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class Record:
    """The sandbox's list, answered in the sandbox's form."""

    def __init__(self, messages: Messages, evicted: int = 0) -> None:
        self._messages = messages
        self._evicted = evicted
        self._entries: list[dict[str, Any]] = []

    def add(
        self, number: int, sha256: str = "", mailbox: str = MAILBOX, paths: tuple[str, ...] = ()
    ) -> None:
        self._entries.append(
            {
                "seq": len(self._entries) + 1,
                "mailbox": mailbox,
                "message_id": f"<{self._messages.run_id}.{number}@bench.invalid>",
                "sha256": sha256 or self._messages.sha256(number, MAILBOX),
                "forward_paths": paths or self._messages.forward_paths(number),
            }
        )

    def add_strangers(self) -> None:
        entry = {"mailbox": MAILBOX, "message_id": "<a@b.test>", "sha256": "0" * 64}
        self._entries.append({"seq": len(self._entries) + 1, **entry})

    def answer(self, after: int, limit: int) -> dict[str, Any]:
        held = self._entries[self._evicted :]
        page = [entry for entry in held if entry["seq"] > after][:limit]
        return {"total": len(self._entries), "evicted": self._evicted, "messages": page}


@pytest.fixture
def messages() -> Messages:
    return Messages("recipient@outlook.com", SMALL)


def recorder(*outcomes: str | float) -> Recorder:
    made = Recorder(len(outcomes))
    settle(made, outcomes)
    return made


async def reconciled(
    record: Record, messages: Messages, counted: Recorder, position: int = 0
) -> Reconciliation | NotReconciled:
    async with json_server(record.answer) as url:
        return await reconcile(SandboxMessages(url), position, messages, counted, [MAILBOX])


async def test_all_arrived_once_and_unchanged(messages: Messages) -> None:
    record = Record(messages)
    count = 1203  # more than two pages
    for number in range(count):
        record.add(number)
    found = await reconciled(record, messages, recorder(*[0.1] * count))
    assert found == Reconciliation(
        acknowledged=count, arrived=count, lost=0, duplicated=0, corrupted=0, unexpected=0
    )


async def test_each_kind_of_trouble_is_counted(messages: Messages) -> None:
    record = Record(messages)
    record.add(0)
    record.add(1)
    record.add(1)  # doubled
    record.add(2, sha256="0" * 64)  # changed
    record.add(4)  # answered 550 and delivered all the same
    record.add_strangers()
    counted = recorder(0.1, 0.1, 0.1, 0.1, "550", "550")  # 3 is lost, 5 rightly absent
    assert await reconciled(record, messages, counted) == Reconciliation(
        acknowledged=4, arrived=4, lost=1, duplicated=1, corrupted=1, unexpected=1
    )


async def test_a_message_delivered_as_another_mailbox_is_corrupted(messages: Messages) -> None:
    record = Record(messages)
    record.add(0, mailbox="test.account2@gmail.com")
    found = await reconciled(record, messages, recorder(0.1))
    assert isinstance(found, Reconciliation)
    assert found.corrupted == 1


async def test_a_message_for_other_recipients_is_corrupted(messages: Messages) -> None:
    record = Record(messages)
    record.add(0, paths=("somebody@else.test",))
    found = await reconciled(record, messages, recorder(0.1))
    assert isinstance(found, Reconciliation)
    assert found.corrupted == 1


async def test_messages_of_the_warm_up_are_looked_for_too(messages: Messages) -> None:
    record = Record(messages)
    record.add(1)
    counted = Recorder(1, warmup_seconds=1.0)
    counted.add(sample(0, 0.1, is_warmup=True))  # lost
    counted.add(sample(1, 0.1))
    assert await reconciled(record, messages, counted) == Reconciliation(
        acknowledged=2, arrived=1, lost=1, duplicated=0, corrupted=0, unexpected=0
    )


async def test_letter_case_of_the_login_does_not_matter(messages: Messages) -> None:
    record = Record(messages)
    record.add(0, mailbox=MAILBOX.upper())
    found = await reconciled(record, messages, recorder(0.1))
    assert isinstance(found, Reconciliation)
    assert found.is_clean


async def test_what_arrived_before_the_run_does_not_count(messages: Messages) -> None:
    record = Record(messages)
    record.add(0)
    async with json_server(record.answer) as url:
        position = await SandboxMessages(url).position()
    record.add(0)
    found = await reconciled(record, messages, recorder(0.1), position)
    assert isinstance(found, Reconciliation)
    assert (found.arrived, found.duplicated) == (1, 0)


async def test_discarded_records_make_it_impossible_to_tell(messages: Messages) -> None:
    record = Record(messages, evicted=1)
    record.add(0)
    record.add(1)
    found = await reconciled(record, messages, recorder(0.1, 0.1))
    assert found == NotReconciled("the sandbox has discarded some of the messages")


@pytest.mark.parametrize("answer", [[], {"total": "x", "messages": []}, {"total": 1}])
async def test_an_answer_of_another_form_is_not_trusted(messages: Messages, answer: Any) -> None:
    async with json_server(lambda *_: answer) as url:
        found = await reconcile(SandboxMessages(url), 0, messages, recorder(0.1), [MAILBOX])
    assert isinstance(found, NotReconciled)


async def test_a_sandbox_that_is_gone(messages: Messages) -> None:
    async with json_server(lambda *_: {}) as url:
        pass
    found = await reconcile(SandboxMessages(url), 0, messages, recorder(0.1), [MAILBOX])
    assert isinstance(found, NotReconciled)
    assert "does not answer" in found.reason
