from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp
from tests.support.sandbox import Sandbox
from xoauth2_proxy.admin.health import Health
from xoauth2_proxy.sandbox.settings_document import OVERRIDES, read_settings
from xoauth2_proxy.sandbox.web.server import HttpServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.relay import Relay

CONTENT = b"Message-ID: <1@x>\r\n\r\n\xc3\xa4\r\n"


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Sandbox]:
    async with Sandbox(tmp_path) as sandbox:
        yield sandbox


async def deliver(sandbox: Sandbox, count: int = 1) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        for _ in range(count):
            assert (await client.deliver(CONTENT)).startswith("250 ")


async def test_health_has_the_form_of_the_proxys(http: aiohttp.ClientSession) -> None:
    async with http.get("/health") as response:
        assert response.status == 200
        found = await response.json()
    assert found.keys() == Health().report().keys() - {"accounts"}  # any mailbox is accepted
    assert (found["status"], found["service"]) == ("healthy", "xoauth2-sandbox")
    assert 0 <= found["uptime_seconds"] < 600


async def test_messages_are_listed(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox)
    async with http.get("/messages") as response:
        found = await response.json()
    (message,) = sandbox.received
    received_at = datetime.fromisoformat(found["messages"][0].pop("received_at"))
    assert datetime.now(UTC) - received_at < timedelta(minutes=1)
    assert found == {
        "total": 1,
        "evicted": 0,
        "messages": [
            {
                "seq": 1,
                "id": message.id,
                "mailbox": MAILBOX,
                "reverse_path": MAILBOX,
                "forward_paths": ["someone@example.com"],
                "size_bytes": len(CONTENT),
                "sha256": message.sha256,
                "message_id": "<1@x>",
                "via": "DATA",
            }
        ],
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 2, 3]),
        ("?after=1", [2, 3]),
        ("?after=1&limit=1", [2]),
        ("?limit=0", []),
        ("?limit=999999", [1, 2, 3]),
        ("?after=3", []),
    ],
)
async def test_the_list_comes_in_pages(
    sandbox: Sandbox, http: aiohttp.ClientSession, query: str, expected: list[int]
) -> None:
    await deliver(sandbox, 3)
    async with http.get(f"/messages{query}") as response:
        found = await response.json()
    assert [message["seq"] for message in found["messages"]] == expected
    assert found["total"] == 3


@pytest.mark.parametrize("query", ["?after=x", "?limit=-1", "?after=" + "9" * 19])
async def test_a_bad_page_is_refused(http: aiohttp.ClientSession, query: str) -> None:
    async with http.get(f"/messages{query}") as response:
        assert response.status == 400
        assert "must be a number" in (await response.json())["error"]


async def test_content_comes_octet_for_octet(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox)
    async with http.get("/messages/1/content") as response:
        assert response.content_type == "message/rfc822"
        assert await response.read() == CONTENT


async def test_content_that_is_not_there_is_not_found(
    sandbox: Sandbox, http: aiohttp.ClientSession
) -> None:
    await deliver(sandbox)
    next(iter(sandbox.received)).content = None
    for seq in (1, 2):
        async with http.get(f"/messages/{seq}/content") as response:
            assert response.status == 404
            assert "error" in await response.json()


async def test_messages_can_be_deleted(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox, 2)
    async with http.delete("/messages") as response:
        assert (response.status, await response.json()) == (200, {"deleted": 2})
    async with http.get("/messages") as response:
        assert await response.json() == {"total": 2, "evicted": 0, "messages": []}


async def test_messages_are_searched(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox, 3)
    async with http.get("/messages", params={"q": "SOMEONE@", "after": 1, "limit": 1}) as response:
        found = await response.json()
    assert ([message["seq"] for message in found["messages"]], found["next_after"]) == ([2], 2)
    async with http.get("/messages", params={"q": "nobody here", "after": 1}) as response:
        found = await response.json()
    assert (found["messages"], found["next_after"]) == ([], 3)


async def test_deleting_takes_no_query(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox, 2)
    async with http.delete("/messages", params={"q": "someone"}) as response:
        assert response.status == 400
        assert "takes no query" in (await response.json())["error"]
    assert len(sandbox.received) == 2


async def test_a_web_page_cannot_delete(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    await deliver(sandbox)
    async with http.delete("/messages", headers={"Origin": sandbox.http_url}) as response:
        assert response.status == 403
    assert len(sandbox.received) == 1


@pytest.mark.parametrize(
    "host", ["example.com", "127.0.0.1.example.com", "192.0.2.1:80", "localhost.example", "[::2]"]
)
async def test_a_host_name_that_is_not_loopback_is_refused(
    http: aiohttp.ClientSession, host: str
) -> None:
    async with http.get("/stats", headers={"Host": host}) as response:
        assert response.status == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8025", "127.0.0.1", "[::1]:8025"])
async def test_a_loopback_host_name_is_accepted(http: aiohttp.ClientSession, host: str) -> None:
    async with http.get("/stats", headers={"Host": host}) as response:
        assert response.status == 200


async def test_counters_are_shown(sandbox: Sandbox, http: aiohttp.ClientSession) -> None:
    async with RawSmtp(sandbox) as client:
        await client.log_in()
        await client.deliver(CONTENT)
        await client.deliver(b"bare\nline\r\n")
        async with http.get("/stats") as response:
            found = await response.json()
    assert found == {
        "connections_opened": 1,
        "connections_open": 1,
        "auth_accepted": 1,
        "auth_refused": 0,
        "transactions_accepted": 1,
        "transactions_refused": 1,
        "turns": 14,
        "open_by_mailbox": {MAILBOX: 1},
        "peak_by_mailbox": {MAILBOX: 1},
        "peak_connections_per_mailbox": 1,
        "connections_peak": 1,
        "token_requests": 0,
        "refused_by_limit": {},
        "delayed_by_limit": 0,
        "faults_met": {},
        "replies_by_code": {"220": 2, "235": 1, "250": 7, "334": 1, "354": 2, "550": 1},
        "messages_total": 1,
        "messages_evicted": 0,
        "messages_held": 1,
        "refusals_total": 1,
        "grants_begun": 0,
        "grants_ended": 0,
    }


# Settings.


async def settings_of(url: str) -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/settings") as response:
        assert (response.status, response.content_type) == (200, "application/json")
        found: dict[str, Any] = await response.json()
        return found


async def test_settings_are_shown_as_files_hold_them(tmp_path: Path) -> None:
    document = {
        "profile": "outlook",
        "overrides": {"withhold": ["DSN", "CHUNKING"], "greeting": "hello"},
        "faults": [
            {"step": "token", "action": "429", "retry_after_seconds": 7},
            {"step": "end", "action": "drop", "rate": 0.25, "mailbox": "a@b"},
            {"step": "mail", "action": "reply", "nth": None, "text": "451 4.3.0 no"},
            {"step": "auth", "action": "wrong_mailbox"},
        ],
        "token_endpoint": {"ttl_seconds": 5.0, "rotation": "once", "clients": {"me": "hush"}},
        "seed": 4,
    }
    settings = read_settings(document)
    async with Sandbox(tmp_path, settings, tls="none", withhold=frozenset({"SIZE"})) as sandbox:
        shown = await settings_of(sandbox.http_url)
        assert "me" not in json.dumps(shown).split('"'), "a client's id"
        assert "hush" not in json.dumps(shown), "a client's secret"
        assert shown == {
            "behaviour": shown["behaviour"],
            "faults": [*document["faults"][1:], document["faults"][0]],  # type: ignore[index]
            "token_endpoint": shown["token_endpoint"],
            "seed": 4,
        }
        assert shown["token_endpoint"]["ttl_seconds"] == 5.0
        assert shown["token_endpoint"]["rotation"] == "once"
        behaviour = shown["behaviour"]
        assert tuple(behaviour) == OVERRIDES
        assert behaviour["withhold"] == ["CHUNKING", "DSN", "SIZE"]
        assert (behaviour["dialect"], behaviour["tls"]) == ("outlook", "none")
        assert (behaviour["connections_refused_at"], behaviour["greeting"]) == ("end", "hello")
        again = read_settings({"overrides": behaviour, "faults": shown["faults"]})
        assert again.behaviour == sandbox.behaviour
        assert set(again.faults) == set(settings.faults)


async def test_faults_of_later_are_shown_too(tmp_path: Path) -> None:
    async with Sandbox(tmp_path) as sandbox:
        assert (await settings_of(sandbox.http_url))["faults"] == []
        added = [
            {"step": "rcpt", "action": "delay", "seconds": 1.5, "matching": "^<c@d>"},
            {"step": "mail", "action": "drop", "nth": 2},
            {"step": "token", "action": "hang"},
        ]
        async with aiohttp.ClientSession(sandbox.http_url) as session:
            for fault in added:
                async with session.post("/test/faults", json=fault) as response:
                    assert response.status == 201
            assert (await settings_of(sandbox.http_url))["faults"] == added
            await session.delete("/test/faults")
        assert (await settings_of(sandbox.http_url))["faults"] == []


async def test_the_sandbox_of_the_proxy_shows_its_settings_too(relay: Relay) -> None:
    shown = await settings_of(relay.sandbox.http_url)
    assert shown["behaviour"]["dialect"] == "unlimited"
    assert shown["token_endpoint"]["ttl_seconds"] == 3600.0
    assert shown["token_endpoint"]["rotation"] == "none"


async def test_it_listens_on_loopback_only() -> None:
    with pytest.raises(ValueError, match="loopback only"):
        await HttpServer([]).start("0.0.0.0", 0)


async def test_a_port_in_use_leaves_nothing_running(sandbox: Sandbox, tmp_path: Path) -> None:
    other = Sandbox(tmp_path, http_port=sandbox.http_port)
    with pytest.raises(OSError, match="in use"):
        await other.start()
    with pytest.raises(ConnectionRefusedError):
        await RawSmtp(other).connect()


async def test_it_can_be_left_out(tmp_path: Path) -> None:
    async with Sandbox(tmp_path, http_port=None) as sandbox:
        assert sandbox.http_url == ""
