from __future__ import annotations

import base64
import hashlib
import json

import pytest

from tests.support.raw_smtp import MAILBOX, xoauth2
from tests.support.sandbox import count_arrivals
from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.sandbox.behaviour import Behaviour
from xoauth2_proxy.sandbox.faults import FaultScript, Step
from xoauth2_proxy.sandbox.message_store import MessageStore
from xoauth2_proxy.sandbox.provider_state import ProviderState
from xoauth2_proxy.sandbox.smtp.session import Session
from xoauth2_proxy.sandbox.smtp.session_state import Ending
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

ENVELOPE = b"MAIL FROM:<test.account1@gmail.com>\r\nRCPT TO:<someone@example.com>\r\n"
CONTENT = b"Message-ID: <1@x>\r\n\r\n.\r\n..\r\nlast\r\n"


class Peer:
    """A session without a network."""

    def __init__(self, behaviour: Behaviour | None = None, *, is_encrypted: bool = True) -> None:
        self.tokens = MockTokens(b"k" * 32)
        self.provider = ProviderState(
            behaviour or Behaviour(), self.tokens, MessageStore(), FaultScript()
        )
        self.arrivals = count_arrivals(self.provider)
        self.session = Session(self.provider, is_encrypted=is_encrypted)
        self.session.greet()
        assert self.session.take_replies().startswith(b"220 ")

    def say(self, octets: bytes) -> str:
        self.session.receive(octets)
        return self.session.take_replies().decode()

    def codes(self, octets: bytes) -> list[str]:
        """Return code and enhanced code of every reply, the last line of each."""
        lines = self.say(octets).splitlines()
        return [" ".join(line.split(" ")[:2]) for line in lines if line[3:4] == " "]

    def log_in(self) -> Peer:
        self.say(b"EHLO client.example\r\n")
        self.say(b"AUTH XOAUTH2\r\n")
        answer = self.say(xoauth2(MAILBOX, self.tokens.mint(MAILBOX)) + b"\r\n")
        assert answer == "235 2.7.0 Accepted\r\n"
        return self

    @property
    def contents(self) -> list[bytes | None]:
        return [message.content for message in self.provider.received]


@pytest.fixture
def peer() -> Peer:
    return Peer().log_in()


def bdat(octets: bytes, last: bool = True) -> bytes:
    return b"BDAT %d%s\r\n%s" % (len(octets), b" LAST" if last else b"", octets)


# Greeting and extensions.


def test_ehlo_under_tls_offers_what_gmail_offers() -> None:
    lines = Peer().say(b"EHLO client.example\r\n").splitlines()
    assert [line[4:] for line in lines[1:]] == [
        "SIZE 35882577",
        "8BITMIME",
        "AUTH XOAUTH2 OAUTHBEARER",
        "ENHANCEDSTATUSCODES",
        "PIPELINING",
        "CHUNKING",
        "SMTPUTF8",
    ]


def test_ehlo_before_tls_offers_starttls_and_no_auth() -> None:
    answer = Peer(is_encrypted=False).say(b"EHLO client.example\r\n")
    assert "STARTTLS" in answer
    assert "AUTH" not in answer


@pytest.mark.parametrize(
    "settings", [Behaviour(auth_without_tls=True), Behaviour(tls=TlsMode.NONE)]
)
def test_auth_can_be_allowed_without_tls(settings: Behaviour) -> None:
    peer = Peer(settings, is_encrypted=False)
    assert "AUTH XOAUTH2" in peer.say(b"EHLO client.example\r\n")
    assert peer.codes(b"AUTH XOAUTH2\r\n") == ["334 "]


def test_auth_before_starttls_is_refused() -> None:
    peer = Peer(is_encrypted=False)
    peer.say(b"EHLO client.example\r\n")
    assert peer.codes(b"AUTH XOAUTH2\r\n") == ["538 5.7.11"]
    assert peer.codes(b"MAIL FROM:<a@b>\r\n") == ["530 5.7.0"]


def test_withheld_extensions_are_neither_offered_nor_taken() -> None:
    words = frozenset({"CHUNKING", "SMTPUTF8", "SIZE", "8BITMIME"})
    peer = Peer(Behaviour(withhold=words)).log_in()
    answer = peer.say(b"EHLO client.example\r\n")
    assert not any(word in answer for word in words)
    assert peer.codes(b"MAIL FROM:<a@b> SMTPUTF8\r\n") == ["555 5.5.4"]
    assert peer.codes(b"MAIL FROM:<a@b> SIZE=5\r\n") == ["555 5.5.4"]
    assert peer.codes(b"MAIL FROM:<a@b> BODY=8BITMIME\r\n") == ["555 5.5.4"]
    assert peer.codes(b"BDAT 0 LAST\r\n") == ["502 5.5.1"]


def test_without_pipelining_a_client_must_wait_for_each_reply() -> None:
    peer = Peer(Behaviour(withhold=frozenset({"PIPELINING"}))).log_in()
    assert peer.codes(b"MAIL FROM:<a@b>\r\n") == ["250 2.1.0"]
    assert peer.codes(b"RCPT TO:<a@b>\r\nDATA\r\n") == ["503 5.5.0"]
    assert peer.session.ending is Ending.CLOSE


def test_without_pipelining_chunks_still_follow_their_command() -> None:
    peer = Peer(Behaviour(withhold=frozenset({"PIPELINING"}))).log_in()
    peer.say(b"MAIL FROM:<a@b>\r\n")
    peer.say(b"RCPT TO:<a@b>\r\n")
    assert peer.codes(bdat(b"x\r\n")) == ["250 2.0.0"]


# AUTH.


def failure(answer: str) -> dict[str, str]:
    assert answer.startswith("334 ")
    found: dict[str, str] = json.loads(base64.b64decode(answer[4:]))
    return found


def test_an_inline_initial_response_is_accepted() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    blob = xoauth2(MAILBOX, peer.tokens.mint(MAILBOX))
    assert peer.codes(b"AUTH XOAUTH2 " + blob + b"\r\n") == ["235 2.7.0"]
    assert peer.provider.counters.auth_accepted == 1
    assert peer.provider.counters.open_by_mailbox == {MAILBOX: 1}


@pytest.mark.parametrize("inline", [True, False])
def test_oauthbearer_is_accepted(inline: bool) -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    token = peer.tokens.mint(MAILBOX)
    blob = base64.b64encode(f"n,a={MAILBOX},\x01auth=Bearer {token}\x01\x01".encode())
    if inline:
        assert peer.codes(b"auth oauthbearer " + blob + b"\r\n") == ["235 2.7.0"]
    else:
        assert peer.codes(b"AUTH OAUTHBEARER\r\n") == ["334 "]
        assert peer.codes(blob + b"\r\n") == ["235 2.7.0"]


def test_an_inline_command_of_513_octets_is_refused_as_gmail_does() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    line = b"AUTH XOAUTH2 " + b"A" * (512 - 13 - 2)
    assert peer.codes(line + b"A\r\n") == ["555 5.5.2"]
    assert peer.codes(line + b"\r\n") != ["555 5.5.2"]


def test_a_long_token_fits_on_the_second_line() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH XOAUTH2\r\n")
    assert peer.say(base64.b64encode(b"x" * 9216) + b"\r\n").startswith("334 ")  # 12288 octets


@pytest.mark.parametrize("excess", [1, 50_000])
def test_a_second_line_over_12288_octets_is_refused_and_the_session_goes_on(excess: int) -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH XOAUTH2\r\n")
    assert peer.say(b"A" * (12_288 + excess)) == ""
    assert peer.codes(b"\r\n") == ["500 5.5.6"]
    assert peer.codes(b"NOOP\r\n") == ["250 2.0.0"]


@pytest.mark.parametrize("line", ["", "AQ==", "*", "QUIT"])
def test_a_refused_token_is_explained_before_the_535(line: str) -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH XOAUTH2\r\n")
    answer = peer.say(xoauth2(MAILBOX, "ya29.nonsense") + b"\r\n")
    assert failure(answer) == {
        "status": "401",
        "schemes": "bearer",
        "scope": "https://mail.google.com/",
    }
    assert peer.say(line.encode() + b"\r\n") == ("535 5.7.8 Username and Password not accepted\r\n")
    assert peer.provider.counters.auth_refused == 1
    assert peer.codes(b"MAIL FROM:<a@b>\r\n") == ["530 5.7.0"]


def test_oauthbearer_explains_in_the_words_of_its_rfc() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH OAUTHBEARER\r\n")
    blob = base64.b64encode(f"n,a={MAILBOX},\x01auth=Bearer x\x01\x01".encode())
    assert failure(peer.say(blob + b"\r\n"))["status"] == "invalid_token"
    assert peer.codes(b"AQ==\r\n") == ["535 5.7.8"]


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"user=a@b",
        b"user=a@b\x01auth=Basic x\x01\x01",
        b"auth=Bearer x\x01\x01",
        b"user=a@b\x01\x01",
    ],
)
@pytest.mark.parametrize("mechanism", [b"XOAUTH2", b"OAUTHBEARER"])
def test_octets_that_are_no_credentials_get_status_400(octets: bytes, mechanism: bytes) -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH " + mechanism + b"\r\n")
    status = failure(peer.say(base64.b64encode(octets) + b"\r\n"))["status"]
    assert status == ("400" if mechanism == b"XOAUTH2" else "invalid_request")
    assert peer.codes(b"\r\n") == ["535 5.7.8"]


def test_an_exchange_can_be_cancelled() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    peer.say(b"AUTH XOAUTH2\r\n")
    assert peer.codes(b"*\r\n") == ["501 5.7.0"]


def test_what_is_not_base64_is_refused() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    assert peer.codes(b"AUTH XOAUTH2 !!!\r\n") == ["501 5.5.2"]


def test_an_equals_sign_is_an_empty_initial_response() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    assert failure(peer.say(b"AUTH XOAUTH2 =\r\n"))["status"] == "400"


def test_the_fifth_failure_ends_the_session() -> None:
    peer = Peer()
    peer.say(b"EHLO client.example\r\n")
    codes = []
    for _ in range(5):
        peer.say(b"AUTH XOAUTH2 =\r\n")
        codes += peer.codes(b"\r\n")
    assert codes == ["535 5.7.8"] * 4 + ["421 4.7.0"]
    assert peer.session.ending is Ending.CLOSE


@pytest.mark.parametrize(
    ("before", "command", "code"),
    [
        (b"", b"AUTH XOAUTH2", "503 5.5.1"),
        (b"EHLO x\r\n", b"AUTH PLAIN AGEAYg==", "504 5.5.4"),
        (b"EHLO x\r\n", b"AUTH", "504 5.5.4"),
        (b"", b"MAIL FROM:<a@b>", "503 5.5.1"),
        (b"EHLO x\r\n", b"MAIL FROM:<a@b>", "530 5.7.0"),
        (b"EHLO x\r\n", b"STARTTLS", "502 5.5.1"),
    ],
)
def test_commands_out_of_their_order_are_refused(before: bytes, command: bytes, code: str) -> None:
    peer = Peer()
    peer.say(before)
    assert peer.codes(command + b"\r\n") == [code]


def test_a_second_auth_is_refused(peer: Peer) -> None:
    assert peer.codes(b"AUTH XOAUTH2\r\n") == ["503 5.5.1"]


# The envelope.


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        (b"", "250 2.1.0"),
        (b" SIZE=1000 BODY=8BITMIME SMTPUTF8 AUTH=<>", "250 2.1.0"),
        (b" size=35882577 body=7bit", "250 2.1.0"),
        (b" SIZE=35882578", "552 5.3.4"),
        (b" SIZE=much", "501 5.5.4"),
        (b" SIZE", "501 5.5.4"),
        (b" BODY=BINARYMIME", "501 5.5.4"),
        (b" SMTPUTF8=yes", "501 5.5.4"),
        (b" AUTH", "501 5.5.4"),
        (b" SIZE=1 SIZE=1", "501 5.5.4"),
        (b" RET=FULL", "555 5.5.4"),
        (b" ENVID=1", "555 5.5.4"),
    ],
)
def test_mail_parameters_are_checked(peer: Peer, parameters: bytes, code: str) -> None:
    assert peer.codes(b"MAIL FROM:<a@b>" + parameters + b"\r\n") == [code]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"MAIL FROM:<>", "250 2.1.0"),
        (b"mail from: <a@b>", "250 2.1.0"),
        (b"MAIL FROM:a@b", "553 5.1.7"),
        (b"MAIL TO:<a@b>", "553 5.1.7"),
        ("MAIL FROM:<ä@b>".encode(), "553 5.6.7"),
        ("MAIL FROM:<ä@b> SMTPUTF8".encode(), "250 2.1.0"),
        (b"MAIL FROM:<\xff@b>", "500 5.5.2"),
        (b"MAIL FROM:<a@b> AUTH=" + b"x" * 450, "250 2.1.0"),
        (b"MAIL FROM:<a@b> AUTH=" + b"x" * 1100, "555 5.5.2"),
    ],
)
def test_reverse_paths_are_checked(peer: Peer, command: bytes, code: str) -> None:
    assert peer.codes(command + b"\r\n") == [code]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"RCPT TO:<a@b>", "250 2.1.5"),
        (b"RCPT TO:<>", "553 5.1.3"),
        (b"RCPT TO:a@b", "553 5.1.3"),
        (b"RCPT TO:<a@b> NOTIFY=NEVER", "555 5.5.4"),
        ("RCPT TO:<ä@b>".encode(), "553 5.6.7"),
    ],
)
def test_forward_paths_are_checked(peer: Peer, command: bytes, code: str) -> None:
    peer.say(b"MAIL FROM:<a@b>\r\n")
    assert peer.codes(command + b"\r\n") == [code]


def test_the_101st_recipient_is_refused_for_now(peer: Peer) -> None:
    peer.say(b"MAIL FROM:<a@b>\r\n")
    codes = peer.codes(b"RCPT TO:<a@b>\r\n" * 101)
    assert codes == ["250 2.1.5"] * 100 + ["452 4.5.3"]


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"NOOP", "250 2.0.0"),
        (b"RSET", "250 2.0.0"),
        (b"RSET now", "501 5.5.4"),
        (b"VRFY someone", "252 2.5.2"),
        (b"HELP", "214 2.0.0"),
        (b"EXPN list", "502 5.5.1"),
        (b"", "502 5.5.1"),
        (b"\0", "502 5.5.1"),
        (b"EHLO", "501 5.5.4"),
        (b"HELO", "501 5.5.4"),
        (b"HELO client.example", "250 sandbox.invalid"),
        (b"STARTTLS now", "501 5.5.4"),
        (b"QUIT now", "501 5.5.4"),
        (b"QUIT", "221 2.0.0"),
        (b"RCPT TO:<a@b>", "503 5.5.1"),
        (b"DATA", "503 5.5.1"),
        (b"BDAT 0 LAST", "503 5.5.1"),
        (b"NOOP " + b"x" * 510, "555 5.5.2"),
    ],
)
def test_other_commands_are_answered(peer: Peer, command: bytes, code: str) -> None:
    assert peer.codes(command + b"\r\n") == [code]


@pytest.mark.parametrize("line", [b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n"])
def test_a_command_line_with_a_bare_line_end_closes(peer: Peer, line: bytes) -> None:
    assert peer.codes(line + b"QUIT\r\n") == ["500 5.5.2"]
    assert peer.session.ending is Ending.CLOSE


def test_a_second_mail_is_refused_until_reset(peer: Peer) -> None:
    mail = b"MAIL FROM:<a@b>\r\n"
    codes = peer.codes(mail + mail + b"RSET\r\n" + mail)
    assert codes == ["250 2.1.0", "503 5.5.1", "250 2.0.0", "250 2.1.0"]


# Content.


def test_data_is_stored_as_it_was_meant(peer: Peer) -> None:
    assert peer.codes(ENVELOPE + b"DATA\r\n") == ["250 2.1.0", "250 2.1.5", "354 Go"]
    stuffed = CONTENT.replace(b"\r\n.", b"\r\n..")
    answer = peer.say(stuffed + b".\r\n")
    (message,) = peer.provider.received
    assert answer == f"250 2.0.0 OK {message.id}\r\n"
    assert message.content == CONTENT
    assert message.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (message.seq, message.via, message.message_id) == (1, "DATA", "<1@x>")
    assert (message.mailbox, message.reverse_path) == (MAILBOX, MAILBOX)
    assert message.forward_paths == ("someone@example.com",)


def test_a_whole_flight_is_answered_at_once_and_in_order(peer: Peer) -> None:
    flight = ENVELOPE + bdat(CONTENT) + b"RSET\r\n" + ENVELOPE + bdat(CONTENT) + b"NOOP\r\n"
    envelope = ["250 2.1.0", "250 2.1.5"]
    expected = [*envelope, "250 2.0.0", "250 2.0.0", *envelope, "250 2.0.0", "250 2.0.0"]
    assert peer.codes(flight) == expected
    assert peer.contents == [CONTENT, CONTENT]


FLIGHT = ENVELOPE + bdat(CONTENT[:9], last=False) + bdat(CONTENT[9:]) + b"QUIT\r\n"


@pytest.mark.parametrize("cut", range(len(FLIGHT)))
def test_a_flight_cut_anywhere_is_the_same_flight(peer: Peer, cut: int) -> None:
    codes = peer.codes(FLIGHT[:cut]) + peer.codes(FLIGHT[cut:])
    assert codes == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "221 2.0.0"]
    assert peer.contents == [CONTENT]
    assert [message.via for message in peer.provider.received] == ["BDAT"]


def test_a_flight_octet_by_octet_is_the_same_flight(peer: Peer) -> None:
    codes = [code for at in range(len(FLIGHT)) for code in peer.codes(FLIGHT[at : at + 1])]
    assert codes == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0", "221 2.0.0"]
    assert peer.contents == [CONTENT]


def test_the_last_chunk_may_be_empty(peer: Peer) -> None:
    codes = peer.codes(ENVELOPE + bdat(CONTENT, last=False) + b"bdat 0 last\r\n")
    assert codes[2:] == ["250 2.0.0", "250 2.0.0"]
    assert peer.contents == [CONTENT]


def test_a_message_may_be_empty(peer: Peer) -> None:
    assert peer.codes(ENVELOPE + b"BDAT 0 LAST\r\n")[-1] == "250 2.0.0"
    peer.say(ENVELOPE + b"DATA\r\n")
    assert peer.codes(b".\r\n") == ["250 2.0.0"]
    assert peer.contents == [b"", b""]


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"a\n.\nb\r\n", b"a\n.\r\nb\r\n"])
def test_bare_line_ends_in_data_are_refused_after_its_end(peer: Peer, content: bytes) -> None:
    peer.say(ENVELOPE + b"DATA\r\n")
    assert peer.codes(content + b".\r\n") == ["550 5.6.11"]
    assert peer.codes(b"NOOP\r\n") == ["250 2.0.0"]
    assert peer.contents == []
    assert peer.provider.counters.transactions_refused == 1


def test_bare_line_ends_in_bdat_are_refused(peer: Peer) -> None:
    assert peer.codes(ENVELOPE + bdat(b"a\nb"))[-1] == "550 5.6.11"
    assert peer.codes(ENVELOPE + bdat(b"a\r", last=False) + bdat(b"\nb"))[-1] == "250 2.0.0"


def test_content_over_the_limit_is_refused_after_its_end() -> None:
    peer = Peer(Behaviour(max_message_bytes=10)).log_in()
    peer.say(ENVELOPE + b"DATA\r\n")
    assert peer.codes(b"123456789\r\n.\r\n") == ["552 5.3.4"]
    assert peer.codes(ENVELOPE + bdat(b"12345678901"))[-1] == "552 5.3.4"
    assert peer.codes(ENVELOPE + bdat(b"1234567890"))[-1] == "250 2.0.0"
    peer.say(ENVELOPE + b"DATA\r\n")
    assert peer.codes(b"..234567\r\n.\r\n") == ["250 2.0.0"]  # the stuffed dot does not count
    assert peer.contents == [b"1234567890", b".234567\r\n"]


def test_after_a_refused_chunk_no_other_is_taken() -> None:
    peer = Peer(Behaviour(max_message_bytes=10)).log_in()
    chunk = bdat(b"12345678901", last=False)
    codes = peer.codes(ENVELOPE + chunk + bdat(b"1", last=False) + bdat(b"1"))
    assert codes[2:] == ["552 5.3.4", "503 5.5.1", "503 5.5.1"]
    assert peer.codes(ENVELOPE + bdat(b"1"))[-1] == "250 2.0.0"
    assert peer.provider.counters.transactions_refused == 1


@pytest.mark.parametrize(
    ("envelope", "code"),
    [
        (b"MAIL FROM:a\r\nRCPT TO:<a@b>\r\n", "503 5.5.1"),
        (b"MAIL FROM:<a@b>\r\n", "503 5.5.1"),
        (b"MAIL FROM:<a@b>\r\nRCPT TO:a\r\n", "554 5.5.1"),
    ],
)
def test_a_chunk_that_is_not_wanted_is_still_read(peer: Peer, envelope: bytes, code: str) -> None:
    chunk = bdat(b"MAIL FROM:<smuggled@example.com>\r\n")
    assert peer.codes(envelope + chunk + b"RSET\r\n")[-2:] == [code, "250 2.0.0"]
    assert peer.contents == []


def test_data_without_valid_recipients_is_refused(peer: Peer) -> None:
    assert peer.codes(b"MAIL FROM:<a@b>\r\nDATA\r\n")[-1] == "503 5.5.1"
    assert peer.codes(b"RCPT TO:a\r\nDATA\r\n")[-1] == "554 5.5.1"
    assert peer.codes(b"DATA now\r\n") == ["501 5.5.4"]


def test_data_and_bdat_do_not_mix(peer: Peer) -> None:
    assert peer.codes(ENVELOPE + bdat(b"x\r\n", last=False) + b"DATA\r\n")[-1] == "503 5.5.1"
    assert peer.codes(b"RCPT TO:<a@b>\r\n") == ["503 5.5.1"]
    assert peer.codes(bdat(b"y\r\n")) == ["250 2.0.0"]
    assert peer.contents == [b"x\r\ny\r\n"]


@pytest.mark.parametrize("command", [b"BDAT", b"BDAT x", b"BDAT -1", b"BDAT 5 FIRST"])
def test_bdat_that_cannot_be_read_closes(peer: Peer, command: bytes) -> None:
    assert peer.codes(ENVELOPE + command + b"\r\n")[-1] == "501 5.5.4"
    assert peer.session.ending is Ending.CLOSE


def test_an_absurd_chunk_closes(peer: Peer) -> None:
    assert peer.codes(ENVELOPE + b"BDAT 99999999999 LAST\r\n")[-1] == "552 5.3.4"
    assert peer.session.ending is Ending.CLOSE


@pytest.mark.parametrize(
    "flight",
    [
        b"EHLO x\r\nNOOP\r\n",
        b"AUTH XOAUTH2\r\nNOOP\r\n",
        ENVELOPE + b"DATA\r\nSubject: too early\r\n.\r\n",
    ],
)
def test_sending_behind_a_command_that_must_be_answered_first_closes(
    peer: Peer, flight: bytes
) -> None:
    assert peer.codes(flight)[-1] == "503 5.5.0"
    assert peer.session.ending is Ending.CLOSE
    assert peer.contents == []


def test_octets_behind_starttls_are_refused() -> None:
    peer = Peer(is_encrypted=False)
    peer.say(b"EHLO x\r\n")
    assert peer.codes(b"STARTTLS\r\nMAIL FROM:<injected@example.com>\r\n") == ["554 5.5.0"]
    assert peer.session.ending is Ending.CLOSE


def test_an_endless_line_is_not_kept(peer: Peer) -> None:
    for _ in range(100):
        assert peer.say(b"x" * 10_000) == ""
        assert peer.session.backlog_bytes <= 22_290
    assert peer.codes(b"\r\nNOOP\r\n") == ["555 5.5.2", "250 2.0.0"]


def test_an_abandoned_session_gives_back_all_it_held(peer: Peer) -> None:
    peer.say(ENVELOPE + b"BDAT 100 LAST\r\nabc")
    peer.session.abandon()
    peer.session.abandon()
    assert peer.provider.counters.open_by_mailbox == {}
    assert peer.provider.counters.peak_by_mailbox == {MAILBOX: 1}
    assert peer.session.transaction is None


def test_arrivals_are_counted_by_step(peer: Peer) -> None:
    peer.say(ENVELOPE + bdat(CONTENT) + b"RSET\r\nQUIT\r\n")
    counts = {step: tally.count for step, tally in peer.arrivals.items()}
    never = {Step.STARTTLS, Step.DATA}
    assert counts == {step: 0 if step in never else 1 for step in Step}
