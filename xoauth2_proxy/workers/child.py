"""Runs one worker process: a relay on sockets that its parent opened.

It ends when the parent asks for it or has ended, and finishes transactions in flight first.
Ctrl+C in a terminal reaches workers too, but only the parent acts on it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING
from urllib.parse import unquote

from xoauth2_proxy import log, metrics
from xoauth2_proxy.clients.forwarding import Forwarding
from xoauth2_proxy.service import runner
from xoauth2_proxy.service.app import App, WorkerResources, login_counts
from xoauth2_proxy.service.listening import ListeningSockets
from xoauth2_proxy.submission.address_table import AddressTable
from xoauth2_proxy.upstream.worker_slots import WorkerSlots
from xoauth2_proxy.workers import run_directory
from xoauth2_proxy.workers.channel import CONFIG, CREDENTIALS, HELD_BACK, Channel, receive_setup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xoauth2_proxy.submission.authenticator import LoginCounts
    from xoauth2_proxy.workers.channel import Setup

_CHANNEL = 0  # standard input
_FORGET = "forget "

_log = log.logger("workers")


def main() -> int:
    """Run the worker until it ends; return the exit code."""
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    end = socket.socket(fileno=os.dup(_CHANNEL))
    with open(os.devnull, "rb") as nothing:  # programs that the worker starts must not inherit it
        os.dup2(nothing.fileno(), _CHANNEL)
    try:
        setup = receive_setup(end)
    except EOFError:
        return runner.EXIT_FAILED
    log.configure(setup.logging.level, setup.logging.format)
    metrics.record_in_files(run_directory.figures(setup.directory), setup.number)
    with asyncio.Runner(loop_factory=setup.run.loop.factory()) as event_loop:
        return event_loop.run(_serve(setup, end))


async def _serve(setup: Setup, end: socket.socket) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    channel = await Channel.over(end)
    try:
        rates = run_directory.rates(setup.directory)
        slots = WorkerSlots(run_directory.slots(setup.run.state_dir), rates, channel.say)
        logins = login_counts(setup.run.config, setup.number, channel.say)
        app = _build(setup, slots, logins, channel)
        listening = asyncio.create_task(
            _listen(channel, app, [logins.heard, slots.heard], stop),
            name="parent's words",
        )
        await app.start()
    except (OSError, ValueError) as error:
        channel.say(f"failed {error}")
        await channel.close()
        return runner.EXIT_FAILED
    channel.say("ready")
    try:
        await stop.wait()
    finally:
        await app.stop()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await channel.close()
    return 0


def _build(setup: Setup, slots: WorkerSlots, logins: LoginCounts, channel: Channel) -> App:
    sockets = ListeningSockets(
        [socket.socket(fileno=one) for one in descriptors] for descriptors in setup.sockets
    )
    file = run_directory.client_counts(setup.directory)
    counts = run_directory.ClientCounts(file, len(setup.sockets)).for_worker(setup.number)
    addresses = [
        AddressTable(run_directory.shared_memory(one), setup.number)
        for one in run_directory.client_addresses(setup.directory, len(setup.sockets))
    ]
    shared = WorkerResources(
        sockets=sockets,
        slots=slots,
        client_counts=counts,
        addresses=addresses,
        number=setup.number,
        workers=setup.workers,
        login_counts=logins,
        sandbox=setup.sandbox,
        clients=Forwarding(channel.say),
    )
    return App(setup.run.config, setup.run.components(), shared=shared)


async def _listen(
    channel: Channel, app: App, listeners: Sequence[Callable[[str], object]], stop: asyncio.Event
) -> None:
    """Carry out the parent's commands until the parent ends; `listeners` hear the other workers.

    A worker that fails to do so ends; its successor starts with the current configuration.
    """
    try:
        while line := await channel.line():
            if line == "ping":
                channel.say("pong")
            elif line == "drain":
                stop.set()
            elif line.startswith(CONFIG):
                await app.apply(await channel.config(line))
                channel.say("took")
                _log.info("configuration read again")
            elif line.startswith(CREDENTIALS):
                await app.use_credentials(*await channel.credentials(line))
                channel.say("took")
            elif line.startswith(_FORGET):
                app.forget(unquote(line.removeprefix(_FORGET)))
            else:
                for heard in listeners:
                    heard(line)
    except Exception:
        _log.critical("the worker cannot carry out its parent's commands", exc_info=True)
    finally:
        stop.set()
