"""A small transaction: its message, what each command of it looks like, and how to begin it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope, Reply

if TYPE_CHECKING:
    from xoauth2_proxy.upstream.connection import Connection

BOTH = {"PIPELINING": "", "CHUNKING": "", "ENHANCEDSTATUSCODES": ""}
PIPELINING = {"PIPELINING": ""}
CHUNKING = {"CHUNKING": "", "ENHANCEDSTATUSCODES": ""}
CONTENT = Content(b"Subject: a\r\n\r\n.b\r\n", is_stuffed=False)
BDAT = b"BDAT 18 LAST\r\nSubject: a\r\n\r\n.b\r\n"
DATA = b"Subject: a\r\n\r\n..b\r\n.\r\n"
MAIL = b"MAIL FROM:<a@x>\r\n"
RCPT = b"RCPT TO:<b@y>\r\n"
TWO = b"RCPT TO:<b@y>\r\nRCPT TO:<c@z>\r\n"
KEPT = Reply(250, "2.0.0", ("kept",))


def envelope(*recipients: str) -> Envelope:
    return Envelope("a@x", list(recipients or ("b@y",)))


def begin(
    connection: Connection, to: Envelope | None = None, content: Content = CONTENT
) -> asyncio.Task[Reply]:
    async def send() -> Reply:
        return await connection.send_message(to or envelope(), content)

    return asyncio.create_task(send())
