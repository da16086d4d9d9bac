"""What the sandbox serves inside a proxy that runs it; without it, nothing of it is there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.support.command_line import said_here
from tests.support.documents import account
from tests.support.listening_ports import listening_ports
from tests.support.proxy_process import ProxyProcess
from tests.support.relay import MAILBOX, PASSWORD
from xoauth2_proxy.accounts.sandbox_addresses import last_known

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.one_loop

DOCUMENT = {"accounts": [account()]}
ROUTES = [
    ("GET", "/.well-known/openid-configuration"),
    ("GET", "/oauth/authorize"),
    ("POST", "/oauth/authorize"),
    ("GET", "/oauth/device"),
    ("POST", "/oauth/device_authorization"),
    ("POST", "/oauth/token"),
    ("POST", "/oauth/register"),
    ("POST", "/oauth/revoke"),
    ("GET", "/oauth/jwks"),
    ("GET", "/oauth/userinfo"),
    ("POST", "/test/tokens"),
    ("POST", "/test/tokens/batch"),
    ("POST", "/test/tokens/explain"),
    ("POST", "/test/tokens/revoke"),
    ("POST", "/test/faults"),
    ("DELETE", "/test/faults"),
    ("GET", "/messages"),
    ("GET", "/refusals"),
    ("GET", "/settings"),
]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_without_it_no_port_listens_and_no_path_answers(tmp_path: Path, workers: str) -> None:
    async with ProxyProcess(tmp_path, DOCUMENT, "--workers", workers) as proxy:
        admin_port = int(proxy.admin_url.rpartition(":")[2])
        assert listening_ports(proxy.process.pid) == {proxy.port, admin_port}
        async with aiohttp.ClientSession(proxy.admin_url) as http:
            for method, path in ROUTES:
                headers = {"X-Requested-By": "a test"}
                async with http.request(method, path, json={}, headers=headers) as response:
                    assert response.status == 404, path
        assert last_known(tmp_path) is None


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_with_it_tokens_are_minted_and_faults_occur(tmp_path: Path, workers: str) -> None:
    async with ProxyProcess(tmp_path, DOCUMENT, "--sandbox", "--workers", workers) as proxy:
        _, body = await proxy.get("/health")
        url = json.loads(body)["sandbox"]["http"]
        async with aiohttp.ClientSession(url) as http:
            async with http.post("/test/tokens", json={"mailbox": MAILBOX}) as response:
                assert response.status == 201
                token = (await response.json())["token"]
            async with http.post("/test/tokens/explain", json={"token": token}) as response:
                assert (await response.json())["is_valid"]
            fault = {"step": "mail", "action": "reply", "text": "451 4.3.0 Not now"}
            async with http.post("/test/faults", json=fault) as response:
                assert response.status == 201
        async with await proxy.connect() as client:
            await client.ehlo()
            assert (await client.auth_plain(MAILBOX, PASSWORD)).code == 235
            answer = await client.send(b"Subject: a\r\n\r\nb\r\n", "someone@example.com")
            assert "Not now" in str(answer)


async def test_its_settings_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.toml"
    file.write_text(
        'profile = "outlook"\n'
        "[overrides]\nmax_recipients = 7\n"
        "[token_endpoint]\nttl_seconds = 60.0\n"
    )
    async with ProxyProcess(
        tmp_path, DOCUMENT, "--sandbox", "--sandbox-settings", str(file)
    ) as proxy:
        _, body = await proxy.get("/health")
        async with (
            aiohttp.ClientSession(json.loads(body)["sandbox"]["http"]) as http,
            http.get("/settings") as response,
        ):
            shown = await response.json()
    assert shown["behaviour"]["dialect"] == "outlook"
    assert shown["behaviour"]["max_recipients"] == 7
    assert shown["token_endpoint"]["ttl_seconds"] == 60.0


async def test_it_takes_the_same_address_again(tmp_path: Path) -> None:
    urls = []
    for _ in range(2):
        async with ProxyProcess(tmp_path, DOCUMENT, "--sandbox") as proxy:
            _, body = await proxy.get("/health")
            urls.append(json.loads(body)["sandbox"]["http"])
            assert await proxy.stop() == 0
    assert urls[0] == urls[1]
    known = last_known(tmp_path)
    assert known is not None
    assert known.http_url == urls[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"profile": "nobody", "token_endpoint": {"ttl": 3}}',
            ("profile: ", "token_endpoint.ttl: "),
        ),
        ("{", ("sandbox.json: ",)),
        ("[]", ("holds no object",)),
        (None, ("cannot be read: No such file",)),
    ],
)
def test_wrong_settings_are_told_before_it_starts(
    tmp_path: Path, text: str | None, words: tuple[str, ...]
) -> None:
    file = tmp_path / "sandbox.json"
    if text is not None:
        file.write_text(text)
    said = said_here("--state-dir", str(tmp_path), "--sandbox", "--sandbox-settings", str(file))
    assert said.code == 2
    assert said.stderr.startswith("xoauth2-proxy: 1 problem:")
    assert "--sandbox-settings: " in said.stderr
    assert all(word in said.stderr for word in words), said.stderr


@pytest.mark.parametrize("option", ["--sandbox-settings", "--sandbox-port", "--sandbox-http-port"])
def test_its_options_need_it(tmp_path: Path, option: str) -> None:
    said = said_here("--state-dir", str(tmp_path), option, "2600")
    assert said.code == 2
    assert "need --sandbox" in said.stderr
