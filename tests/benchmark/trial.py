"""A load against a scripted server, with all its parts in reach of a test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bench.client.endpoint import Endpoint
from bench.client.login import ClientLogin, Mechanism
from bench.load.generator import LoadGenerator
from bench.load.messages import Messages
from bench.measurement.recorder import Recorder
from tests.benchmark.scripted_server import PASSWORD, ScriptedServer
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from bench.measurement.result import Result
    from bench.plan.arrivals import ProcessShare
    from bench.plan.scenarios import RunPlan


class Trial:
    """The load and its parts."""

    def __init__(
        self,
        server: ScriptedServer,
        what: RunPlan,
        share: ProcessShare | None = None,
        run_id: str = "",
    ) -> None:
        self.messages = Messages(what.to_email, what.workload, run_id=run_id)
        self.recorder = Recorder(what.pace.planned, what.pace.warmup_seconds)
        logins = [
            ClientLogin(mailbox, Mechanism.PLAIN, lambda: PASSWORD) for mailbox in what.mailboxes
        ]
        endpoint = Endpoint("127.0.0.1", server.port)
        self.load = LoadGenerator(what, endpoint, logins, self.messages, self.recorder, share)

    async def result(self) -> Result:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.load.run()
        return self.recorder.snapshot(self.load.wall_seconds)


def codes(result: Result) -> dict[str, int]:
    return {error.failure.code: error.count for error in result.errors}
