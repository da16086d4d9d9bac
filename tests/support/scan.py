"""The message that the tests have every client send: UTF-8, leading dots and a large attachment.

Clients that pass a message on get it whole, and the provider must receive the same octets. Clients
that compose get its parts, and the parts must come out of what the provider received.
"""

from __future__ import annotations

import base64
import email
import email.policy
import hashlib
import random
from email.message import EmailMessage
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SENDER = "scanner@example.com"
RECIPIENT = "someone@example.net"
SUBJECT = "Scan für das Büro"
BODY = ".\n..\n.leading dot\nFrom the start of a line\n\nGrüße, 你好\nend\n"
ATTACHMENT = random.Random(13).randbytes(1_000_000)
_DIGEST = hashlib.sha256(ATTACHMENT).digest()  # a failing test is not to print it
_ENCODED = "\r\n".join(base64.encodebytes(ATTACHMENT).decode().splitlines())
CONTENT = (
    f"From: {SENDER}\r\n"
    f"To: {RECIPIENT}\r\n"
    f"Subject: =?utf-8?Q?Scan_f=C3=BCr_das_B=C3=BCro?=\r\n"
    "Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n"
    "Message-ID: <scan@example.com>\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed; boundary=between\r\n"
    "\r\n"
    "--between\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n"
    "\r\n" + BODY.replace("\n", "\r\n") + "\r\n"
    "--between\r\n"
    "Content-Type: application/octet-stream\r\n"
    "Content-Disposition: attachment; filename=scan.bin\r\n"
    "Content-Transfer-Encoding: base64\r\n"
    "\r\n" + _ENCODED + "\r\n"
    "--between--\r\n"
).encode()


def write_into(directory: Path) -> None:
    """Write the message for those who pass it on, and its parts for those who compose."""
    (directory / "message.eml").write_bytes(CONTENT)
    (directory / "message.txt").write_bytes(CONTENT.replace(b"\r\n", b"\n"))
    (directory / "body.txt").write_text(BODY)
    (directory / "scan.bin").write_bytes(ATTACHMENT)


def assert_passed_on(content: bytes, before: bytes = b"", behind: bytes = b"") -> None:
    """Check that this is the message, octet for octet, with something added by the client."""
    expected = before + CONTENT + behind
    at = next(
        (i for i, two in enumerate(zip(content, expected, strict=False)) if len(set(two)) > 1), 0
    )
    assert content == expected, (
        f"{len(content)} octets for {len(expected)}; they part at {at}: "
        + repr(content[at : at + 100])
    )


def assert_composed(content: bytes, *, alters: tuple[str, str] | None = None) -> None:
    """Check that a message has the parts, and no line end but CRLF.

    `alters` is what the client writes for what in its text.
    """
    without = content.replace(b"\r\n", b"")
    assert b"\r" not in without
    assert b"\n" not in without
    message = email.message_from_bytes(content, policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    assert message["Subject"] == SUBJECT
    assert [one.addr_spec for one in message["From"].addresses] == [SENDER]
    body = message.get_body(("plain", "html"))
    assert body is not None
    text = body.get_content().replace("\r\n", "\n")
    if alters is not None:
        text = text.replace(*alters)
    # Composers differ in whether a text ends with a line end, or two.
    assert text.rstrip("\n") == BODY.rstrip("\n"), repr(text)
    (attachment,) = (
        part for part in message.walk() if part.get_content_maintype() == "application"
    )
    assert hashlib.sha256(attachment.get_content()).digest() == _DIGEST
