"""What is measured: the relays and the workloads, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

RECIPIENT = "recipient@example.org"
PASSWORD = "secret"  # noqa: S105 - of the mailboxes made up for the sitting
MAX_MAILBOXES = 50


class RelayName(StrEnum):
    """The relays under test, by the words of `--relay`."""

    SPLICE = "splice"
    NAIVE = "naive"
    PROXY = "proxy"
    PROXY_DATA = "proxy-data"

    @property
    def meaning(self) -> str:
        """What it is, for a person."""
        return _MEANINGS[self]

    @property
    def is_proxy(self) -> bool:
        """Whether it is this project's relay."""
        return self in (RelayName.PROXY, RelayName.PROXY_DATA)


_MEANINGS = {
    RelayName.SPLICE: "uvloop TCP forwarder: no parsing, no TLS",
    RelayName.NAIVE: "stock aiosmtpd handler, pooled stock aiosmtplib",
    RelayName.PROXY: "this proxy",
    RelayName.PROXY_DATA: "this proxy, the provider offers no CHUNKING",
}
ALL_RELAYS = tuple(RelayName)


class Method(StrEnum):
    """How a workload is measured."""

    STREAM = "stream"  # messages one after the other on each client
    IDLE = "idle"  # clients that log in and say nothing
    CROWD = "crowd"  # few clients that send, among many that do not


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One load, put on every one of its relays."""

    name: str
    title: str
    method: Method = Method.STREAM
    relays: tuple[RelayName, ...] = ALL_RELAYS
    clients: int = 20
    mailboxes: int = 20
    size_bytes: int = 4096
    messages: int = 0  # in the measured window, of all clients
    warmup_messages: int = 20  # before it, of each client
    session_messages: int = 0  # after which a client connects anew; 0: never
    crowd: int = 0  # clients that log in and send nothing, or next to nothing
    needs_rtt: bool = False  # the provider holds each turn back
    needs_fresh_relay: bool = False  # memory: what ran before must not be seen
    repeats: int = 3  # unless the sitting has another number


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one sitting does."""

    workloads: tuple[Workload, ...]
    relays: tuple[RelayName, ...]  # of each workload's own, those to measure
    repeat: int | None  # None: as often as each workload says
    is_quick: bool
    is_pipelined: bool  # MAIL, RCPT and DATA in one write
    rtt_seconds: float  # of the workload that needs one


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(name="kept", title="20 clients keep their connection, 4 KiB", messages=3000),
        Workload(
            name="reconnect",
            title="20 clients, a new connection and AUTH for each message, 4 KiB",
            messages=1000,
            warmup_messages=3,
            session_messages=1,
        ),
        Workload(
            name="large",
            title="4 clients keep their connection, 1 MB",
            clients=4,
            mailboxes=4,
            size_bytes=1_000_000,
            messages=60,
            warmup_messages=3,
        ),
        Workload(
            name="one-mailbox",
            title="20 clients, 10 messages a connection, all of one mailbox, 4 KiB",
            mailboxes=1,
            messages=1500,
            warmup_messages=30,
            session_messages=10,
        ),
        Workload(
            name="fifty-mailboxes",
            title="20 clients, 10 messages a connection, of fifty mailboxes in turn, 4 KiB",
            mailboxes=MAX_MAILBOXES,
            messages=1500,
            warmup_messages=30,
            session_messages=10,
        ),
        Workload(
            name="memory",
            title="50 clients send 20 MB each at once",
            clients=50,
            mailboxes=MAX_MAILBOXES,
            size_bytes=20_000_000,
            messages=50,
            warmup_messages=0,
            needs_fresh_relay=True,
            repeats=1,
        ),
        Workload(
            name="idle",
            title="authenticated clients that say nothing",
            method=Method.IDLE,
            relays=(RelayName.SPLICE, RelayName.NAIVE, RelayName.PROXY),
            mailboxes=MAX_MAILBOXES,
            messages=20,
            warmup_messages=1,
            crowd=5000,
            needs_fresh_relay=True,
            repeats=1,
        ),
        Workload(
            name="crowd",
            title="4 clients send 4 KiB alone, then among 500 idle, then 500 that trickle",
            method=Method.CROWD,
            relays=(RelayName.SPLICE, RelayName.NAIVE, RelayName.PROXY),
            clients=4,
            mailboxes=4,
            messages=1000,
            crowd=500,
        ),
        Workload(
            name="rtt",
            title="one warm client, one recipient, each provider's turn held back",
            clients=1,
            mailboxes=1,
            messages=15,
            warmup_messages=2,
            needs_rtt=True,
        ),
    )
}

_QUICK_MESSAGES = {
    "kept": 600,
    "reconnect": 200,
    "large": 8,
    "one-mailbox": 400,
    "fifty-mailboxes": 400,
    "crowd": 200,
    "rtt": 4,
}
_QUICK_IDLE = 1000


def workloads(names: tuple[str, ...], *, is_quick: bool) -> list[Workload]:
    """Return the workloads of these names, all when there are none, smaller when quick."""
    chosen = [WORKLOADS[name] for name in WORKLOADS if not names or name in names]
    return [_quick(workload) for workload in chosen] if is_quick else chosen


def _quick(workload: Workload) -> Workload:
    changed = replace(workload, messages=_QUICK_MESSAGES.get(workload.name, workload.messages))
    if workload.method is Method.IDLE:
        changed = replace(changed, crowd=_QUICK_IDLE)
    if workload.name == "memory":  # a gigabyte; the naive relay alone takes most of a minute
        changed = replace(changed, relays=(RelayName.PROXY,))
    return changed


def mailbox(index: int) -> str:
    """Return a mailbox of the sitting."""
    return f"mailbox{index:02}@example.com"
