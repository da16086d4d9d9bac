"""Threads for blocking refreshers: what waited too long is not begun."""

from __future__ import annotations

import threading

import pytest

from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.errors import TokenEndpointUnavailable
from xoauth2_proxy.oauth.refreshers.threads import DeadlineThreadPool


def test_work_is_done_with_its_arguments() -> None:
    with DeadlineThreadPool(1, "test") as threads:
        assert threads.submit(divmod, 7, 2).result(PATIENCE_SECONDS) == (3, 1)
        assert threads.submit(int, "11", base=2).result(PATIENCE_SECONDS) == 3


def test_work_that_waited_too_long_is_not_begun() -> None:
    begun, may_end = threading.Event(), threading.Event()
    with DeadlineThreadPool(1, "test", wait_seconds=0.0) as threads:
        first = DeadlineThreadPool.submit(threads, may_end.wait, PATIENCE_SECONDS)
        late = threads.submit(begun.set)
        may_end.set()
        with pytest.raises(TokenEndpointUnavailable, match="no thread was free in time"):
            late.result(PATIENCE_SECONDS)
        first.exception(PATIENCE_SECONDS)
    assert not begun.is_set()
