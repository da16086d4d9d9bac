"""Against a server that is not ours: Postfix's smtp-sink, which knows no login."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from bench.client.endpoint import Endpoint
from bench.client.submission import is_listening
from tests.benchmark.runs import invoked, strict_json, validate
from tests.support.beside import beside
from tests.support.waiting import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SMTP_SINK = shutil.which("smtp-sink", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec")

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(SMTP_SINK is None, reason="smtp-sink (Postfix) is not installed"),
]


@asynccontextmanager
async def smtp_sink() -> AsyncIterator[int]:
    """Run smtp-sink; yields its port, which it cannot choose itself."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    user = ("-u", "nobody") if os.geteuid() == 0 else ()
    assert SMTP_SINK is not None
    process = await asyncio.create_subprocess_exec(
        SMTP_SINK, *user, f"127.0.0.1:{port}", "100", stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await is_listening(Endpoint("127.0.0.1", port), 1.0):
                assert process.returncode is None, "smtp-sink ended at once"
                await asyncio.sleep(0.02)
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--pipelined", "--recipients", "1-3"),
        ("--connection", "4", "--sizes", "1k:3,50k:1"),
        ("--arrival-rate", "400", "--warmup", "0.2"),
    ],
    ids=["plainly", "pipelined", "four a connection", "open model"],
)
def test_it_takes_every_message(tmp_path: Path, options: tuple[str, ...]) -> None:
    with beside(smtp_sink()) as port:
        code, out, errors = invoked(
            tmp_path,
            *("--no-auth", "--port", str(port), "--num-emails", "200", "--output", "run.json"),
            *options,
        )
    assert code == 0, out + errors
    document = strict_json((tmp_path / "run.json").read_text())
    validate(document)
    assert document["results"]["successful"] == 200
    assert document["reconciliation"] is None
