"""What clients in the wild send, octet for octet, each behaviour named after the report of it.

Whole sessions over real sockets, through the whole relay, to the sandbox. The ids of the tests are
the reports: repository, issue.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import logging
import ssl
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.relay import MAILBOX, PASSWORD
from tests.support.sandbox import Sandbox
from tests.support.smtp_client import Client, message
from xoauth2_proxy import replies
from xoauth2_proxy.sandbox.behaviour import Behaviour, ProviderProfile
from xoauth2_proxy.sandbox.provider_settings import ProviderSettings

if TYPE_CHECKING:
    from pathlib import Path

    import trustme

    from tests.conftest import StartRelay
    from tests.support.relay import Relay

pytestmark = pytest.mark.both_loops

# A context for clients that know TLS 1.0 only.
_OLD_CIPHERS = "ALL:@SECLEVEL=0"


def b64(text: str | bytes) -> bytes:
    return base64.b64encode(text.encode() if isinstance(text, str) else text)


AUTH = b"AUTH PLAIN " + b64(f"\0{MAILBOX}\0{PASSWORD}") + b"\r\n"
MAIL = b"MAIL FROM:<scanner@example.com>\r\n"
RCPT = b"RCPT TO:<someone@example.net>\r\n"
CONTENT = b"Subject: hello\r\n\r\n..leading dot\r\n"
ARRIVES = b"Subject: hello\r\n\r\n.leading dot\r\n"
GREETING = ((b"", "220"),)
HELLO = ((b"EHLO client.example\r\n", "250"),)
IN = (*GREETING, *HELLO, (AUTH, "235"))
OUT = ((b"QUIT\r\n", "221"),)
DATA = ((b"DATA\r\n", "354"), (CONTENT + b".\r\n", "250"))
SENDS = ((MAIL, "250"), (RCPT, "250"), *DATA)
PROMPTS = ("334 VXNlcm5hbWU6\r\n", "334 UGFzc3dvcmQ6\r\n")


@dataclass(frozen=True)
class Case:
    """A session: what the client says, and the code or the line that it hears after each."""

    reports: str
    steps: tuple[tuple[bytes, str], ...]
    arrives: tuple[bytes, ...] = (ARRIVES,)
    listener: dict[str, object] = field(default_factory=dict)
    account: dict[str, object] = field(default_factory=dict)


def login(prompted: bytes, *, line_end: bytes = b"\r\n") -> tuple[tuple[bytes, str], ...]:
    """Return the steps of AUTH LOGIN with this command."""
    return (
        (prompted, PROMPTS[0]),
        (b64(MAILBOX) + line_end, PROMPTS[1]),
        (b64(PASSWORD) + line_end, "235"),
    )


def greeted_by(report: str, *commands: bytes, says: str = "250") -> Case:
    """Return a session that greets so, and then logs in and sends."""
    hello = tuple((command, says) for command in commands)
    return Case(report, (*GREETING, *hello, *login(b"AUTH LOGIN\r\n"), *SENDS, *OUT))


def content(report: str, octets: bytes, *arrives: bytes) -> Case:
    """Return a session that sends this content, the dot included."""
    steps = (*IN, (MAIL, "250"), (RCPT, "250"), (b"DATA\r\n", "354"), (octets, "250"), *OUT)
    return Case(report, steps, arrives)


def envelope(report: str, mail: bytes, rcpt: bytes = RCPT) -> Case:
    return Case(report, (*IN, (mail, "250"), (rcpt, "250"), *DATA, *OUT))


def logs_in(report: str, *steps: tuple[bytes, str], **account: object) -> Case:
    return Case(report, (*GREETING, *HELLO, *steps, *SENDS, *OUT), account=account)


def with_credential(report: str, name: str, secret: str) -> Case:
    """Return a session of a device whose login and password are these."""
    response = b64(f"\0{name}\0{secret}")
    credential = {"name": "device", "login": name, "password": secret}
    return logs_in(report, (b"AUTH PLAIN " + response + b"\r\n", "235"), credentials=[credential])


def with_lf(steps: tuple[tuple[bytes, str], ...]) -> tuple[tuple[bytes, str], ...]:
    """Return the steps of a client whose command lines end in LF, but not its message."""
    return tuple(
        (octets if octets.endswith(b".\r\n") else octets.replace(b"\r\n", b"\n"), heard)
        for octets, heard in steps
    )


NETCAT = b"Subject: hello\n\nfrom a script\n.x\n\r\n.\r\n"
CASES = [
    # Greeting.
    greeted_by("OpenSMTPD/OpenSMTPD#1054: HELO and a space", b"HELO \r\n"),
    greeted_by("OpenSMTPD/OpenSMTPD#1054: HELO alone", b"HELO\r\n"),
    greeted_by("OpenSMTPD/OpenSMTPD#1054: EHLO alone", b"EHLO\r\n"),
    greeted_by("OpenSMTPD/OpenSMTPD#1054: EHLO and a tab", b"EHLO\t\r\n"),
    greeted_by("nextcloud/server#14941", b"EHLO _\r\n"),
    greeted_by("PHPMailer/PHPMailer#1011", b"EHLO PhpStorm 9.0.3\r\n"),
    greeted_by("jstedfast/MailKit#704", b"EHLO [IPv6:::ffff:10.0.4.47]\r\n"),
    greeted_by("host names: an underscore", b"EHLO my_pc\r\n"),
    greeted_by("host names: an address without brackets", b"EHLO 192.168.1.20\r\n"),
    greeted_by("host names: UTF-8", "EHLO Büro-Drucker\r\n".encode()),
    greeted_by("host names: Latin-1", "EHLO Büro-Drucker\r\n".encode("latin-1")),
    greeted_by("host names: Latin-1 and HELO", "HELO Büro-Drucker\r\n".encode("latin-1")),
    greeted_by("host names: Windows-1251", "EHLO Принтер\r\n".encode("cp1251")),
    greeted_by("host names: 300 characters", b"EHLO " + b"x" * 300 + b"\r\n"),
    greeted_by("kost/smtp2mqtt#1", b"EHLO camera\r\n", b"HELO camera\r\n"),
    Case("postalserver/postal#1245", (*GREETING, (b"HELO x\r\n", "250"), *OUT), ()),
    # AUTH.
    logs_in("JustinIven/smtp-oauth-relay#57", *login(b"AUTH LOGIN\r\n")),
    logs_in("white space: tabs in AUTH", (AUTH.replace(b" ", b"\t"), "235")),
    logs_in(
        "aio-libs/aiosmtpd#542, mjl-/mox#387",
        (b"auth login " + b64(MAILBOX) + b"\r\n", PROMPTS[1]),
        (b64(PASSWORD) + b"\r\n", "235"),
    ),
    logs_in(
        "cakephp/cakephp#14639",
        (b"AUTH PLAIN " + b64(f"{MAILBOX}\0{MAILBOX}\0{PASSWORD}") + b"\r\n", "235"),
    ),
    logs_in(
        "hkdb/aerion#355",
        (b"AUTH PLAIN " + b64(f"\0{MAILBOX}\0mistyped") + b"\r\n", "535"),
        *login(b"AUTH LOGIN\r\n"),
    ),
    logs_in(
        "vert-x3/vertx-mail-client#145, jstedfast/MailKit#175",
        (
            b"AUTH XOAUTH2 " + b64(f"user={MAILBOX}\x01auth=Bearer {PASSWORD}\x01\x01") + b"\r\n",
            "235",
        ),
    ),
    with_credential("JustinIven/smtp-oauth-relay#20: no @ in the panel", "copier3", "abc"),
    with_credential("passwords: one character", "copier3", "x"),
    with_credential("passwords: 500 characters", "copier3", "0123456789" * 50),
    with_credential("passwords: not ASCII", "Empfang Süd", "Grüße, 你好"),
    Case(
        "passwords: Latin-1",
        (
            *GREETING,
            *HELLO,
            (b"AUTH LOGIN\r\n", PROMPTS[0]),
            (b64(MAILBOX) + b"\r\n", PROMPTS[1]),
            (b64("Schlüssel".encode("latin-1")) + b"\r\n", "235"),
            *SENDS,
            *OUT,
        ),
        account={"password": "Schlüssel"},
    ),
    Case(
        "passwords: Latin-1, and wrong",
        (
            *GREETING,
            *HELLO,
            (b"AUTH PLAIN " + b64(f"\0{MAILBOX}\0".encode() + b"\xe4\xf6") + b"\r\n", "535"),
            *OUT,
        ),
        (),
    ),
    Case(
        "simonrob/email-oauth2-proxy#257: no AUTH at all",
        (*GREETING, (b"HELO printer\r\n", "250"), *SENDS, *OUT),
        account={"credentials": [{"name": "printer", "networks": ["127.0.0.1"]}]},
    ),
    # Envelope.
    envelope(
        "cosullivan/SmtpServer#219: no brackets",
        b"MAIL FROM: scanner@example.com\r\n",
        b"RCPT TO: someone@example.net\r\n",
    ),
    envelope(
        "cosullivan/SmtpServer#219: no brackets, no space",
        b"MAIL FROM:scanner@example.com SIZE=100\r\n",
        b"RCPT TO:someone@example.net\r\n",
    ),
    envelope(
        "cosullivan/SmtpServer#219: parameters behind",
        b"mail from: scanner@example.com BODY=8BITMIME SIZE=100\r\n",
        b"rcpt to: someone@example.net\r\n",
    ),
    envelope(
        "white space: behind the colon",
        b"MAIL FROM: <scanner@example.com>\r\n",
        b"RCPT TO:  <someone@example.net> \r\n",
    ),
    envelope(
        "white space: tabs",
        b"MAIL\tFROM:\t<scanner@example.com>\tSIZE=100\r\n",
        b"RCPT \tTO:<someone@example.net>\t\r\n",
    ),
    envelope("rnwood/smtp4dev#565", b"MAIL FROM:<scanner@example.com> SIZE=13343 AUTH=<>\r\n"),
    envelope(
        "ProtonMail/proton-bridge#46",
        b"MAIL FROM:<scanner@example.com> BODY=7BIT AUTH=<scanner@example.com>\r\n",
    ),
    Case(
        "command lines that end in LF: netcat",
        with_lf((*IN, *SENDS, *OUT)),
    ),
    Case(
        "command lines that end in LF: AUTH LOGIN",
        with_lf((*GREETING, *HELLO, *login(b"AUTH LOGIN\r\n"), *SENDS, *OUT)),
    ),
    Case(
        "command lines that end in LF: a pipelined group",
        (*IN, (MAIL[:-2] + b"\n" + RCPT[:-2] + b"\nDATA\n", "250 250 354"), *DATA[1:], *OUT),
    ),
    Case(
        "command lines that end in LF: a chunk",
        (
            *IN,
            (MAIL[:-2] + b"\n" + RCPT[:-2] + b"\n", "250 250"),
            (b"BDAT 8\nhello\r\n\nBDAT 0 LAST\n", "250 250"),
            *OUT,
        ),
        (b"hello\r\n\r\n",),
    ),
    Case(
        "command lines that end in CR CR LF",
        ((b"", "220"), (b"EHLO x\r\r\n", "250"), (AUTH[:-2] + b"\r\r\n", "235"), *SENDS, *OUT),
    ),
    # Content.
    content(
        "bluetiger9/SmtpClient-for-Qt#185, VernissageApp/VernissageServer#28",
        b"Subject: hello\r\n\r\none\ntwo\nthree\r\n.\r\n",
        b"Subject: hello\r\n\r\none\r\ntwo\r\nthree\r\n",
    ),
    content(
        "vert-x3/vertx-mail-client#220",
        b"Subject: a long\n subject\r\n\r\nhello\r\n.\r\n",
        b"Subject: a long\r\n subject\r\n\r\nhello\r\n",
    ),
    content(
        "curl -T of a whole file with LF",
        b"Subject: hello\n\n.leading dot\nend\n\r\n.\r\n",
        b"Subject: hello\r\n\r\n.leading dot\r\nend\r\n\r\n",
    ),
    content(
        "smtplib, sendmail(…, as_bytes())",
        b"Subject: hello\n\n..leading dot\nend\n\r\n.\r\n",
        b"Subject: hello\r\n\r\n.leading dot\r\nend\r\n\r\n",
    ),
    content(
        "a script through netcat", NETCAT, b"Subject: hello\r\n\r\nfrom a script\r\n.x\r\n\r\n"
    ),
    content(
        "nullmailer",
        b"Subject: hello\r\r\n\r\r\nhello\r\r\n.\r\n",
        b"Subject: hello\r\n\r\nhello\r\n",
    ),
    content(
        "marlam/msmtp#145",
        b"Subject: hello\r\n\r\nprogress 10%\rprogress 100%\r\n.\r\n",
        b"Subject: hello\r\n\r\nprogress 10% progress 100%\r\n",
    ),
    content(
        "a bare CR begins no header field",
        b"Subject: hello\rBcc: more@example.net\r\n\r\nhello\r\n.\r\n",
        b"Subject: hello Bcc: more@example.net\r\n\r\nhello\r\n",
    ),
    content(
        "SMTP2Graph/SMTP2Graph#23: no From",
        *[b"Subject: a\r\n\r\nb\r\n.\r\n", b"Subject: a\r\n\r\nb\r\n"],
    ),
    content("SMTP2Graph/SMTP2Graph#23: no header", b"only text\r\n.\r\n", b"only text\r\n"),
    content("SMTP2Graph/SMTP2Graph#23: nothing", b".\r\n", b""),
    content(
        "pimalaya/himalaya#747",
        b"Bcc: more@example.net\r\nSubject: a\r\n\r\nb\r\n.\r\n",
        b"Bcc: more@example.net\r\nSubject: a\r\n\r\nb\r\n",
    ),
    # The end.
    Case("nodemailer/nodemailer#1292: no QUIT", (*IN, *SENDS)),
]


async def converse(client: Client, steps: tuple[tuple[bytes, str], ...]) -> None:
    """Say each step and hear what it says: codes of replies, or a whole line."""
    for octets, heard in steps:
        client.write(octets)
        if heard.endswith("\r\n"):
            answer = await client.reply()
            assert answer.octets.decode() == heard, octets
            continue
        for code in heard.split():
            answer = await client.reply()
            assert str(answer.code) == code, f"{octets!r}: {answer}"


def document(case: Case) -> dict[str, object]:
    account = {"email": MAILBOX, "provider": "mock", "password": PASSWORD} | case.account
    return {"accounts": [account], "listener": case.listener}


async def unread(relay: Relay) -> Client:
    """Return a client that has read nothing yet."""
    return Client(*await asyncio.open_connection(relay.host, relay.port))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.reports)
async def test_client(start_relay: StartRelay, case: Case) -> None:
    relay = await start_relay(document(case))
    async with await unread(relay) as client:
        await converse(client, case.steps)
        if case.steps[-1][0] == b"QUIT\r\n":
            assert await client.closed()  # [OpenSMTPD/OpenSMTPD#801] waits for it
    assert tuple(one.content for one in relay.sandbox.received) == case.arrives
    for one in relay.sandbox.received:
        assert one.reverse_path == "scanner@example.com"
        assert one.forward_paths == ("someone@example.net",)


async def test_a_password_in_the_field_of_the_login_stays_secret(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    """aio-libs/aiosmtpd#219: some answer `Username:` with the password."""
    caplog.set_level(logging.DEBUG)
    secret = "hunter2-and-more"
    async with await unread(relay) as client:
        steps = [(b"AUTH LOGIN\r\n", PROMPTS[0]), (b64(secret) + b"\r\n", PROMPTS[1])]
        await converse(client, (*GREETING, *HELLO, *steps, (b64(secret) + b"\r\n", "535")))
        await converse(client, login(b"AUTH LOGIN\r\n"))
    said = "".join(f"{one.getMessage()} {vars(one)}" for one in caplog.records)
    assert secret not in said
    assert b64(secret).decode() not in said


@pytest.mark.parametrize(
    "report", ["postalserver/postal#414", "ggpwnkthx/Microsoft-Graph-SMTP-Relay#29"]
)
async def test_cram_md5_is_all_that_a_client_has(start_relay: StartRelay, report: str) -> None:
    listener: dict[str, object] = {"mechanisms": ["PLAIN", "LOGIN", "CRAM-MD5"]}
    relay = await start_relay(document(Case(report, (), listener=listener)))
    async with await unread(relay) as client:
        await converse(client, (*GREETING, *HELLO))
        challenge = base64.b64decode((await client.command("AUTH CRAM-MD5")).text[0])
        digest = hmac.new(PASSWORD.encode(), challenge, "md5").hexdigest()
        await converse(client, ((b64(f"{MAILBOX} {digest}") + b"\r\n", "235"), *SENDS, *OUT))
    assert relay.sandbox.received.total == 1


@pytest.mark.parametrize("is_asked_for", [True, False])
async def test_the_old_line_with_auth_and_an_equals_sign_is_there_on_request(
    start_relay: StartRelay, is_asked_for: bool
) -> None:
    """thunderbird/thunderbird-android#8715: it alarms others, so only on request."""
    listener: dict[str, object] = {
        "auth_equals_line": is_asked_for,
        "mechanisms": ["LOGIN", "PLAIN"],
    }
    relay = await start_relay(document(Case("", (), listener=listener)))
    async with await relay.connect() as client:
        lines = (await client.ehlo()).text
    assert "AUTH LOGIN PLAIN" in lines
    assert ("AUTH=LOGIN PLAIN" in lines) is is_asked_for


async def test_postfix_asks_for_delivery_status_notifications(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    """aio-libs/aiosmtpd#367: the parameters reach a provider that knows them."""
    settings = ProviderSettings(behaviour=Behaviour(dialect=ProviderProfile.OUTLOOK))
    relay = await start_relay(document(Case("", ())), sandbox=Sandbox(tmp_path, settings=settings))
    mail = f"MAIL FROM:<{MAILBOX}> RET=HDRS ENVID=QQ314159\r\n".encode()
    rcpt = RCPT[:-2] + b" NOTIFY=FAILURE ORCPT=rfc822;someone@example.net\r\n"
    async with await unread(relay) as client:
        await converse(client, (*IN, (mail, "250"), (rcpt, "250"), *DATA, *OUT))
    assert relay.sandbox.received.total == 1


# TLS.


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "relay.pem"))
    return {"tls_cert": "relay.pem", "tls_key": "relay.pem"}


def trust(authority: trustme.CA, *, is_old: bool = False) -> ssl.SSLContext:
    """Return a client's context; `is_old`: it knows TLS 1.0 only."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if is_old:
        made.set_ciphers(_OLD_CIPHERS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1
    authority.configure_trust(made)
    return made


@pytest.mark.parametrize(
    ("begins", "is_old"),
    [
        pytest.param("HELO first", False, id="postalserver/postal#2005"),
        pytest.param("TLS", False, id="swissmakers/fail2ban-ui#152"),
        pytest.param("TLS", True, id="JustinIven/smtp-oauth-relay#70"),
        pytest.param("STARTTLS", True, id="JustinIven/smtp-oauth-relay#70, STARTTLS"),
        pytest.param("STARTTLS unannounced", False, id="statping/statping#164"),
        pytest.param("clear", False, id="docker-mailserver/docker-mailserver#1145"),
    ],
)
async def test_client_with_tls(
    start_relay: StartRelay,
    certificate: dict[str, object],
    authority: trustme.CA,
    begins: str,
    is_old: bool,
) -> None:
    listener = certificate | {"tls": "auto", "tls_min": "1.0"}
    relay = await start_relay(document(Case("", (), listener=listener)))
    context = trust(authority, is_old=is_old)
    if begins == "HELO first":
        async with await unread(relay) as probe:
            await converse(probe, (*GREETING, (b"HELO printer\r\n", "250")))
    if begins.startswith(("TLS", "HELO")):
        client = await Client.connect_tls(relay.host, relay.port, context, "localhost")
    else:
        client = await relay.connect()
    async with client:
        if begins == "STARTTLS unannounced":
            await converse(client, ((b"HELO old.example\r\n", "250"),))
        if begins.startswith("STARTTLS"):
            await client.start_tls(context, "localhost")
        await converse(client, (*HELLO, (AUTH, "235"), *SENDS, *OUT))
    assert relay.sandbox.received.total == 1


async def test_localhost_is_both_addresses(start_relay: StartRelay) -> None:
    """simonrob/email-oauth2-proxy#178: `localhost` is ::1 to some and 127.0.0.1 to others."""
    relay = await start_relay(document(Case("", (), listener={"host": "localhost"})))
    for host, port in relay.addresses["default"]:
        async with Client(*await asyncio.open_connection(host, port)) as client:
            await converse(client, (*IN, *SENDS, *OUT))
    assert {host for host, _ in relay.addresses["default"]} >= {"127.0.0.1"}
    assert relay.sandbox.received.total == len(relay.addresses["default"])


# The end.


async def test_hundreds_of_messages_at_once_arrive_once_each(start_relay: StartRelay) -> None:
    """SMTP2Graph/SMTP2Graph#42, #60: hundreds within seconds, each on a connection of its own."""
    relay = await start_relay(document(Case("", ())))

    async def send(number: int) -> None:
        async with await relay.log_in() as client:
            assert (await client.send(message(f"burst {number}"))).code == 250

    async with asyncio.TaskGroup() as burst:
        for number in range(200):
            burst.create_task(send(number))
    arrived = {one.content for one in relay.sandbox.received}
    assert arrived == {message(f"burst {number}") for number in range(200)}
    assert relay.sandbox.received.total == 200


async def test_a_fleet_that_connects_again_and_again_is_answered_each_time(
    start_relay: StartRelay,
) -> None:
    """JustinIven/smtp-oauth-relay#71: after weeks, copiers heard "220" and nothing more."""
    relay = await start_relay(document(Case("", (), listener={"max_connections": 20})))
    for number in range(300):
        async with await unread(relay) as client:
            await converse(client, (*GREETING, *HELLO))
            if number % 3 == 0:
                await converse(client, OUT)
            elif number % 3 == 1:
                client.writer.transport.abort()
    async with await unread(relay) as client:
        await converse(client, (*IN, *SENDS, *OUT))
    assert relay.sandbox.received.total == 1


async def test_a_strict_listener_refuses_what_is_repaired_elsewhere(
    start_relay: StartRelay,
) -> None:
    relay = await start_relay(document(Case("", (), listener={"strict": True})))
    async with await relay.log_in() as client:
        await client.envelope("someone@example.net")
        assert (await client.command("DATA")).code == 354
        client.write(NETCAT)
        assert await client.reply() == replies.BARE_LINE_ENDS
    assert relay.sandbox.received.total == 0
