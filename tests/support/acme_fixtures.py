"""Fixtures: Acme, its mail server, and a command line where the package for it is installed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.acme import APP_KEY, AcmeServer
from tests.support.command_line import CommandLine
from tests.support.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from xoauth2_proxy.oauth.refreshers.contract import Subject

from tests.support.acme_package import PACKAGE, AcmeSubject, document


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Sandbox]:
    """The mail server of Acme's mailboxes."""
    async with Sandbox(tmp_path, http_port=None) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the package installed from its sources, as `pip install` does it."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    alone = ["--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, *alone, "--target", target, PACKAGE], check=True)
    return target


@pytest.fixture
async def acme(provider: Sandbox) -> AsyncIterator[AcmeServer]:
    async with AcmeServer(provider.tokens) as server:
        yield server


@pytest.fixture
def command_line(
    tmp_path: Path, site: Path, acme: AcmeServer, provider: Sandbox
) -> Iterator[CommandLine]:
    """A command line where the package is installed; no command showed a secret."""
    made = CommandLine(tmp_path / "proxy.json", tmp_path, {APP_KEY})
    made.environ["PYTHONPATH"] = str(site)
    made.write(document(acme, provider))
    yield made
    assert made.leaked() == []


@pytest.fixture
async def subject(
    acme: AcmeServer, site: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subject]:
    """The package's refresher for the contract of all refreshers."""
    monkeypatch.syspath_prepend(str(site))
    module = importlib.import_module("acme_xoauth2")
    options = module.AcmeOptions(service=acme.url, app_key=APP_KEY)
    with ThreadPoolExecutor(8) as threads:
        yield AcmeSubject(module.AcmeRefresher(threads), options, acme)
