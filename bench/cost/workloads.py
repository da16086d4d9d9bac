"""The relays and workloads that a cost run measures. Plain values.

The names of a workload's fields are keys of the JSON document.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

MAX_MAILBOXES = 50


class RelayName(StrEnum):
    """The relays under test, by the words of `--relay`."""

    SPLICE = "splice"
    NAIVE = "naive"
    PROXY = "proxy"
    PROXY_DATA = "proxy-data"
    PROXY_ASYNCIO = "proxy-asyncio"


RELAYS = {  # with a description for people
    RelayName.SPLICE: "uvloop TCP forwarder: no parsing, no TLS",
    RelayName.NAIVE: "stock aiosmtpd handler, pooled stock aiosmtplib",
    RelayName.PROXY: "this proxy",
    RelayName.PROXY_DATA: "this proxy, the provider offers no CHUNKING",
    RelayName.PROXY_ASYNCIO: "this proxy on asyncio's event loop",
}
DEFAULT_RELAYS = tuple(RelayName)[:-1]
_WITHOUT_DATA = (RelayName.SPLICE, RelayName.NAIVE, RelayName.PROXY)


class Method(StrEnum):
    """How a workload is measured."""

    STREAM = "stream"  # messages one after the other on each client
    IDLE = "idle"  # clients that log in and stay silent
    CROWD = "crowd"  # a few clients that send, among many that do not


@dataclass(frozen=True, slots=True)
class CostWorkload:
    """A load that is put on each of its relays."""

    name: str
    title: str
    messages: int  # in the measured window, of all clients
    method: Method = Method.STREAM
    relays: tuple[RelayName, ...] = tuple(RelayName)
    clients: int = 20
    mailboxes: int = 20
    size_bytes: int = 4096
    warmup_messages: int = 20  # before it, of each client
    session_messages: int = 0  # after which a client connects anew; 0: never
    crowd: int = 0  # clients that log in and send nothing, or very little
    needs_rtt: bool = False  # the provider delays each turn
    needs_fresh_relay: bool = False  # memory must not include earlier workloads
    repeats: int = 3  # unless --repeat says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """The workloads and relays to measure, and the settings."""

    workloads: tuple[CostWorkload, ...]
    relays: tuple[RelayName, ...]  # those to measure; each workload has its own
    repeat: int | None  # None: as often as each workload says
    is_quick: bool
    is_pipelined: bool  # MAIL, RCPT and DATA in one write
    rtt_seconds: float  # of the workload that needs one


_ALL = (
    CostWorkload("kept", "20 clients keep their connection, 4 KiB", 3000),
    CostWorkload(
        "reconnect", "20 clients, a new connection and AUTH for each message, 4 KiB", 1000,
        warmup_messages=3, session_messages=1,
    ),
    CostWorkload(
        "large", "4 clients keep their connection, 1 MB", 60,
        clients=4, mailboxes=4, size_bytes=1_000_000, warmup_messages=3,
    ),
    CostWorkload(
        "one-mailbox", "20 clients, 10 messages a connection, all of one mailbox, 4 KiB", 1500,
        mailboxes=1, warmup_messages=30, session_messages=10,
    ),
    CostWorkload(
        "fifty-mailboxes",
        "20 clients, 10 messages a connection, of fifty mailboxes in turn, 4 KiB", 1500,
        mailboxes=MAX_MAILBOXES, warmup_messages=30, session_messages=10,
    ),
    CostWorkload(
        "memory", "50 clients send 20 MB each at once", 50,
        clients=50, mailboxes=MAX_MAILBOXES, size_bytes=20_000_000, warmup_messages=0,
        needs_fresh_relay=True, repeats=1,
    ),
    CostWorkload(
        "idle", "authenticated clients that say nothing", 20, Method.IDLE, _WITHOUT_DATA,
        mailboxes=MAX_MAILBOXES, warmup_messages=1, crowd=5000, needs_fresh_relay=True, repeats=1,
    ),
    CostWorkload(
        "crowd", "4 clients send 4 KiB alone, then among 500 idle, then 500 that trickle", 1000,
        Method.CROWD, _WITHOUT_DATA, clients=4, mailboxes=4, crowd=500,
    ),
    CostWorkload(
        "rtt", "one warm client, one recipient, each provider's turn held back", 15,
        clients=1, mailboxes=1, warmup_messages=2, needs_rtt=True,
    ),
)  # fmt: skip
WORKLOADS = {one.name: one for one in _ALL}

_QUICK_MESSAGES = {
    "kept": 600, "reconnect": 200, "large": 8, "one-mailbox": 400, "fifty-mailboxes": 400,
    "crowd": 200, "rtt": 4,
}  # fmt: skip


def workloads(names: tuple[str, ...], *, is_quick: bool) -> list[CostWorkload]:
    """Return the workloads of these names, or all for no names; smaller ones if quick."""
    chosen = [one for one in _ALL if not names or one.name in names]
    return [_quick(workload) for workload in chosen] if is_quick else chosen


def _quick(workload: CostWorkload) -> CostWorkload:
    messages = _QUICK_MESSAGES.get(workload.name, workload.messages)
    crowd = 1000 if workload.method is Method.IDLE else workload.crowd
    # A gigabyte; the naive relay alone takes most of a minute.
    relays = (RelayName.PROXY,) if workload.name == "memory" else workload.relays
    return replace(workload, messages=messages, crowd=crowd, relays=relays)
