from __future__ import annotations

import socket
import subprocess
import sys
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.service import runner

if TYPE_CHECKING:
    from pathlib import Path

_PROXY = "import sys, xoauth2_proxy.cli, xoauth2_proxy.service.runner, xoauth2_proxy.workers.parent"
_LOADED = "print(*(name for name in sys.modules if name.startswith('xoauth2_proxy.sandbox.')))"


def test_a_proxy_without_the_sandbox_imports_only_its_constants() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{_PROXY}; {_LOADED}"], capture_output=True, check=True, text=True
    )
    assert set(done.stdout.split()) == {"xoauth2_proxy.sandbox.mock_mailboxes"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def test_the_embedded_sandbox_listens_on_the_chosen_ports(tmp_path: Path) -> None:
    source = ConfigSource(None, Overrides(sandbox=True), tmp_path)
    smtp_port, http_port = free_port(), free_port()
    what = runner.Run(
        config=source.load(BUILT_IN_REFRESHERS, {}),
        source=source,
        sandbox=True,
        sandbox_smtp_port=smtp_port,
        sandbox_http_port=http_port,
    )
    sandbox = runner.embedded_sandbox(what)
    assert sandbox is not None
    async with sandbox:
        assert sandbox.smtp_address == ("127.0.0.1", smtp_port)
        assert sandbox.http_url == f"http://127.0.0.1:{http_port}"
