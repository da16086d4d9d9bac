"""Mail servers with the relay as their smart host: what arrives, is tried again or is returned."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Protocol

import pytest

from tests.support import scan
from tests.support.desk import NO_SUCH_USER, WRONG_PASSWORD
from tests.support.own_root import OwnRoot
from tests.support.recipes import Recipe
from tests.support.sandbox import reply_fault
from tests.support.smart_host_users import MAIL_SERVERS, MailServer, Running
from tests.support.waiting import until
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.clients.conftest import SetUpDesk
    from tests.support.desk import Desk, Security

pytestmark = pytest.mark.outside

REFUSED = "nobody@example.net"


class Run(Protocol):
    async def __call__(self, server: MailServer, desk: Desk, password: str = ...) -> Running: ...


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Run mail servers by their recipes; each ends with the test."""
    async with AsyncExitStack() as stack:

        async def run(server: MailServer, desk: Desk, password: str = "PASSWORD") -> Running:
            recipe = desk.placed(Recipe.of(server.name), password, name="relay.example")
            root = await stack.enter_async_context(OwnRoot(server.packages, server.users))
            for path in {**server.given, **recipe.files}:
                text = server.given.get(path, "") + recipe.files.get(path, "")
                root.write(path, text, mode=0o644)
            root.write("/etc/ssl/certs/ca.pem", (desk.home / "ca.pem").read_bytes())
            root.write("/root/message.txt", (desk.home / "message.txt").read_bytes())
            said = await root.type(f"{recipe.commands}\n{server.start}")
            assert said.exit_code == 0, said.text
            return Running(server, root)

        yield run


every_server = pytest.mark.parametrize("server", MAIL_SERVERS, ids=lambda server: server.name)


@pytest.mark.parametrize(
    ("server", "security"),
    [(server, security) for server in MAIL_SERVERS for security in server.securities],
    ids=lambda value: getattr(value, "name", value),
)
async def test_the_message_arrives_whole(
    set_up: SetUpDesk, run: Run, server: MailServer, security: Security
) -> None:
    desk = await set_up(security)
    running = await run(server, desk)
    await running.submit(scan.RECIPIENT)
    await arrived(desk, running)
    scan.assert_composed(desk.received().content or b"")


@every_server
async def test_what_is_refused_for_now_is_tried_again(
    set_up: SetUpDesk, run: Run, server: MailServer
) -> None:
    desk = await set_up("STARTTLS", recipients="verified")
    desk.relay.sandbox.add_fault(reply_fault(Step.RCPT, "451 4.2.1 Mailbox busy"))
    running = await run(server, desk)
    await running.submit(scan.RECIPIENT)
    await running.flush()
    await desk.relay.sandbox.arrived(Step.RCPT)
    await arrived(desk, running)
    scan.assert_composed(desk.received().content or b"")
    await until(lambda: is_empty(running))
    assert desk.relay.sandbox.received.total == 1  # neither a second one nor a bounce


@every_server
async def test_a_recipient_refused_for_good_is_returned_and_no_other(
    set_up: SetUpDesk, run: Run, server: MailServer
) -> None:
    desk = await set_up("STARTTLS", recipients="verified")
    refusal = reply_fault(Step.RCPT, f"550 {NO_SUCH_USER}", nth=None, matching=REFUSED)
    desk.relay.sandbox.add_fault(refusal)
    running = await run(server, desk)
    await running.submit(scan.RECIPIENT, REFUSED)
    await arrived(desk, running, 2 if server.parts_recipients else 1)
    originals = [one for one in desk.relay.sandbox.received if one.reverse_path]
    (bounce,) = [one for one in desk.relay.sandbox.received if not one.reverse_path]
    expected = [(scan.RECIPIENT,)] if server.parts_recipients else []
    assert [one.forward_paths for one in originals] == expected
    assert bounce.forward_paths == (scan.SENDER,)
    returned = (bounce.content or b"").decode()
    assert NO_SUCH_USER in returned
    failed = re.findall(
        r"^Final-Recipient: *rfc822; *(\S+)", returned, re.MULTILINE | re.IGNORECASE
    )
    if server.parts_recipients:
        assert failed in ([], [REFUSED])  # not every server writes an RFC 3464 report
    await until(lambda: is_empty(running))
    assert desk.relay.sandbox.received.total == len(originals) + 1


@every_server
async def test_with_a_wrong_password_the_log_says_so(
    set_up: SetUpDesk, run: Run, server: MailServer
) -> None:
    desk = await set_up("STARTTLS", recipients="verified")
    running = await run(server, desk, "mistyped")
    await running.submit(scan.RECIPIENT)
    await running.flush()
    shown = Recipe.of(server.name).shown("Wrong password", WRONG_PASSWORD)

    async def is_said() -> bool:
        return shown in await running.log() + await running.queue()

    try:
        await until(is_said)
    except TimeoutError:
        raise AssertionError(await running.log() + await running.queue()) from None
    assert desk.relay.sandbox.received.total == 0
    if server.keeps_mail:
        assert scan.RECIPIENT in await running.queue()
    else:
        await until(lambda: is_given_up(running))


@every_server
async def test_what_was_queued_while_the_provider_was_out_arrives_once_each(
    set_up: SetUpDesk, run: Run, server: MailServer, queued_messages: int
) -> None:
    limits = {"max_connections": 3}
    desk = await set_up("STARTTLS", recipients="verified", limits=limits)
    sandbox = desk.relay.sandbox
    sandbox.add_fault(reply_fault(Step.MAIL, "451 4.3.2 System not accepting messages", nth=None))
    running = await run(server, desk)
    await running.submit_small(queued_messages)
    await running.flush()
    await sandbox.arrived(Step.MAIL)
    sandbox.clear_faults()
    await arrived(desk, running, queued_messages)
    await until(lambda: is_empty(running))
    subjects = Counter(
        line
        for kept in sandbox.received
        for line in re.findall(rb"Subject: .*", kept.content or b"")
    )
    assert subjects == {b"Subject: number %d\r" % n: 1 for n in range(1, queued_messages + 1)}


@pytest.mark.parametrize(
    "server", [one for one in MAIL_SERVERS if one.verifies], ids=lambda server: server.name
)
async def test_no_password_goes_to_a_server_of_another_authority(
    set_up: SetUpDesk, run: Run, server: MailServer
) -> None:
    desk = await set_up("STARTTLS")
    desk.trust_another_authority()
    running = await run(server, desk)
    await running.submit(scan.RECIPIENT)
    await running.flush()

    async def is_said() -> bool:
        said = (await running.log() + await running.queue()).lower()
        return "certificate" in said or "verify" in said

    await until(is_said)
    assert await desk.relay.metric("xoauth2_proxy_auth_attempts_total") == 0
    assert desk.relay.sandbox.received.total == 0
    assert scan.RECIPIENT in await running.queue()


async def arrived(desk: Desk, running: Running, count: int = 1) -> None:
    """Wait until the provider has so many messages, of which some are tried again meanwhile."""

    async def have() -> bool:
        with suppress(TimeoutError):
            await desk.relay.sandbox.received.wait_until(count, timeout_seconds=0.5)
            return True
        await running.flush()
        return False

    try:
        await until(have)
    except TimeoutError:
        raise AssertionError(await running.log() + await running.queue()) from None


async def is_empty(running: Running) -> bool:
    """Tell whether nothing waits in the queue."""
    return scan.SENDER not in await running.queue()


async def is_given_up(running: Running) -> bool:
    """Tell whether the message is no longer queued for its recipient."""
    return scan.RECIPIENT not in await running.queue()
