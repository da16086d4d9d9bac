"""Logging in: every mechanism, every way to fail, and no secret in the log."""

from __future__ import annotations

import base64
import json
import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.refreshers import ScriptedRefresher
from tests.support.relay import MAILBOX, OTHER_MAILBOX, PASSWORD
from tests.support.sandbox import reply_fault
from tests.support.smtp_client import encoded, message
from tests.support.turned_away import turned_away
from tests.support.waiting import until
from xoauth2_proxy import replies
from xoauth2_proxy.errors import GrantRevoked, TokenEndpointUnavailable
from xoauth2_proxy.log import LOGGER_NAME
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay
    from tests.support.smtp_client import Client
    from xoauth2_proxy.smtp.protocol import Reply

MECHANISMS = ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"]
EMPTY_CHALLENGE = b"334 \r\n"


def responses(mechanism: str, relay: Relay, secret: str = "") -> list[str]:
    """Return the client's lines for a login to MAILBOX; right ones unless `secret` is given."""
    token = secret or relay.sandbox.tokens.mint(MAILBOX)
    password = secret or PASSWORD
    match mechanism:
        case "PLAIN":
            return [encoded(f"\0{MAILBOX}\0{password}")]
        case "LOGIN":
            return [encoded(MAILBOX), encoded(password)]
        case "XOAUTH2":
            return [encoded(f"user={MAILBOX}\x01auth=Bearer {token}\x01\x01")]
        case _:
            return [encoded(f"n,a={MAILBOX},\x01host=x\x01auth=Bearer {token}\x01\x01")]


async def greeted(relay: Relay) -> Client:
    client = await relay.connect()
    await client.ehlo()
    return client


# Success.


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("is_inline", [True, False])
async def test_login_with_and_without_initial_response(
    relay: Relay, mechanism: str, is_inline: bool
) -> None:
    first, *more = responses(mechanism, relay)
    async with await greeted(relay) as client:
        if is_inline:
            answer = await client.command(f"AUTH {mechanism} {first}")
        else:
            assert (await client.command(f"AUTH {mechanism}")).code == 334
            answer = await client.command(first)
        for line in more:
            assert answer.code == 334
            answer = await client.command(line)
        assert answer == replies.AUTHENTICATED
        assert (await client.send(message())).is_positive
    assert (
        await relay.metric("xoauth2_proxy_auth_attempts_total", mechanism=mechanism, result="ok")
        == 1
    )
    assert next(iter(relay.sandbox.received)).mailbox == MAILBOX


@pytest.mark.parametrize("name", ["plain", "Plain", "pLAIN"])
async def test_mechanisms_have_no_letter_case(relay: Relay, name: str) -> None:
    async with await greeted(relay) as client:
        line = f"auth {name} {responses('PLAIN', relay)[0]}"
        assert await client.command(line) == replies.AUTHENTICATED


async def test_challenges_are_base64_behind_a_blank(relay: Relay) -> None:
    async with await greeted(relay) as client:
        for command, challenge in [
            ("AUTH PLAIN", ""),
            ("*", None),
            ("AUTH LOGIN", encoded("Username:")),
            (encoded(MAILBOX), encoded("Password:")),
        ]:
            answer = await client.command(command)
            if challenge is not None:
                assert (answer.code, answer.text) == (334, (challenge,))


# Failure.


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_a_star_cancels(relay: Relay, mechanism: str) -> None:
    async with await greeted(relay) as client:
        assert (await client.command(f"AUTH {mechanism}")).code == 334
        assert await client.command("*") == replies.AUTH_CANCELLED
        assert await client.command("NOOP") == replies.OK


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("line", ["!", "YQ", "YQ==YQ==", "=", "YWJj", "é", "/w=="])
async def test_malformed_responses(relay: Relay, mechanism: str, line: str) -> None:
    async with await greeted(relay) as client:
        assert await client.command(f"AUTH {mechanism} {line}") == replies.AUTH_MALFORMED
        assert (await client.command(f"AUTH {mechanism}")).code == 334
        assert await client.command(line) == replies.AUTH_MALFORMED
        assert await client.command("NOOP") == replies.OK


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("AUTH", replies.ARGUMENT_MALFORMED),
        ("AUTH CRAM-MD5", replies.AUTH_MECHANISM_UNKNOWN),
        ("AUTH EXTERNAL =", replies.AUTH_MECHANISM_UNKNOWN),
    ],
)
async def test_unknown_mechanisms(relay: Relay, line: str, answer: Reply) -> None:
    async with await greeted(relay) as client:
        assert await client.command(line) == answer


@pytest.mark.parametrize("is_inline", [True, False])
async def test_a_line_of_12288_octets_is_taken_and_a_longer_one_skipped(
    relay: Relay, is_inline: bool
) -> None:
    async def answer(blob: str) -> Reply:
        if is_inline:
            return await client.command(f"AUTH PLAIN {blob}")
        assert (await client.command("AUTH PLAIN")).code == 334
        return await client.command(blob)

    longest = encoded(f"\0{MAILBOX}\0".ljust(9216, "x"))
    assert len(longest) == 12_288
    async with await greeted(relay) as client:
        assert await answer(longest) == replies.CREDENTIALS_INVALID
        for length in (12_400, 100_000):
            assert await answer("A" * length) == replies.AUTH_LINE_TOO_LONG
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTHENTICATED


async def test_only_one_login_a_session(relay: Relay) -> None:
    async with await relay.log_in() as client:
        assert await client.auth_plain(MAILBOX, PASSWORD) == replies.ALREADY_AUTHENTICATED
        await client.envelope("to@example.net")
        answer = await client.auth_plain(MAILBOX, PASSWORD)
        assert (answer.code, answer.enhanced) == (503, "5.5.1")
        assert (await client.data(b"a\r\n")).is_positive


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("login", [MAILBOX, "nobody@example.com", ""])
async def test_a_wrong_password_and_an_unknown_login_are_told_alike(
    relay: Relay, mechanism: str, login: str
) -> None:
    async with await greeted(relay) as client:
        if mechanism == "PLAIN":
            answer = await client.auth_plain(login, "wrong")
        else:
            await client.command(f"AUTH LOGIN {encoded(login) or '='}")
            answer = await client.command(encoded("wrong"))
        assert answer == replies.CREDENTIALS_INVALID


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("acknowledgement", ["", "AQ==", "*", "x" * 20_000])
async def test_a_refused_token_is_explained_before_the_refusal(
    relay: Relay, mechanism: str, acknowledgement: str
) -> None:
    async with await greeted(relay) as client:
        (response,) = responses(mechanism, relay, "expired")
        challenge = await client.command(f"AUTH {mechanism} {response}")
        assert challenge.code == 334
        assert json.loads(base64.b64decode(challenge.text[0]))["status"]
        assert await client.command(acknowledgement) == replies.CREDENTIALS_INVALID
        assert await client.command("NOOP") == replies.OK


async def test_a_token_of_another_mailbox_is_refused(relay: Relay) -> None:
    token = relay.sandbox.tokens.mint(OTHER_MAILBOX)
    async with await greeted(relay) as client:
        await client.command(f"AUTH XOAUTH2 {responses('XOAUTH2', relay, token)[0]}")
        assert await client.command("") == replies.CREDENTIALS_INVALID


async def test_too_many_failures_end_the_session(relay: Relay) -> None:
    async with await greeted(relay) as client:
        for _ in range(4):
            assert await client.auth_plain(MAILBOX, "wrong") == replies.CREDENTIALS_INVALID
        assert await client.auth_plain(MAILBOX, "wrong") == replies.CREDENTIALS_INVALID
        assert await client.reply() == replies.TOO_MANY_AUTH_FAILURES
        assert await client.closed()


async def test_trouble_with_tokens_is_no_failure_of_the_clients(start_relay: StartRelay) -> None:
    refresher = ScriptedRefresher()
    relay = await start_relay(refreshers={"mock": refresher})
    async with await greeted(relay) as client:
        refresher.fails_with = TokenEndpointUnavailable("503")
        for _ in range(6):
            assert await client.auth_plain(MAILBOX, PASSWORD) == replies.AUTH_UNAVAILABLE
        refresher.fails_with = GrantRevoked("invalid_grant")
        assert await client.auth_plain(OTHER_MAILBOX, PASSWORD) == replies.SIGN_IN_AGAIN


async def test_a_token_that_only_the_provider_can_judge(start_relay: StartRelay) -> None:
    relay = await start_relay(refreshers={"mock": ScriptedRefresher()})
    async with await greeted(relay) as client:
        (refused,) = responses("XOAUTH2", relay, "expired")
        assert (await client.command(f"AUTH XOAUTH2 {refused}")).code == 334
        assert await client.command("") == replies.CREDENTIALS_INVALID
        (accepted,) = responses("XOAUTH2", relay)
        assert await client.command(f"AUTH XOAUTH2 {accepted}") == replies.AUTHENTICATED
        assert (await client.send(message())).is_positive
    assert relay.sandbox.counters.auth_accepted == 1


async def test_a_token_with_a_control_octet_is_malformed(start_relay: StartRelay) -> None:
    relay = await start_relay(refreshers={"mock": ScriptedRefresher()})
    async with await greeted(relay) as client:
        (response,) = responses("XOAUTH2", relay, "a\tb")
        answer = await client.command(f"AUTH XOAUTH2 {response}")
        assert answer != replies.INTERNAL_ERROR
        assert answer.code in {334, 501}


class _Broken(ScriptedRefresher):
    """A plug-in with a mistake in it."""

    def check(self, mailbox: str, access_token: str) -> None:
        raise RuntimeError("a mistake")


async def test_a_mistake_in_the_program_ends_the_session_with_a_reply(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start_relay(refreshers={"mock": _Broken()})
    async with await greeted(relay) as client:
        (response,) = responses("XOAUTH2", relay)
        assert await client.command(f"AUTH XOAUTH2 {response}") == replies.INTERNAL_ERROR
        assert await client.closed()
    (record,) = (one for one in caplog.records if one.exc_info)
    assert "ended by an internal error" in record.getMessage()


async def test_no_secret_and_no_mistyped_login_reaches_the_log(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with await greeted(relay) as client:
        await client.auth_plain(MAILBOX, "hunter2-password")
        await client.auth_plain("hunter2-as-login", "x")
        await client.command(f"AUTH XOAUTH2 {responses('XOAUTH2', relay, 'hunter2-token')[0]}")
        await client.command("")
        await client.command(f"AUTH PLAIN {encoded('hunter2')}")
    shown = [
        f"{one.getMessage()} {getattr(one, 'fields', '')}"
        for one in caplog.records
        if one.name.startswith((LOGGER_NAME, "mail"))
    ]
    assert len(shown) >= 3
    assert "hunter2" not in "".join(shown)
    assert encoded("hunter2")[:9] not in "".join(shown)


@pytest.mark.parametrize(
    ("login", "named"),
    [(MAILBOX.upper(), MAILBOX), ("hunter2", ""), ("nobody@example.com", "")],
)
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER"])
async def test_a_failure_names_the_account_and_no_login_that_is_none(
    relay: Relay, caplog: pytest.LogCaptureFixture, mechanism: str, login: str, named: str
) -> None:
    lines = {
        "PLAIN": [encoded(f"\0{login}\0wrong")],
        "LOGIN": [encoded(login), encoded("wrong")],
        "XOAUTH2": [encoded(f"user={login}\x01auth=Bearer wrong\x01\x01"), ""],
        "OAUTHBEARER": [encoded(f"n,a={login},\x01auth=Bearer wrong\x01\x01"), "AQ=="],
    }[mechanism]
    async with await greeted(relay) as client:
        answer = await client.command(f"AUTH {mechanism}")
        for line in lines:
            answer = await client.command(line)
    assert answer == replies.CREDENTIALS_INVALID
    await until(lambda: bool(turned_away(caplog)))
    (record,) = turned_away(caplog)
    assert record.get("account", "") == named
    assert named or login not in str(record)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
@pytest.mark.parametrize("error", [TokenEndpointUnavailable("x"), None], ids=["token", "upstream"])
async def test_passing_trouble_is_told_without_a_challenge(
    start_relay: StartRelay, mechanism: str, error: TokenEndpointUnavailable | None
) -> None:
    refresher = ScriptedRefresher()
    relay = await start_relay(refreshers={"mock": refresher})
    refresher.fails_with = error
    relay.sandbox.add_fault(reply_fault(Step.AUTH, "454 4.7.0 Later"))
    (response,) = responses(mechanism, relay)
    async with await greeted(relay) as client:
        client.write(f"AUTH {mechanism} {response}\r\nNOOP\r\n".encode())
        assert await client.reply() == replies.AUTH_UNAVAILABLE
        assert await client.reply() == replies.OK


@pytest.mark.parametrize(
    "line", ["AUTH NONSENSE", "AUTH", "AUTH PLAIN !", "AUTH PLAIN " + "x" * 20_000]
)
async def test_nonsense_instead_of_a_login_is_not_listened_to_for_ever(
    relay: Relay, line: str
) -> None:
    async with await greeted(relay) as client:
        answer = await client.command(line)
        for _ in range(20):
            if answer.code == 421:
                break
            client.write(line.encode() + b"\r\n")
            answer = await client.reply()
        assert answer in {replies.TOO_MANY_BAD_COMMANDS, replies.TOO_MANY_AUTH_FAILURES}
        assert await client.closed()
