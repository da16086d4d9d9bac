"""`credential add`, `list` and `revoke`, with the proxy running, with workers, and not running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.by_worker import clients_of_both, told_by_both
from tests.support.proxy_process import ROOT, ProxyProcess
from tests.support.smtp_client import message
from tests.support.waiting import until
from tests.support.workers import health, pids

if TYPE_CHECKING:
    from pathlib import Path

    from tests.scenarios.conftest import StartProcess

pytestmark = pytest.mark.one_loop

MAILBOX = "scanner@example.com"
GOOD, REFUSED = {"235 2.7.0"}, {"535 5.7.8"}
TOKEN = "admin-bearer-token-5Kd2"


def document(**sections: object) -> dict[str, Any]:
    account = {"email": MAILBOX, "provider": "mock", "password": "secret"}
    return {"accounts": [account], **sections}


@dataclass
class Operator:
    """Somebody at a shell beside the proxy's files."""

    directory: Path
    environ: dict[str, str] = field(default_factory=dict)

    async def types(self, *words: str, code: int = 0) -> str:
        """Run `xoauth2-proxy credential …`; return what it prints."""
        command = [sys.executable, "-m", "xoauth2_proxy", "--config", self._config]
        command += ["--state-dir", str(self.directory), "credential", *words]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | self.environ,
        )
        told, _ = await process.communicate()
        assert process.returncode == code, told.decode()
        return told.decode()

    async def adds(self, name: str, *options: str) -> dict[str, Any]:
        told = await self.types("add", MAILBOX, name, "--json", *options)
        made: dict[str, Any] = json.loads(told)["credential"]
        return made

    @property
    def _config(self) -> str:
        return str(self.directory / "proxy.json")


def beside(proxy: ProxyProcess) -> Operator:
    """Return the operator of a proxy that runs; its admin port was chosen by the system."""
    environ = {
        "XOAUTH2_PROXY_ADMIN_URL": proxy.admin_url,
        "XOAUTH2_PROXY_ADMIN_TOKEN": TOKEN,
        "COLUMNS": "200",
    }
    return Operator(proxy.directory, environ)


async def test_every_worker_takes_a_new_credential_and_loses_a_revoked_one(
    start_process: StartProcess,
) -> None:
    proxy = await start_process(document(), "--sandbox", "--workers", "2")
    operator = beside(proxy)
    made = await operator.adds("copier")
    assert await told_by_both(proxy, "copier", made["password"]) == GOOD
    async with clients_of_both(proxy) as clients:
        logins = [one.auth_plain("copier", made["password"]) for one in clients]
        assert {one.code for one in await asyncio.gather(*logins)} == {235}
        assert {(await one.send(message())).code for one in clients} == {250}
        told = await operator.types("revoke", MAILBOX, "copier", "--url", proxy.admin_url)
        assert told == f"Revoked: copier of {MAILBOX}.\n"
        answers = [await one.command("MAIL FROM:<a@example.com>") for one in clients]
        assert {one.code for one in answers} == {421}
    assert await told_by_both(proxy, "copier", made["password"]) == REFUSED
    assert await told_by_both(proxy, MAILBOX, "secret") == GOOD
    for worker in ("configuration read again", "Traceback"):
        assert worker not in proxy.stderr  # one credential is not the whole configuration


async def test_a_worker_that_starts_later_has_the_credential(start_process: StartProcess) -> None:
    proxy = await start_process(document(), "--sandbox", "--workers", "2")
    made = await beside(proxy).adds("copier")
    for pid in pids(proxy.process.pid):
        os.kill(pid, signal.SIGKILL)

    async def were_restarted() -> bool:
        return bool((await health(proxy))["workers"]["restarts"] == 2)

    await until(were_restarted)
    assert await told_by_both(proxy, "copier", made["password"]) == GOOD


async def test_a_login_goes_on_while_other_credentials_change(start_process: StartProcess) -> None:
    proxy = await start_process(document(admin={"token": TOKEN}), "--sandbox")
    operator = beside(proxy)
    made = await operator.adds("copier")
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain("copier", made["password"])).code == 235
        await operator.adds("fax")
        assert (await client.send(message())).code == 250


async def test_without_a_running_proxy_it_is_done_in_the_files(tmp_path: Path) -> None:
    free = {"admin": {"port": 1}}  # nothing listens there
    (tmp_path / "proxy.json").write_text(json.dumps(document(**free)))
    operator = Operator(tmp_path, {"COLUMNS": "200"})
    told = await operator.types("add", MAILBOX, "copier", "--network", "127.0.0.0/8")
    lines = told.splitlines()
    assert lines[0] == f"Added: copier may send as {MAILBOX}."
    assert lines[1] == "User name: copier"
    password = lines[2].removeprefix("Password:  ")
    assert len(password) == 20
    assert "No proxy answered" in told
    listed = json.loads(await operator.types("list", MAILBOX, "--json"))
    assert [one["source"] for one in listed["credentials"]] == ["account", "made"]
    assert password not in json.dumps(listed)
    assert "copier" in await operator.types("list", MAILBOX)
    proxied = ProxyProcess(tmp_path, document(**free), "--sandbox")
    async with proxied as proxy, await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain("copier", password)).code == 235
    assert "Revoked" in await operator.types("revoke", MAILBOX, "copier")
    proxied = ProxyProcess(tmp_path, document(**free), "--sandbox")
    async with proxied as proxy, await proxy.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain("copier", password)).code == 535


async def test_a_proxy_without_a_token_reads_what_its_own_user_has_made(
    start_process: StartProcess,
) -> None:
    account = {"email": "a@gmail.com", "provider": "gmail", "password": "x", "client_id": "c"}
    accounts = [*document()["accounts"], account | {"client_secret": "s"}]
    proxy = await start_process({"accounts": accounts}, "--sandbox")
    port = int(proxy.admin_url.rpartition(":")[2])
    written = {"accounts": accounts, "admin": {"port": port}}
    (proxy.directory / "proxy.json").write_text(json.dumps(written))
    operator = Operator(proxy.directory, {"COLUMNS": "200"})
    words = ("add", "a@gmail.com", "copier", "--no-password", "--network", "127.0.0.1")
    told = await operator.types(*words)
    assert "No proxy answered" not in told
    async with await proxy.connect() as client:
        await client.ehlo()
        assert (await client.command("MAIL FROM:<a@gmail.com>")).code == 250


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("add", MAILBOX, "a copier"), 2, "NAME: must be 1 to 64 letters"),
        (("add", MAILBOX, "copier", "--network", "x"), 2, "--network: must be a network like"),
        (("add", "scaner@example.com", "copier"), 2, f"did you mean {MAILBOX}?"),
        (("revoke", MAILBOX, "copier"), 2, "there is no credential copier"),
        (("list", "nobody@example.com"), 2, "there is no enabled account"),
    ],
)
async def test_what_cannot_be_done_is_told_in_a_line(
    tmp_path: Path, words: tuple[str, ...], code: int, told: str
) -> None:
    (tmp_path / "proxy.json").write_text(json.dumps(document(admin={"port": 1})))
    said = await Operator(tmp_path, {"COLUMNS": "200"}).types(*words, code=code)
    assert told in said
    assert len(said.splitlines()) == 1
