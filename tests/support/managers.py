"""Token managers beside a token endpoint that holds its answers until a test releases them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.support.token_endpoint import Answer, Request, TokenEndpoint, answer
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.token_manager import ClientCredentials

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENT_SECRET = "s3cret-of-the-client"


def application(endpoint: TokenEndpoint, **changes: Any) -> ClientCredentials:
    """Return a provider that asks this endpoint, over plain HTTP."""
    asked: dict[str, Any] = {
        "client_id": "billing-client",
        "client_secret": CLIENT_SECRET,
        "token_url": endpoint.token_url,
    }
    return ClientCredentials(**asked | changes)


@dataclass
class Gate:
    """Holds the answers of a token endpoint, which are the usual ones."""

    endpoint: TokenEndpoint
    is_asked: threading.Event = field(default_factory=threading.Event)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.endpoint.route("/token", self._answer)

    def _answer(self, request: Request) -> Answer:
        self.is_asked.set()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        return answer(self.endpoint.issue(scope=request.form.get("scope", "")))


def in_threads(number: int, work: Callable[[], object]) -> list[threading.Thread]:
    """Start threads that do this work."""
    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    return threads


def joined(threads: list[threading.Thread]) -> None:
    """Wait until they have ended."""
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
