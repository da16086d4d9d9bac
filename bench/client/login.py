"""The client side of SASL logins, as the octets to send (RFC 4954)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_COMMAND_OCTETS = 512  # RFC 5321 §4.5.3.1.4, with the CRLF


class Mechanism(StrEnum):
    """The SASL mechanism of the login."""

    PLAIN = "plain"
    LOGIN = "login"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"
    NONE = "none"  # no login at all

    @property
    def takes_token(self) -> bool:
        """Whether the secret is an access token rather than a password."""
        return self in {Mechanism.XOAUTH2, Mechanism.OAUTHBEARER}


@dataclass(frozen=True, slots=True)
class ClientLogin:
    """A client's login; `secret` returns the password or a token and is called for each AUTH."""

    mailbox: str
    mechanism: Mechanism
    secret: Callable[[], str] = field(repr=False)

    def lines(self) -> list[bytes]:
        """Return the AUTH command and the responses to its challenges, without CRLF."""
        secret = self.secret()
        if self.mechanism is Mechanism.LOGIN:
            answers = [self.mailbox.encode(), secret.encode()]
        else:
            answers = [initial_response(self, secret)]
        first, *rest = [base64.b64encode(answer) for answer in answers]
        command = b"AUTH " + self.mechanism.upper().encode()
        whole = command + b" " + first
        if self.mechanism is not Mechanism.LOGIN and len(whole) + 2 <= _MAX_COMMAND_OCTETS:
            return [whole, *rest]
        return [command, first, *rest]

    @property
    def answer_to_error(self) -> bytes:
        """The response to an error challenge, after which the server sends its refusing reply.

        Empty for XOAUTH2, one %x01 for OAUTHBEARER (RFC 7628 §3.2.3).
        """
        return b"AQ==" if self.mechanism is Mechanism.OAUTHBEARER else b""


def initial_response(login: ClientLogin, secret: str) -> bytes:
    """Return the initial response of PLAIN (RFC 4616), OAUTHBEARER (RFC 7628) or XOAUTH2."""
    if login.mechanism is Mechanism.PLAIN:
        return f"\0{login.mailbox}\0{secret}".encode()
    if login.mechanism is Mechanism.OAUTHBEARER:
        # RFC 5801 §4: "=" and "," of the name are written =3D and =2C.
        authzid = login.mailbox.replace("=", "=3D").replace(",", "=2C")
        return f"n,a={authzid},\1auth=Bearer {secret}\1\1".encode()
    return f"user={login.mailbox}\1auth=Bearer {secret}\1\1".encode()
