"""What `check` says of a configuration that is valid, and would stop mail or give secrets away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.config_files import ConfigFile, account
from xoauth2_proxy.commands.check import warnings_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


def told(config: ConfigFile, *accounts: dict[str, object]) -> list[str]:
    """Return what `check` says of these accounts, but for what the start would say as well."""
    loaded = config.load({"accounts": list(accounts)})
    return [one for one in warnings_of(loaded, has_sandbox=True) if one not in loaded.warnings]


def own(port: int, tls: str, **others: object) -> dict[str, object]:
    upstream = {"host": "mail.example.com", "port": port, "tls": tls}
    return account(provider="gmail", upstream=upstream, **others)


@pytest.mark.parametrize(
    ("port", "tls", "usual"),
    [(465, "starttls", "implicit"), (587, "implicit", "starttls"), (25, "implicit", "starttls")],
)
def test_a_port_that_begins_tls_in_another_way_is_told_once(
    config: ConfigFile, port: int, tls: str, usual: str
) -> None:
    (warning,) = told(config, own(port, tls), own(port, tls, email="other@example.com"))
    assert f'port {port} of mail.example.com is usually for "tls": "{usual}"' in warning
    assert f"upstream.tls is {tls}" in warning


@pytest.mark.parametrize(
    ("port", "tls"), [(465, "implicit"), (587, "starttls"), (2587, "implicit"), (2465, "starttls")]
)
def test_a_port_that_fits_or_says_nothing_is_not_told(
    config: ConfigFile, port: int, tls: str
) -> None:
    assert told(config, own(port, tls)) == []


@pytest.mark.parametrize(
    ("mode", "program", "is_told"),
    [(0o644, "cat", True), (0o644, "/bin/cat", True), (0o640, "cat", False), (0o644, "sh", False)],
)
def test_a_token_file_that_every_user_may_read_is_told(
    config: ConfigFile, mode: int, program: str, is_told: bool
) -> None:
    file = config.add("someone@example.com.token", "an access token")
    file.chmod(mode)
    command = [program, f"{config.directory}/{{mailbox}}.token"]
    upstream = {"host": "mail.example.com", "port": 587}
    document = {
        "accounts": [account(provider="printed")],
        "providers": {
            "printed": {"refresher": "command", "command": command, "upstream": upstream}
        },
    }
    loaded = config.load(document)
    found = [one for one in warnings_of(loaded, has_sandbox=True) if str(file) in one]
    assert (
        found
        == [f"{file} holds secrets, and every user of this machine may read it: chmod 600 {file}"]
        * is_told
    )
