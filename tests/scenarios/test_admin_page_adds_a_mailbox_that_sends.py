"""A mailbox that was added while the relay runs sends mail at once, until it is removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.relay import MAILBOX
from tests.support.smtp_client import message

if TYPE_CHECKING:
    from tests.support.relay import Relay

ADDED = "added@example.com"


async def ask(relay: Relay, method: str, path: str, document: object = None) -> dict[str, Any]:
    async with aiohttp.ClientSession(relay.admin_url, headers={"X-Requested-By": "test"}) as http:
        options = {} if document is None else {"json": document}
        async with http.request(method, path, **options) as response:  # type: ignore[arg-type]
            text = await response.text()
            assert response.status < 300, text
            body: dict[str, Any] = json.loads(text)
            return body


async def test_from_adding_to_removing(relay: Relay) -> None:
    body = await ask(relay, "POST", "/accounts", {"email": ADDED, "provider": "mock"})
    password = body["account"]["password"]
    async with await relay.log_in(ADDED, password) as client:
        assert (await client.send(message())).is_positive
        assert relay.sandbox.received.after(0, 10)[-1].mailbox == ADDED
    body = await ask(relay, "GET", "/accounts")
    assert {one["email"]: one["source"] for one in body["accounts"]}[ADDED] == "added"
    await ask(relay, "DELETE", f"/accounts/{ADDED}")
    async with await relay.connect() as client:
        await client.ehlo()
        assert (await client.auth_plain(ADDED, password)).code == 535
    async with await relay.log_in(MAILBOX) as client:
        assert (await client.send(message())).is_positive
