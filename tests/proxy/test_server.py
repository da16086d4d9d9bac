"""What is said to the person who starts the proxy: addresses to connect to, commands that work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.config_files import account
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.config import ConfigSource, Overrides
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES
from xoauth2_proxy.service import runner
from xoauth2_proxy.service.listening import Address, Addresses, ListenerAddresses
from xoauth2_proxy.service.runner import Run
from xoauth2_proxy.submission.policy import ListenerTls


def at(smtp: Address, admin: Address) -> Addresses:
    """The addresses of a proxy with one listener."""
    return Addresses((ListenerAddresses("default", ListenerTls.NONE, (smtp,)),), admin)


ON_LOOPBACK = at(("127.0.0.1", 2525), ("127.0.0.1", 9090))
SANDBOX = {"smtp": "127.0.0.1:2600", "http": "http://127.0.0.1:2601"}


def welcome(
    state_dir: Path,
    addresses: Addresses = ON_LOOPBACK,
    accounts: list[object] | None = None,
    sandbox: dict[str, str] = SANDBOX,
) -> str:
    """Return the welcome of a proxy with these accounts (None: the sandbox's own mailboxes)."""
    file = None
    if accounts is not None:
        file = Path(state_dir) / "accounts.json"
        file.write_text(repr(accounts).replace("'", '"'))
    source = ConfigSource(file, Overrides(sandbox=True), state_dir)
    run = Run(config=source.load(BUILT_IN_REFRESHERS, {}), source=source)
    return runner._welcome(run, addresses, sandbox)


@pytest.mark.parametrize(
    ("every", "reachable"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.7", "192.0.2.7")]
)
def test_an_address_is_one_that_can_be_connected_to(
    tmp_path: Path, every: str, reachable: str
) -> None:
    said = welcome(tmp_path, at((every, 2526), (every, 9091)))
    authority = f"[{reachable}]" if ":" in reachable else reachable
    assert f"server {reachable}, port 2526" in said
    assert f"--host {reachable} --port 2526 --admin-url http://{authority}:9091" in said
    assert f"http://{authority}:9091/health" in said
    assert said.count("0.0.0.0") == (every == "0.0.0.0"), "but for where it listens"


def test_the_benchmark_is_told_what_is_not_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"--state-dir {tmp_path}" in welcome(tmp_path)
    monkeypatch.setattr(runner, "default_state_dir", lambda: tmp_path)
    assert "--state-dir" not in welcome(tmp_path)
    assert "--host" not in welcome(tmp_path)


def test_no_benchmark_is_offered_that_could_not_log_in(tmp_path: Path) -> None:
    mailboxes = [account(email=mailbox) for mailbox in MOCK_MAILBOXES]
    assert "Benchmark" in welcome(tmp_path, accounts=[*mailboxes])
    assert "Benchmark" in welcome(tmp_path, accounts=[*mailboxes, account()])
    assert "Benchmark" not in welcome(tmp_path, accounts=[*mailboxes[1:]])
    assert "Benchmark" not in welcome(tmp_path, accounts=[account()])
    assert "Benchmark" not in welcome(tmp_path, sandbox={})
