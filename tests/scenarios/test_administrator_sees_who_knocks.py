"""An administrator sees which devices knock and why they are turned away, and lets one in."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import chromium
from tests.support.admin_visits import Browser
from tests.support.by_worker import clients_of_both
from tests.support.command_line import said_here
from tests.support.relay import MAILBOX, PASSWORD, Relay
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import encoded, message
from tests.support.turned_away import turned_away
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from tests.scenarios.conftest import StartProcess

CLIENT_HELLO = bytes.fromhex("16030100c8010000c40303")  # its first octets


async def seen(relay: Relay) -> list[dict[str, Any]]:
    """Return the clients as `GET /clients` shows them."""
    status, body = await relay.get("/clients")
    assert status == 200
    found: list[dict[str, Any]] = json.loads(body)["clients"]
    return found


async def knock_without_a_login(relay: Relay, name: str = "KM-C258") -> int:
    """Connect as a copier that has no field for a login; return the code for its message."""
    async with await relay.connect() as client:
        assert (await client.command(f"EHLO {name}")).code == 250
        answer = await client.command(f"MAIL FROM:<{MAILBOX}>")
        if answer.code != 250:
            return answer.code
        await client.command("RCPT TO:<someone@example.com>")
        await client.command("DATA")
        answer = await client.command("Subject: scan\r\n\r\nA page.\r\n.")
        return answer.code


async def test_clients_are_shown_with_what_would_let_them_in(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    assert await knock_without_a_login(relay) == 530
    await until(lambda: bool(turned_away(caplog)))
    (one,) = await seen(relay)
    assert one["address"] == "127.0.0.1"
    assert (one["greeting"], one["tls"], one["sender"]) == ("KM-C258", None, MAILBOX)
    assert (one["outcome"], one["reason"]) == ("turned_away", "auth_required")
    assert (one["cause"], one["remedy"]) == (
        turned_away(caplog)[0]["cause"],
        turned_away(caplog)[0]["remedy"],
    )
    count = await relay.metric(
        "xoauth2_proxy_clients_turned_away_total", reason="auth_required", listener="default"
    )
    assert count == 1


async def test_typed_password_is_not_shown_anywhere(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    async with await relay.connect() as client:
        await client.ehlo()
        await client.auth_plain("hunter2-secret", "hunter2-other")
    await until(lambda: bool(turned_away(caplog)))
    _, page = await relay.get("/devices")
    assert "is unknown" in page
    assert "hunter2" not in page + json.dumps(await seen(relay)) + str(turned_away(caplog))


async def test_a_password_in_the_place_of_a_mechanism_is_not_shown(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    typed = encoded(f"\0{MAILBOX}\0hunter2")
    async with await relay.connect() as client:
        await client.ehlo()
        assert await client.command(f"AUTH {typed}") == replies.AUTH_MECHANISM_UNKNOWN
    await until(lambda: bool(turned_away(caplog)))
    _, page = await relay.get("/devices")
    shown = page + json.dumps(await seen(relay)) + str(turned_away(caplog))
    assert "with this method" in shown
    assert typed.lower() not in shown.lower()


async def test_message_that_was_sent_names_its_client_in_the_log_and_the_record(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with await relay.log_in(MAILBOX, PASSWORD) as client:
        await client.command(f"MAIL FROM:<{MAILBOX}>")
        await client.command("RCPT TO:<one@example.com>")
        await client.command("RCPT TO:<two@example.com>")
        await client.command("DATA")
        message = "message-id:\r\n <7@scanner>\r\nSubject: x\r\n\r\nA page.\r\n."
        assert (await client.command(message)).code == 250
    (line,) = (vars(one)["fields"] for one in caplog.records if one.message == "transaction")
    expected = {
        "client": "127.0.0.1",
        "listener": "default",
        "credential": MAILBOX,
        "message_id": "<7@scanner>",
        "recipients": 2,
        "recipient": "one@example.com",
    }
    assert expected.items() <= line.items()
    (one,) = await seen(relay)
    assert (one["outcome"], one["messages"], one["credential"]) == ("sent", 1, MAILBOX)
    assert turned_away(caplog) == []


async def test_refused_message_is_still_shown_when_its_client_has_left(relay: Relay) -> None:
    relay.sandbox.add_fault(reply_fault(Step.END, "550 5.7.1 Looks like spam"))
    async with await relay.log_in() as client:
        assert (await client.send(message("refused"))).code == 550
        await client.command("QUIT")
        assert await client.closed()
    (one,) = await seen(relay)
    assert (one["outcome"], one["reply"]) == ("refused", "550 5.7.1 Looks like spam")
    assert one["cause"] == "the provider refused its message: 550 5.7.1 Looks like spam"


async def test_each_kind_that_used_to_leave_no_line_leaves_one(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    said = {
        "mechanism_unknown": ["EHLO a", "AUTH NTLM"],
        "auth_required": ["EHLO a", f"MAIL FROM:<{MAILBOX}>"],
        "bad_commands": ["EHLO a", "XYZ"],
    }
    for commands in said.values():
        async with await relay.connect() as client:
            for command in commands:
                await client.command(command)
    async with await relay.connect() as client:
        client.write(CLIENT_HELLO)
        assert (await client.reply()).code == 421
    async with await relay.log_in() as client:
        for command in (f"MAIL FROM:<{MAILBOX}>", "RCPT TO:<one@example.com>", "DATA"):
            await client.command(command)
        client.write(b"Subject: half a mess")
    expected = [*said, "tls_on_plain_port", "content_broken_off"]
    await until(lambda: len(turned_away(caplog)) == len(expected))
    assert sorted(one["reason"] for one in turned_away(caplog)) == sorted(expected)
    assert all(one["client"] == "127.0.0.1" and one["cause"] for one in turned_away(caplog))


async def test_test_of_the_login_is_shown_and_is_no_fault(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    async with await relay.log_in() as client:
        assert (await client.command("QUIT")).code == 221
    (one,) = await seen(relay)
    assert one["cause"] == "connected and left without sending anything; it had logged in"
    assert (one["refusals"], turned_away(caplog)) == (0, [])
    _, page = await relay.get("/devices", Host=f"localhost:{relay.admin_url.rpartition(':')[2]}")
    assert "it had logged in" in page
    assert "Add its address" not in page


async def test_clients_of_all_workers_are_shown_by_the_command(start_process: StartProcess) -> None:
    proxy = await start_process(None, "--sandbox", "--workers", "2")
    async with clients_of_both(proxy) as clients:
        for client in clients:
            assert (await client.auth_plain(MAILBOX, "wrong")).code == 535
        count = len(clients)

    async def shown() -> list[dict[str, Any]]:
        _, body = await proxy.get("/clients")
        found: list[dict[str, Any]] = json.loads(body)["clients"]
        return found

    async def all_are_counted() -> bool:
        return [one["refusals"] for one in await shown()] == [count]

    await until(all_are_counted)
    result = await asyncio.to_thread(said_here, "clients", "--url", proxy.admin_url)
    assert result.code == 1
    assert "127.0.0.1: its password for the login test.account1@gmail.com is wrong" in result.stdout
    result = await asyncio.to_thread(said_here, "clients", "--json", "--url", proxy.admin_url)
    assert result.code == 1
    assert json.loads(result.stdout)["clients"] == await shown()
    assert await proxy.stop() == 0


async def test_added_mailbox_comes_with_all_that_a_mail_program_asks_for(
    relay: Relay,
) -> None:
    async with Browser(relay.admin_url) as browser:
        for provider, words in (("mock", "can be used"), ("sandbox", "nothing can be sent")):
            form = {"email": f"new@{provider}.example", "provider": provider}
            csrf = (await browser.get("/mailboxes/new")).csrf
            page = await browser.send("/mailboxes/new", form | {"csrf": csrf})
            assert page.status == 201, page.text
            assert f"{relay.host}, port {relay.port}, encryption: none" in page.text
            assert words in page.text


@pytest.mark.outside
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
async def test_person_adds_a_copier_without_a_password_in_three_clicks(
    relay: Relay, caplog: pytest.LogCaptureFixture, width: int, height: int
) -> None:
    assert await knock_without_a_login(relay) == 530
    await until(lambda: bool(turned_away(caplog)))
    async with chromium.page() as page:
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text))
        await page.set_viewport_size({"width": width, "height": height})
        await page.goto(relay.admin_url)
        await page.get_by_role("link", name="Devices").click()
        is_wide = "document.documentElement.scrollWidth > innerWidth"
        assert not await page.evaluate(is_wide), "the page is wider than the screen"
        await page.get_by_role("link", name="Add its address… 127.0.0.1").click()
        assert not await page.evaluate(is_wide)
        await page.get_by_role("button", name="Let it send without a login").click()
        await page.get_by_text(f"km-c258 can send as {MAILBOX}").wait_for()
        assert complaints == []
    assert await knock_without_a_login(relay) == 250
    (message,) = await relay.sandbox.received.wait_until(1)
    assert message.reverse_path == MAILBOX
    (one,) = await seen(relay)
    assert (one["outcome"], one["credential"]) == ("sent", "km-c258")
