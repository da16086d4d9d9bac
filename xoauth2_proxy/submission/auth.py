"""Conducts the dialogue of one AUTH command and returns the client's credentials. No I/O.

The challenges and responses of a SASL mechanism travel in base64 lines. RFC 4954 §4.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, cast

from xoauth2_proxy import replies
from xoauth2_proxy.smtp import sasl

if TYPE_CHECKING:
    from xoauth2_proxy.smtp.protocol import Reply


class AuthEnded(Exception):
    """The dialogue ended without credentials; the client gets `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__()
        self.reply = reply


class AuthDialogue:
    """One AUTH command: `begin`, then `challenge` and `respond` until credentials are returned."""

    def __init__(self, mechanism: str) -> None:
        """`mechanism` is one of `sasl.MECHANISMS`."""
        self._is_server_first = mechanism in sasl.SERVER_FIRST
        self._exchange = sasl.MECHANISMS[mechanism]()
        self._challenge = next(self._exchange)

    @property
    def challenge(self) -> bytes:
        """The next line to send to the client, with its CRLF."""
        return challenge_line(self._challenge)

    def begin(self, initial_response: bytes) -> sasl.Credentials | None:
        """Take the initial response, or b""; return the credentials, or None.

        After None, `challenge` must be sent. Raises `AuthEnded`.
        """
        if initial_response and self._is_server_first:
            raise AuthEnded(replies.AUTH_MALFORMED)
        return self._take(initial_response) if initial_response else None

    def respond(self, line: bytes) -> sasl.Credentials | None:
        """Take the client's next line; otherwise as `begin`. Raises `AuthEnded`."""
        response = line.strip()
        if response == b"*":
            raise AuthEnded(replies.AUTH_CANCELLED)
        return self._take(response)

    def _take(self, response: bytes) -> sasl.Credentials | None:
        try:
            self._challenge = self._exchange.send(_decoded(response))
        except StopIteration as done:
            return cast("sasl.Credentials", done.value)
        except sasl.MalformedResponse:
            raise AuthEnded(replies.AUTH_MALFORMED) from None
        return None


def challenge_line(challenge: bytes) -> bytes:
    """Return the 334 reply that carries a challenge."""
    return b"334 " + base64.b64encode(challenge) + b"\r\n"


def _decoded(response: bytes) -> bytes:
    """Return the octets of a base64 response; "=" is the empty response (RFC 4954 §4)."""
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except binascii.Error:
        raise AuthEnded(replies.AUTH_MALFORMED) from None
