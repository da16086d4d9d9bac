"""A refusal's log line tells cause and remedy: once an hour for a mailbox, and in no line more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, OTHER_MAILBOX
from tests.support.smtp_client import message
from xoauth2_proxy.sandbox.faults import Action, Fault, Step

if TYPE_CHECKING:
    from tests.conftest import StartRelay
    from tests.support.relay import Relay

TENANT = (
    "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. "
    "Visit https://aka.ms/smtp_auth_disabled for more information."
)
SEND_AS = "554 5.2.252 SendAsDenied; STOREDRV.Submission.Exception:SendAsDeniedException"


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "xoauth2_proxy")
    return caplog


def transactions(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [
        vars(record)["fields"] for record in caplog.records if record.getMessage() == "transaction"
    ]


async def sent(relay: Relay, login: str = MAILBOX) -> int:
    async with await relay.log_in(login) as client:
        return (await client.send(message())).code


async def test_a_refused_login_upstream_is_explained(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.sandbox.add_fault(Fault(Step.AUTH, Action.REPLY, nth=None, text=TENANT))
    assert await sent(relay) == 550
    (line,) = transactions(caplog)
    assert line["cause"] == "SMTP AUTH is switched off for the whole organisation."
    assert f"Set-CASMailbox {MAILBOX} -SmtpClientAuthenticationDisabled $false" in str(
        line["remedy"]
    )


@pytest.mark.parametrize("step", [Step.MAIL, Step.RCPT, Step.END])
async def test_a_refused_message_is_explained(
    relay: Relay, caplog: pytest.LogCaptureFixture, step: Step
) -> None:
    relay.sandbox.add_fault(Fault(step, Action.REPLY, text=SEND_AS))
    assert await sent(relay) == 554
    (line,) = transactions(caplog)
    assert "may not send as" in str(line["cause"])
    assert f"-Trustee {MAILBOX}" in str(line["remedy"])


async def test_words_that_the_client_never_hears_are_explained(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    # The client is told 451: the code is about connections that are not its own.
    text = "432 4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent"
    relay.sandbox.add_fault(Fault(Step.END, Action.REPLY, text=text))
    assert await sent(relay) == 451
    (line,) = transactions(caplog)
    assert "More than three connections" in str(line["cause"])


async def test_a_large_message_s_refusal_is_explained(
    start_relay: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await start_relay(
        {
            "accounts": [{"email": MAILBOX, "provider": "mock", "password": "secret"}],
            "relay": {"buffer_bytes": 4096},
        }
    )
    relay.sandbox.add_fault(Fault(Step.END, Action.REPLY, text=SEND_AS))
    async with await relay.log_in() as client:
        assert (await client.send(message(size_bytes=50_000))).code == 554
    (line,) = transactions(caplog)
    assert "may not send as" in str(line["cause"])


async def test_the_same_is_told_once_an_hour_for_each_mailbox(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.REPLY, nth=None, text=SEND_AS))
    for login in (MAILBOX, MAILBOX, OTHER_MAILBOX, MAILBOX):
        assert await sent(relay, login) == 554
    lines = transactions(caplog)
    assert ["cause" in line for line in lines] == [True, False, True, False]


async def test_what_went_well_or_is_unknown_is_not_explained(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    relay.sandbox.add_fault(Fault(Step.END, Action.REPLY, text="550 5.1.1 No such user here"))
    assert await sent(relay) == 550
    assert await sent(relay) == 250
    assert not any("cause" in line or "remedy" in line for line in transactions(caplog))
