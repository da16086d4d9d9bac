"""Watches whether the store of grants works, so that health can tell without waiting for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xoauth2_proxy import log
from xoauth2_proxy.errors import TokenStoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from xoauth2_proxy.oauth.stores import TokenStore

CHECK_SECONDS = 5.0  # between two checks: health is no older than that and one answer
_FIRST_SECONDS = 1.0  # how long a start waits for the first answer
_ANSWER_SECONDS = 6.0  # a store's own time limit is shorter, but for a file system that hangs

_log = log.logger("oauth")


class StoreWatch:
    """Checks the store now and then, one check at a time."""

    def __init__(self, store: TokenStore, report: Callable[[str], None]) -> None:
        """`report` is told after each check why the store cannot be used, or ""."""
        self._store = store
        self._report = report
        self._problem = ""
        self._check: asyncio.Task[None] | None = None  # the running one

    async def begin(self) -> None:
        """Check once; a store that does not answer soon is not waited for."""
        await self._look(_FIRST_SECONDS)

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                await self._look(_ANSWER_SECONDS)
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            if self._check is not None:
                self._check.cancel()

    async def _look(self, seconds: float) -> None:
        if self._check is None:
            self._check = asyncio.create_task(self._store.check(), name="check of the store")
        done, _ = await asyncio.wait([self._check], timeout=seconds)
        if not done:  # it is waited for again next time: what hangs is not asked twice
            self._note("no answer in time")
            return
        check, self._check = self._check, None
        try:
            check.result()
        except TokenStoreUnavailable as error:
            self._note(str(error))
        except Exception as error:
            _log.critical("the check of the store failed unexpectedly", exc_info=error)
            self._note(f"unexpected {type(error).__name__}")
        else:
            self._note("")

    def _note(self, problem: str) -> None:
        if problem and problem != self._problem:
            _log.error("no mailbox can get tokens: %s", problem)
        elif self._problem and not problem:
            _log.info("the store of tokens works again")
        self._problem = problem
        self._report(problem)
