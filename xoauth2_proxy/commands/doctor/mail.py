"""What the mail server offers, whether it takes the token, and whether it takes a message."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING

from xoauth2_proxy.commands.doctor.context import NotNeeded, Trouble
from xoauth2_proxy.diagnostics import explain
from xoauth2_proxy.errors import ProxyError, UpstreamAuthRejected, UpstreamRejected
from xoauth2_proxy.smtp.content import Content
from xoauth2_proxy.smtp.protocol import Envelope
from xoauth2_proxy.upstream.connector import Connector

if TYPE_CHECKING:
    from xoauth2_proxy.commands.doctor.context import DoctorContext
    from xoauth2_proxy.smtp.protocol import Reply

_SELF = "xoauth2-proxy doctor"  # a remedy that names this command does not help here


async def extensions(context: DoctorContext) -> str:
    """See whether XOAUTH2 is offered."""
    found = context.extensions
    mechanisms = found.get("AUTH", "").upper().split()
    if "XOAUTH2" not in mechanisms:
        raise Trouble(
            f"the server offers no XOAUTH2 ({' '.join(mechanisms) or 'no AUTH at all'})",
            'look at "upstream" of the account: it must be the provider\'s server for submission',
        )
    size = found.get("SIZE", "")
    words = [f"AUTH {' '.join(mechanisms)}"]
    if size.isdigit() and int(size):
        words.append(f"messages up to {int(size) / 1_048_576:.0f} MiB")
    words += [key for key in ("PIPELINING", "CHUNKING", "8BITMIME", "SMTPUTF8") if key in found]
    return ", ".join(words)


async def login(context: DoctorContext) -> str:
    """Log in with the token, as the proxy does."""
    if not context.access_token:
        raise NotNeeded("there is no token")
    connector = Connector(None, context.given.hostname)
    try:
        context.connection = await connector.open_with(context.account, context.access_token)
    except UpstreamAuthRejected as error:
        raise _refused(context, error.reply) from None
    except UpstreamRejected as error:
        raise _explained(context, error.reply) from None
    except ProxyError as error:
        raise Trouble(str(error), "try again; if it lasts, look at the network") from None
    return f"logged in as {context.account.email}"


async def test_message(context: DoctorContext) -> str:
    """Send a message that says that it is a test."""
    if not context.send_to:
        raise NotNeeded("none was asked for (--send-to)")
    if context.connection is None:
        raise NotNeeded("there is no login")
    envelope = Envelope(reverse_path=context.account.email, forward_paths=[context.send_to])
    try:
        reply = await context.connection.send_message(envelope, _message(context))
    except ProxyError as error:
        raise Trouble(str(error), "try again; if it lasts, look at the network") from None
    if not reply.is_positive:
        raise _explained(context, reply)
    return f"{context.send_to}: {reply}"


def _message(context: DoctorContext) -> Content:
    sender = context.account.email
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = context.send_to
    message["Subject"] = "Test message of xoauth2-proxy doctor"
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message.set_content(
        f"This message was sent by `xoauth2-proxy doctor`, to see whether {sender} can send.\n"
        "It can. Nothing needs to be done.\n"
    )
    return Content(message.as_bytes(), is_stuffed=False)


def _refused(context: DoctorContext, reply: Reply) -> Trouble:
    # What the token says of itself may be the cause.
    if not context.suspicions or reply.is_transient:
        return _explained(context, reply)
    cause, remedy = context.suspicions[0]
    known = explain(str(reply), context.account.refresher)
    if known is not None and _SELF not in known.remedy and "login" not in known.remedy:
        return _explained(context, reply)
    return Trouble(f"{reply} – {cause}", remedy)


def _explained(context: DoctorContext, reply: Reply) -> Trouble:
    advice = explain(str(reply), context.account.refresher)
    if advice is None:
        later = "try again later" if reply.is_transient else "ask the provider what it means"
        return Trouble(str(reply), later)
    remedy = advice.remedy_for(context.account.email)
    if _SELF in remedy:
        remedy = (
            "the token itself looks right; look at the mailbox's licence, its permission to use "
            'SMTP, and whether "email" is its own address at the provider'
        )
    return Trouble(f"{reply} – {advice.cause}", remedy, advice.source)
