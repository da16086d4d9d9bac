"""The commands that carry an envelope to a provider, and one reply for the recipients refused.

Pure. RFC 5321 §4.1.1.2, §4.1.1.3; RFC 1870, 3461, 6152, 6531.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy import replies
from xoauth2_proxy.errors import ExtensionMissing
from xoauth2_proxy.smtp.protocol import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from xoauth2_proxy.smtp.protocol import Envelope


def mail_command(
    envelope: Envelope,
    extensions: Mapping[str, str],
    content_bytes: int = 0,
    is_ascii: Callable[[], bool] = lambda: False,
) -> bytes:
    """Return MAIL with the parameters that this provider understands.

    Raises `ExtensionMissing` if the provider lacks what the message needs (RFC 6152 §3, RFC 6531
    §3.2, RFC 3461 §4). `is_ascii` says whether the content is ASCII, which an unknown one is not.
    """
    parameters = ""
    if content_bytes and "SIZE" in extensions:
        parameters += f" SIZE={content_bytes}"
    if envelope.body_8bit:
        if "8BITMIME" in extensions:
            parameters += " BODY=8BITMIME"
        elif not is_ascii():
            raise ExtensionMissing(replies.EIGHT_BIT_UNSUPPORTED)
    if envelope.smtputf8:
        paths = (envelope.reverse_path, *envelope.forward_paths)
        if "SMTPUTF8" in extensions:
            parameters += " SMTPUTF8"
        elif not (is_ascii() and all(path.isascii() for path in paths)):
            raise ExtensionMissing(replies.SMTPUTF8_UNSUPPORTED)
    dsn = f" RET={envelope.ret}" if envelope.ret else ""
    dsn += f" ENVID={envelope.envid}" if envelope.envid else ""
    if dsn and "DSN" not in extensions:
        raise ExtensionMissing(replies.DSN_UNSUPPORTED)
    parameters += dsn
    return f"MAIL FROM:<{envelope.reverse_path}>{parameters}\r\n".encode()


def rcpt_command(envelope: Envelope, index: int, extensions: Mapping[str, str]) -> bytes:
    """Return RCPT for one of the envelope's recipients, with its parameters.

    Raises `ExtensionMissing` if it asks for notifications that the provider cannot send.
    """
    path, parameters = envelope.forward_paths[index], envelope.notifications.get(index, "")
    if parameters and "DSN" not in extensions:
        raise ExtensionMissing(replies.DSN_UNSUPPORTED)
    return f"RCPT TO:<{path}>{parameters}\r\n".encode()


def ends_session(reply: Reply) -> bool:
    """Whether the provider says with `reply` that the connection is of no further use."""
    return reply.code in {421, 432} or replies.is_about_session(reply)


def joined(refusals: Sequence[tuple[str, Reply]], *, recipients: int) -> Reply:
    """Return one reply for the recipients refused, of so many in all.

    A permanent refusal outweighs transient ones. A lone recipient's reply stays as it is; otherwise
    each refused recipient gets a line of its own with the provider's words. Each line says it all,
    since some clients show only the first and others only the last.
    """
    _, first = next((one for one in refusals if not one[1].is_transient), refusals[0])
    if recipients == 1:
        return first
    lines = (f"Sent to no one, because of <{path}>: {reply}" for path, reply in refusals)
    return Reply(first.code, first.enhanced, tuple(lines))
