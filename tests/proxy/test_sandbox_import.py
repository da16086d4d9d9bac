from __future__ import annotations

import subprocess
import sys

_PROXY = "import sys, xoauth2_proxy.cli, xoauth2_proxy.service.runner, xoauth2_proxy.workers.parent"
_LOADED = "print(*(name for name in sys.modules if name.startswith('xoauth2_proxy.sandbox.')))"


def test_a_proxy_without_the_sandbox_imports_only_its_constants() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{_PROXY}; {_LOADED}"], capture_output=True, check=True, text=True
    )
    assert set(done.stdout.split()) == {
        "xoauth2_proxy.sandbox.mock_mailboxes",
        "xoauth2_proxy.sandbox.state_directory",
    }
