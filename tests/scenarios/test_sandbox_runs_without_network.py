"""The sandbox needs no network: with none but loopback a message goes through, no token asked."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import offline_session
from tests.support.programs import program, run

SCRIPT = str(Path(offline_session.__file__))

pytestmark = pytest.mark.one_loop


def assert_offline(report: dict[str, Any]) -> None:
    assert report["is_cut_off"]
    code, text = report["reply"]
    assert code == 250, text
    assert report["messages"] == 1
    assert report["refreshes"] == [
        'xoauth2_proxy_token_refreshes_total{provider="mock",result="ok"} 1.0'
    ]
    assert report["exit_code"] == 0
    log = str(report["log"])
    assert "ERROR" not in log
    assert not any(name in log for name in ("googleapis", "google.com", "microsoft", "office365"))


async def test_in_a_network_namespace_of_its_own(tmp_path: Path) -> None:
    alone = (program("unshare"), "--map-root-user", "--net", "sh", "-c")
    up = "ip link set lo up"
    try:
        await run(*alone, up)
    except AssertionError as error:
        pytest.skip(f"no network namespace can be made here: {error}")
    command = f'{up} && exec "$@"'
    said = await run(*alone, command, "sh", sys.executable, SCRIPT, str(tmp_path))
    assert_offline(json.loads(said))


async def test_where_every_other_address_is_refused(tmp_path: Path) -> None:
    assert_offline(json.loads(await run(sys.executable, SCRIPT, str(tmp_path), "guard")))
