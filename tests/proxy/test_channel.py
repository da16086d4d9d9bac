"""What a parent says to a worker arrives whole and in order, also if the worker was away."""

from __future__ import annotations

import asyncio
import pickle
import socket
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.config_files import ConfigFile
from tests.support.waiting import PATIENCE_SECONDS
from xoauth2_proxy.workers.channel import CONFIG, Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.both_loops


@asynccontextmanager
async def channels() -> AsyncIterator[tuple[Channel, socket.socket]]:
    """Give an open end, and the other one, from which nothing has been read."""
    one, other = socket.socketpair()
    here = await Channel.over(one)
    with other:
        yield here, other
    await here.close()


async def test_what_must_arrive_does_so_though_other_lines_are_lost() -> None:
    async with channels() as (here, other):
        for _ in range(10_000):
            here.say("wanted something 1")
        here.say("forget someone@example.com", must_arrive=True)
        here.say("drain", must_arrive=True)
        there = await Channel.over(other.dup())
        lines: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not lines or lines[-1] != "drain":
                lines.append(await there.line())
        await there.close()
    assert lines[-2] == "forget someone@example.com"
    assert len(lines) < 10_000, "nothing was lost, so nothing was tried"


async def test_what_is_said_to_a_process_that_was_killed_is_lost_in_silence() -> None:
    async with channels() as (here, other):
        here.say("ping")
        other.close()  # with something unread, as when it is killed
        for _ in range(3):
            here.say("wanted something 1")
            here.say("forget someone@example.com", must_arrive=True)
            here.send_object(CONFIG, b"configuration")
            await asyncio.sleep(0)  # the loop learns that a write has failed
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await here.line() == ""


async def test_a_large_configuration_arrives_between_lines(tmp_path: Path) -> None:
    config = ConfigFile(tmp_path).load_one()
    (account,) = config.accounts
    many = tuple(replace(account, email=f"n{number}@example.com") for number in range(2000))
    config = replace(config, accounts=many)
    async with channels() as (here, other):
        here.say("ping")
        here.send_object(CONFIG, pickle.dumps(config))
        here.say("drain", must_arrive=True)
        there = await Channel.over(other.dup())
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await there.line() == "ping"
            announced = await there.line()
            assert announced.startswith(CONFIG)
            received = await there.config(announced)
            assert len(received.accounts) == len(many)
            assert received == config
            assert await there.line() == "drain"
        await there.close()


async def test_a_parent_that_ends_in_the_middle_of_a_configuration_is_noticed() -> None:
    async with channels() as (here, other):
        there = await Channel.over(other.dup())
        here._writer.write(b"config 100\nhalf")
        await here.close()
        announced = await there.line()
        with pytest.raises(EOFError):
            await there.config(announced)
        await there.close()
