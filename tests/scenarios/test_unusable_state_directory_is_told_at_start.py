"""A proxy that cannot keep tokens says so when it starts, and for as long as it cannot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.config_files import account
from tests.support.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess


async def test_it_is_in_the_log_and_in_health_until_it_is_put_right(
    start_process: StartProcess, tmp_path: Path
) -> None:
    tokens = tmp_path / "kept"
    tokens.mkdir(mode=0o755)
    document = {"accounts": [account()], "store": {"directory": str(tokens)}}
    proxy = await start_process(document)
    told = f"{tokens} is open to other users: chmod 700 {tokens}"
    assert f"no mailbox can get tokens: {told}" in proxy.stderr
    status, text = await proxy.get("/health")
    assert (status, json.loads(text)["status"], json.loads(text)["problem"]) == (
        503,
        "unhealthy",
        told,
    )
    tokens.chmod(0o700)

    async def is_well() -> bool:
        return (await proxy.get("/health"))[0] == 200

    await until(is_well)
    _, text = await proxy.get("/health")
    assert json.loads(text)["status"] == "healthy"
    assert "problem" not in json.loads(text)
