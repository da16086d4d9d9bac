"""Each profile offers and says what its provider does."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support.raw_smtp import MAILBOX, RawSmtp, xoauth2
from tests.support.sandbox import Sandbox, reply_fault
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile
from xoauth2_proxy.sandbox.dialects import DIALECTS, encode_reply
from xoauth2_proxy.sandbox.faults import Fault, FaultScript, Step
from xoauth2_proxy.sandbox.message_store import MessageStore
from xoauth2_proxy.sandbox.profiles import PROFILES
from xoauth2_proxy.sandbox.provider_state import ProviderState
from xoauth2_proxy.sandbox.settings_document import describe, read_settings
from xoauth2_proxy.sandbox.smtp.session import Session
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from pathlib import Path

GMAIL, OUTLOOK = PROFILES[ProviderProfile.GMAIL], PROFILES[ProviderProfile.OUTLOOK]
REAL = pytest.mark.parametrize("behaviour", [GMAIL, OUTLOOK], ids=["gmail", "outlook"])


class Peer:
    """A session without a network."""

    def __init__(self, behaviour: Behaviour, *, is_encrypted: bool = True) -> None:
        self.tokens = MockTokens(b"k" * 32)
        self.faults: FaultScript[Fault] = FaultScript()
        self.provider = ProviderState(behaviour, self.tokens, MessageStore(), self.faults)
        self.session = Session(self.provider, is_encrypted=is_encrypted)
        self.session.greet()
        self.greeting = self.session.take_replies().decode()
        self.ehlo = self.say("EHLO client.example").splitlines()

    def say(self, line: str) -> str:
        self.session.receive(line.encode() + b"\r\n")
        if self.session.is_held:
            self.session.release()
        return self.session.take_replies().decode()

    def words(self) -> list[str]:
        return [line[4:] for line in self.ehlo[1:]]

    def blob(self, token: str = "") -> str:
        return xoauth2(MAILBOX, token or self.tokens.mint(MAILBOX)).decode()

    def log_in(self) -> Peer:
        self.say("AUTH XOAUTH2")
        assert self.say(self.blob()).startswith("235 2.7.0 ")
        return self


def test_gmail_offers_its_extensions_in_its_order() -> None:
    assert Peer(GMAIL).words() == [
        "SIZE 35882577",
        "8BITMIME",
        "AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "CHUNKING",
        "SMTPUTF8",
    ]
    assert Peer(GMAIL, is_encrypted=False).words()[2] == "STARTTLS"


def test_outlook_offers_its_extensions_in_its_order() -> None:
    shared = ["8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
    before = ["SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES"]
    assert Peer(OUTLOOK, is_encrypted=False).words() == [*before, "STARTTLS", *shared]
    assert Peer(OUTLOOK).words() == [*before, "AUTH LOGIN XOAUTH2", *shared]


def test_the_greeting_is_worded_like_the_providers_and_can_be_chosen() -> None:
    assert re.fullmatch(r"220 sandbox\.invalid ESMTP \w+ - gsmtp\r\n", Peer(GMAIL).greeting)
    assert "Microsoft ESMTP MAIL Service ready at " in Peer(OUTLOOK).greeting
    assert Peer(Behaviour(greeting="hello")).greeting == "220 hello\r\n"


def test_gmail_tells_why_before_it_refuses_a_token() -> None:
    peer = Peer(GMAIL)
    peer.say("AUTH XOAUTH2")
    answer = peer.say(peer.blob("ya29.invented"))
    assert answer.startswith("334 ")
    assert json.loads(base64.b64decode(answer[4:])) == {
        "status": "401",
        "schemes": "bearer mac",
        "scope": "https://mail.google.com/",
    }
    lines = peer.say("").splitlines()
    assert lines[0].startswith("535-5.7.8 Username and Password not accepted.")
    assert re.fullmatch(r"535 5\.7\.8  https://\S+BadCredentials \w+ - gsmtp", lines[1])


def test_outlook_refuses_a_token_at_once() -> None:
    peer = Peer(OUTLOOK)
    assert peer.say("AUTH XOAUTH2") == "334 \r\n"
    assert re.fullmatch(
        r"535 5\.7\.3 Authentication unsuccessful "
        r"\[sandbox\.invalid \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [0-9A-F]{16}\]\r\n",
        peer.say(peer.blob("EwAinvented")),
    )
    assert peer.provider.counters.auth_refused == 1


def test_outlook_knows_no_oauthbearer() -> None:
    assert Peer(OUTLOOK).say("AUTH OAUTHBEARER").startswith("504 ")


def test_outlook_refuses_other_mechanisms_in_its_words() -> None:
    said = "504 5.7.4 Unrecognized authentication type [sandbox.invalid]\r\n"
    assert Peer(OUTLOOK).say("AUTH PLAIN AGEAYg==") == Peer(OUTLOOK).say("AUTH X") == said


def test_outlook_says_in_its_words_that_nobody_has_logged_in() -> None:
    assert re.fullmatch(
        r"530 5\.7\.57 Client not authenticated to send mail\. "
        r"\[sandbox\.invalid \d{4}-\d\d-\d\dT\S+Z [0-9A-F]{16}\]\r\n",
        Peer(OUTLOOK).say("MAIL FROM:<a@b>"),
    )
    assert Peer(GMAIL).say("MAIL FROM:<a@b>").startswith("530 5.7.0 Authentication Required ")


GSMTP = re.compile(r"( |.* )[0-9A-F]{16} - gsmtp\r\n")


@pytest.mark.parametrize(
    "lines",
    [
        ["NONSENSE"],
        ["EHLO"],
        ["MAIL FROM:<a@b>"],
        ["AUTH CRAM-MD5"],
        ["AUTH XOAUTH"],
        ["AUTH XOAUTH2 !!!"],
        ["AUTH LOGIN x", "*"],
        ["AUTH PLAIN AGEAYg=="],
        ["NOOP\r\nEHLO x\r\nNOOP"],
        ["x" * 30_000],
        ["log in", "RCPT TO:<a@b>"],
        ["log in", "MAIL FROM:a"],
        ["log in", "MAIL FROM:<a@b> SIZE=99999999"],
        ["log in", "DATA"],
        ["log in", "BDAT x"],
    ],
)
def test_every_refusal_of_gmail_ends_like_gmails(lines: list[str]) -> None:
    peer = Peer(GMAIL)
    if lines[0] == "log in":
        peer.log_in()
        del lines[0]
    answer = [peer.say(line) for line in lines][-1]
    last = answer.splitlines(keepends=True)[-1]
    assert last[0] in "45"
    assert GSMTP.fullmatch(last), answer
    assert answer.count("gsmtp") == 1


def test_what_gmail_grants_has_no_such_end_nor_have_others() -> None:
    assert "gsmtp" not in Peer(GMAIL).log_in().say("MAIL FROM:<a@b>")
    for behaviour in (OUTLOOK, Behaviour()):
        assert "gsmtp" not in Peer(behaviour).say("NONSENSE")


@pytest.mark.simulated_time
async def test_the_idle_and_those_beyond_all_connections_hear_gmails_end(tmp_path: Path) -> None:
    overrides = {"max_connections": 1, "idle_seconds": 0.5}
    settings = read_settings({"profile": "gmail", "overrides": overrides})
    async with (
        Sandbox(tmp_path, settings, http_port=None) as sandbox,
        RawSmtp(sandbox) as first,
        RawSmtp(sandbox) as second,
    ):
        await first.connect()
        await first.reply()
        await second.connect()
        for client in (second, first):
            assert GSMTP.fullmatch((await client.rest()).decode())


# Counted is what was said.


def test_malformed_credentials_are_counted_as_refused() -> None:
    for behaviour in (GMAIL, OUTLOOK):
        peer = Peer(behaviour)
        answer = peer.say("AUTH XOAUTH2 =")
        if answer.startswith("334"):
            assert peer.provider.counters.auth_refused == 0, "that was a challenge"
            answer = peer.say("")
        assert answer.startswith("535")
        assert (peer.provider.counters.auth_refused, peer.provider.counters.auth_accepted) == (1, 0)


def test_a_login_beyond_the_connections_is_refused_and_not_accepted() -> None:
    peer = Peer(replace(GMAIL, max_connections_per_mailbox=1)).log_in()
    other = Peer(GMAIL)
    other.session.provider = peer.provider
    other.tokens = peer.tokens
    other.say("AUTH XOAUTH2")
    assert other.say(other.blob()).startswith("421 4.7.0 ")
    assert (peer.provider.counters.auth_accepted, peer.provider.counters.auth_refused) == (1, 1)


def test_every_refused_login_is_counted_once() -> None:
    peer = Peer(GMAIL)
    answers = []
    for _ in range(5):
        peer.say("AUTH XOAUTH2 =")
        answers.append(peer.say("")[:3])
    assert answers == ["535"] * 4 + ["421"]
    assert peer.provider.counters.auth_refused == 5


@pytest.mark.parametrize(("text", "refused"), [("454 4.7.0 no", 1), ("235 2.7.0 yes", 0), ("?", 0)])
def test_a_reply_on_request_is_counted_for_what_it_says(text: str, refused: int) -> None:
    peer = Peer(GMAIL)
    peer.faults.add(reply_fault(Step.AUTH, text))
    peer.say("AUTH XOAUTH2")
    assert peer.say(peer.blob()) == f"{text}\r\n", "and it is said as it stands"
    assert (peer.provider.counters.auth_accepted, peer.provider.counters.auth_refused) == (
        0,
        refused,
    )


def test_a_good_token_is_accepted_in_the_providers_words() -> None:
    for behaviour, said in ((GMAIL, "Accepted"), (OUTLOOK, "Authentication successful")):
        peer = Peer(behaviour)
        peer.say("AUTH XOAUTH2")
        assert peer.say(peer.blob()) == f"235 2.7.0 {said}\r\n"


@REAL
@pytest.mark.parametrize("initial", [True, False])
def test_passwords_are_never_good(behaviour: Behaviour, initial: bool) -> None:
    peer = Peer(behaviour)
    name, password = "bmFtZQ==", "c2VjcmV0"
    if initial:
        assert peer.say(f"AUTH LOGIN {name}") == "334 UGFzc3dvcmQ6\r\n"
    else:
        assert peer.say("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
        assert peer.say(name) == "334 UGFzc3dvcmQ6\r\n"
    assert peer.say(password).startswith("535")
    assert peer.say("MAIL FROM:<a@b>").startswith("530 ")
    assert peer.provider.counters.auth_refused == 1


def test_outlook_says_that_passwords_are_no_more() -> None:
    peer = Peer(OUTLOOK)
    peer.say("AUTH LOGIN bmFtZQ==")
    assert "5.7.139 Authentication unsuccessful, basic authentication is disabled" in peer.say(
        "eA=="
    )


@pytest.mark.parametrize("initial", ["", " AGEAYg=="])
def test_gmail_takes_plain_and_refuses_it(initial: str) -> None:
    peer = Peer(GMAIL)
    answer = peer.say("AUTH PLAIN" + initial)
    if not initial:
        assert answer == "334 \r\n"
        answer = peer.say("AGEAYg==")
    assert answer.startswith("535-5.7.8 ")


@pytest.mark.parametrize("lines", [["AUTH PLAIN", "*"], ["AUTH LOGIN", "*"], ["AUTH LOGIN x", "*"]])
def test_a_password_exchange_can_be_cancelled(lines: list[str]) -> None:
    peer = Peer(GMAIL)
    assert [peer.say(line)[:3] for line in lines] == ["334", "501"]
    assert peer.provider.counters.auth_refused == 0


def test_what_gmail_offers_and_no_longer_takes_is_refused() -> None:
    assert Peer(GMAIL).say("AUTH XOAUTH").startswith("504 5.7.4 ")
    assert Peer(GMAIL).say("AUTH CRAM-MD5").startswith("504 5.5.4 ")


def inline(peer: Peer, length: int) -> str:
    """Return the answer to an inline token that makes the line so long, with its CRLF."""
    return peer.say("AUTH XOAUTH2 " + "A" * (length - len("AUTH XOAUTH2 \r\n")))


def test_gmail_refuses_a_long_token_inline() -> None:
    answer = inline(Peer(GMAIL), 1025)
    assert answer.startswith("555-5.5.2 Syntax error, command line too long")
    assert not inline(Peer(GMAIL), 1024).startswith("555")


def test_outlook_takes_a_long_token_inline() -> None:
    peer = Peer(OUTLOOK)
    token = peer.tokens.mint("m" * 3000 + "@outlook.com")
    assert peer.say("AUTH XOAUTH2 " + peer.blob(token)).startswith("535 5.7.3")


def test_outlook_takes_what_status_notifications_need() -> None:
    peer = Peer(OUTLOOK).log_in()
    assert peer.say("MAIL FROM:<a@b> RET=HDRS ENVID=QQ+2B314159").startswith("250 ")
    notify = "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;c@d"
    assert peer.say(f"RCPT TO:<c@d> {notify}").startswith("250 ")
    assert peer.say("RCPT TO:<e@f> NOTIFY=NEVER").startswith("250 ")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("MAIL FROM:<a@b> RET=ALL", "501"),
        ("MAIL FROM:<a@b> ENVID=a+zz", "501"),
        ("MAIL FROM:<a@b> ENVID=" + "x" * 101, "501"),
        ("RCPT TO:<c@d> NOTIFY=SOMETIMES", "501"),
        ("RCPT TO:<c@d> NOTIFY=NEVER,FAILURE", "501"),
        ("RCPT TO:<c@d> ORCPT=c@d", "501"),
        ("RCPT TO:<c@d> NOTIFY=NEVER NOTIFY=NEVER", "501"),
        ("RCPT TO:<c@d> X=1", "555"),
    ],
)
def test_wrong_parameters_of_notifications_are_refused(line: str, code: str) -> None:
    peer = Peer(OUTLOOK).log_in()
    if line.startswith("RCPT"):
        peer.say("MAIL FROM:<a@b>")
    assert peer.say(line).startswith(code)


def test_gmail_knows_no_notifications() -> None:
    peer = Peer(GMAIL).log_in()
    assert peer.say("MAIL FROM:<a@b> RET=HDRS").startswith("555 ")
    peer.say("MAIL FROM:<a@b>")
    assert peer.say("RCPT TO:<c@d> NOTIFY=NEVER").startswith("555 ")


def test_binary_content_comes_by_bdat_as_it_is() -> None:
    peer = Peer(OUTLOOK).log_in()
    peer.say("MAIL FROM:<a@b> BODY=BINARYMIME")
    peer.say("RCPT TO:<c@d>")
    assert peer.say("DATA").startswith("503 ")
    peer.session.receive(b"BDAT 5 LAST\r\na\nb\rc")
    assert peer.session.take_replies().startswith(b"250 ")
    (message,) = peer.provider.received
    assert message.content == b"a\nb\rc"


def test_binary_content_is_outlooks_alone() -> None:
    assert Peer(GMAIL).log_in().say("MAIL FROM:<a@b> BODY=BINARYMIME").startswith("501 ")
    peer = Peer(OUTLOOK).log_in()
    peer.say("MAIL FROM:<a@b>")
    peer.say("RCPT TO:<c@d>")
    peer.session.receive(b"BDAT 3 LAST\r\na\nb")
    assert peer.session.take_replies().startswith(b"550 5.6.11 ")


@pytest.mark.parametrize(
    ("behaviour", "most", "said"),
    [(GMAIL, 100, "452-4.5.3 Your message has too many"), (OUTLOOK, 500, "452 4.5.3 Too many")],
)
def test_a_message_has_so_many_recipients(behaviour: Behaviour, most: int, said: str) -> None:
    peer = Peer(behaviour).log_in()
    peer.say("MAIL FROM:<a@b>")
    answers = [peer.say(f"RCPT TO:<r{number}@b>") for number in range(most + 1)]
    assert all(answer.startswith("250 ") for answer in answers[:-1])
    assert answers[-1].startswith(said)
    assert peer.provider.counters.refused_by_limit == {"max_recipients": 1}


@pytest.mark.parametrize("profile", list(ProviderProfile))
def test_every_text_is_a_reply(profile: ProviderProfile) -> None:
    dialect = DIALECTS[profile]
    texts = [
        value for name in dialect.__slots__ if re.match(r"\d", value := str(getattr(dialect, name)))
    ]
    assert len(texts) == (15 if profile is ProviderProfile.GMAIL else 14)
    for text in texts:
        lines = encode_reply(text).decode().splitlines()
        codes = {line[:3] for line in lines}
        assert len(codes) == 1
        assert [line[3] for line in lines] == ["-"] * (len(lines) - 1) + [" "]
        # RFC 2034 §4: every line repeats the enhanced code, whose class is the code's.
        assert len({line[4:].split(" ")[0] for line in lines}) == 1
        assert lines[0][4] == lines[0][0]
        assert "{" not in encode_reply(text).decode()
        assert all(len(line) <= 510 for line in lines)


def test_what_acts_is_told_with_its_meaning() -> None:
    rows = {name: (value, meaning) for name, value, meaning in describe(OUTLOOK)}
    assert rows["messages_per_minute"] == ("30", "Messages of a mailbox in a minute.")
    assert "messages_per_day" not in rows
    assert all(meaning for _, meaning in rows.values())
    withholding = Behaviour(tls=TlsMode.NONE, withhold=frozenset({"B", "A"}))
    assert describe(withholding)[2][1] == "A B"
