"""The profiles of three kinds of provider.

A figure that a provider publishes has its source beside it; the others are estimates and say so.
"""

from __future__ import annotations

from xoauth2_proxy.sandbox.behaviour import (
    MAX_AUTH_LINE_BYTES,
    Behaviour,
    ProviderProfile,
    RefusalPoint,
)

PROFILES = {
    ProviderProfile.UNLIMITED: Behaviour(),
    ProviderProfile.GMAIL: Behaviour(
        dialect=ProviderProfile.GMAIL,
        # github.com/jstedfast/MailKit/issues/1343: an inline token of more than 697 characters
        # is refused, which makes a line of about 1000 octets.
        max_auth_line_bytes=1024,
        max_connections_per_mailbox=10,  # not published; what senders stay below
        messages_per_day=2000,  # support.google.com/a/answer/166852, Workspace
        recipients_per_day=10_000,  # the same
        logins_per_minute=60,  # not published, but there is a limit
    ),
    ProviderProfile.OUTLOOK: Behaviour(
        dialect=ProviderProfile.OUTLOOK,
        max_message_bytes=157_286_400,  # what Exchange Online announces
        max_recipients=500,  # its default; administrators choose up to 1000
        max_auth_line_bytes=MAX_AUTH_LINE_BYTES,  # clients send 4 kB inline, and it takes them
        # learn.microsoft.com/exchange/troubleshoot/send-emails/smtp-submission-improvements:
        # three connections; what is beyond 30 messages a minute is "carried over"; 10,000
        # recipients a day.
        max_connections_per_mailbox=3,
        # github.com/nodemailer/nodemailer/issues/1613: "Message failed", which is what that client
        # calls a refusal after the final dot.
        connections_refused_at=RefusalPoint.END,
        messages_per_minute=30,
        is_excess_delayed=True,
        recipients_per_day=10_000,
        session_seconds=1200.0,  # not published; about 20 minutes are seen
        refusal_seconds=5.0,  # github.com/nodemailer/nodemailer/issues/1484
    ),
}
