"""Threads for refreshers that block; work that waited too long for a thread is not begun.

The response to a late request would come when its caller has gone, and a refresh token in it would
be lost.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from xoauth2_proxy.errors import TokenEndpointUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

# With two exchanges of 10 s (discovery, token) within the limit of `oauth.token_request`.
_WAIT_SECONDS = 8.0


class DeadlineThreadPool(ThreadPoolExecutor):
    """A pool that refuses work it could not begin within `wait_seconds`."""

    def __init__(self, threads: int, name: str, wait_seconds: float = _WAIT_SECONDS) -> None:
        super().__init__(threads, name)
        self._wait_seconds = wait_seconds

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Schedule `work`; its result is `TokenEndpointUnavailable` if it was not begun in time."""
        latest = time.monotonic() + self._wait_seconds

        @wraps(work)
        def begun_in_time(*given: Any, **named: Any) -> T:  # noqa: ANN401 - whatever `work` takes
            if time.monotonic() > latest:
                raise TokenEndpointUnavailable("no thread was free in time")
            return work(*given, **named)

        return super().submit(begun_in_time, *args, **kwargs)
