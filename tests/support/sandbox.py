"""The sandbox as tests drive it: they wait for what arrives, and end what keeps it waiting."""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox import app
from xoauth2_proxy.sandbox.faults import Action, Fault, Step
from xoauth2_proxy.sandbox.message_store import Message, MessageStore

if TYPE_CHECKING:
    from xoauth2_proxy.sandbox.counters import Counters
    from xoauth2_proxy.sandbox.provider_state import ProviderState


class AwaitableCounter:
    """Counts upwards; `reached` waits for a count."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def add(self) -> int:
        """Count one more and return the new count."""
        self.count += 1
        if self._waiting:
            for count, future in self._waiting:
                if count <= self.count and not future.done():
                    future.set_result(None)
        return self.count

    async def reached(self, count: int, timeout_seconds: float = 60.0) -> None:
        """Wait until the count is `count` or more.

        Raises `TimeoutError`: that took longer than `timeout_seconds`.
        """
        if self.count >= count:
            return
        waiter = (count, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout_seconds):
                await waiter[1]
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)


class WaitingStore(MessageStore):
    """A message store whose messages can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._accepted = AwaitableCounter()

    def add(self, message: Message) -> Message:
        """Store a message, and end the waits for it."""
        added = super().add(message)
        self._accepted.add()
        return added

    async def wait_until(self, count: int, timeout_seconds: float = 60.0) -> list[Message]:
        """Wait until `count` messages were ever accepted; return those that are stored.

        Raises `TimeoutError`: that took longer than `timeout_seconds`.
        """
        await self._accepted.reached(count, timeout_seconds)
        return list(self)


@dataclass(eq=False)
class Sandbox(app.Sandbox):
    """A sandbox whose arrivals can be waited for."""

    _: KW_ONLY
    tls: TlsMode | Literal["starttls", "implicit", "none"] | None = None  # None: as in the settings
    withhold: frozenset[str] = frozenset()  # more EHLO keywords that are not offered

    received: WaitingStore = field(init=False, repr=False)

    def __post_init__(self) -> None:
        behaviour = self.settings.behaviour
        behaviour = replace(
            behaviour,
            tls=behaviour.tls if self.tls is None else TlsMode(self.tls),
            withhold=behaviour.withhold | self.withhold,
        )
        self.settings = replace(self.settings, behaviour=behaviour)
        super().__post_init__()
        self.received = WaitingStore()
        self._arrivals: dict[Step, AwaitableCounter] = {}

    async def start(self) -> None:
        """Listen, and count the arrivals since the first start."""
        await super().start()
        if not self._arrivals:
            self._arrivals = count_arrivals(self._started)

    @property
    def counters(self) -> Counters:
        """Counters since the first start."""
        return self._started.counters

    async def arrived(self, step: Step, nth: int = 1, timeout_seconds: float = 60.0) -> None:
        """Wait until the step was reached `nth` times since the first start.

        Raises `TimeoutError`: that took longer than `timeout_seconds`.
        """
        await self._arrivals[step].reached(nth, timeout_seconds)

    def arrivals(self, step: Step) -> int:
        """Return how often the step was reached since the first start."""
        return self._arrivals[step].count

    def revoke(self, token: str) -> None:
        """Refuse this token from now on; sessions already logged in with it continue."""
        self._started.verifier.revoke(token)

    def revoke_all(self) -> None:
        """Refuse every token minted until now; sessions already logged in continue."""
        self._started.verifier.revoke_all()

    def close_connections(self, farewell: str = "421 4.4.2 Timeout, closing connection") -> None:
        """Close every connection, as a provider closes idle ones; "" closes without a reply."""
        assert self._smtp_server is not None
        octets = farewell.encode() + b"\r\n" if farewell else b""
        for connection in tuple(self._smtp_server._connections):
            connection.farewell(octets, "IDLE", "the test has closed it")

    def end_delays(self) -> None:
        """Send the replies that are delayed by faults or limits; later ones are delayed again."""
        assert self._smtp_server is not None
        for connection in tuple(self._smtp_server._connections):
            if connection._hold is not None:
                connection._hold.cancel()
                connection._release()

    @property
    def _started(self) -> ProviderState:
        if self._provider is None:
            raise RuntimeError("the sandbox was not started")
        return self._provider


def count_arrivals(provider: ProviderState) -> dict[Step, AwaitableCounter]:
    """Return a counter for each step, which counts from now on."""
    counters = {step: AwaitableCounter() for step in Step}
    arrive = provider.arrive

    def counted(step: Step, mailbox: str, argument: str) -> Fault | None:
        counters[step].add()
        return arrive(step, mailbox, argument)

    provider.arrive = counted  # type: ignore[method-assign]
    return counters


def reply_fault(
    step: Step,
    text: str,
    *,
    nth: int | None = 1,
    mailbox: str | None = None,
    matching: str = "",
) -> Fault:
    """Return the fault that answers `text` at `step`."""
    return Fault(step, Action.REPLY, text=text, nth=nth, mailbox=mailbox, matching=matching)
