"""What is imported, and when: short commands and an idle proxy pay only for what they use.

Python itself says what it imports (`-X importtime`), in the real process.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

WAIT_SECONDS = 60.0

# What only a mailbox, a page, a key, a sandbox or a table calls for.
WHEN_USED = (
    "aiohttp",
    "aiosmtplib",
    "argon2",
    "authlib",
    "cryptography",
    "google.auth",
    "jinja2",
    "joserfc",
    "jwt",
    "keyring",
    "msal",
    "multiprocessing",
    "redis",
    "requests",
    "rich",
    "tomllib",
    "urllib3",
    "xoauth2_proxy.sandbox.app",
)
# What the proxy itself is made of.
OF_THE_PROXY = (
    "aiosmtpd", "asyncio", "prometheus_client", "pydantic", "uvloop",
    "xoauth2_proxy.config", "xoauth2_proxy.service.app",
)  # fmt: skip


def imported(report: str) -> set[str]:
    """Return the modules that `-X importtime` names."""
    return set(re.findall(r"^import time:.*\| +(\S+)$", report, re.MULTILINE))


def imported_by(*arguments: str) -> set[str]:
    command = [sys.executable, "-X", "importtime", "-m", "xoauth2_proxy", *arguments]
    return imported(
        subprocess.run(
            command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        ).stderr
    )


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_the_version_needs_no_library(arguments: list[str]) -> None:
    found = imported_by(*arguments)
    assert found.isdisjoint((*WHEN_USED, *OF_THE_PROXY, "typer", "http.client", "logging"))
    assert "xoauth2_proxy.standard_streams" in found


@pytest.mark.parametrize("arguments", [[], ["--url", "http://127.0.0.1:1"]])
def test_health_needs_an_http_client_and_no_more(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XOAUTH2_PROXY_ADMIN_URL", "http://127.0.0.1:1")
    found = imported_by("health", *arguments)
    assert found.isdisjoint((*WHEN_USED, *OF_THE_PROXY, "typer", "urllib.request"))
    assert "http.client" in found


def test_help_needs_options_and_no_more() -> None:
    found = imported_by("--help")
    assert found.isdisjoint((*WHEN_USED, *OF_THE_PROXY, "http.client"))
    assert "typer" in found


@pytest.fixture
def accounts(tmp_path: Path) -> Path:
    """Return a configuration with a mailbox of each provider, into which nobody has signed in."""
    client = {"password": "opens sesame", "client_id": "a-client", "client_secret": "its secret"}
    file = tmp_path / "accounts.json"
    providers = {"gmail": "a@gmail.com", "outlook": "b@outlook.com"}
    file.write_text(
        json.dumps([client | {"provider": name, "email": who} for name, who in providers.items()])
    )
    return file


def test_an_idle_proxy_has_imported_nothing_for_later(accounts: Path, tmp_path: Path) -> None:
    arguments = ("--config", accounts, "--state-dir", tmp_path / "state", "--port", 0)
    command = [sys.executable, "-X", "importtime", "-m", "xoauth2_proxy", *map(str, arguments)]
    command += ["--admin-port", "0"]
    report = tmp_path / "report"
    with (
        report.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            assert any("Health" in line for line in process.stdout)  # it listens
        finally:
            process.send_signal(signal.SIGTERM)
    found = imported(report.read_text())
    assert found.isdisjoint(WHEN_USED)
    assert found.issuperset(OF_THE_PROXY)


def test_a_plug_in_that_uses_aiohttp_trusts_the_systems_authorities() -> None:
    script = (
        "import ssl, xoauth2_proxy.admin.server, aiohttp.connector as c;"
        "ours, default = c._SSL_CONTEXT_VERIFIED, ssl.create_default_context();"
        "print(ours.cert_store_stats() == default.cert_store_stats(), ours.verify_mode.name)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "True CERT_REQUIRED\n"


# A mailbox's library: in a thread, for its first token.

REFRESH = """
import asyncio, sys, threading
from pathlib import Path
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import TokenError
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry

class Watch:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == LIBRARY:
            print(name, "in", threading.current_thread().name.rstrip("0123456789"))

async def main():
    registry = RefresherRegistry(Path(sys.argv[1]))
    refresher = registry.refreshers([NAME])[NAME]
    print(LIBRARY in sys.modules)
    try:
        await refresher.refresh(Grant(mailbox="a@b.example", client=OAuthClient()))
    except TokenError:
        pass
    registry.close()

NAME, LIBRARY = sys.argv[2:]
sys.meta_path.insert(0, Watch)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("name", "library"), [("gmail", "google.auth"), ("outlook", "msal"), ("oidc", "authlib")]
)
def test_a_library_is_imported_in_a_thread_for_the_first_token(
    tmp_path: Path, name: str, library: str
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", REFRESH, str(tmp_path), name, library],
        capture_output=True, text=True, timeout=WAIT_SECONDS, check=True,
    )  # fmt: skip
    assert ended.stdout.splitlines() == ["False", f"{library} in oauth_"]
