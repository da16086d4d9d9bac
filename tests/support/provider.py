"""A provider's SMTP server up to AUTH, as unfriendly as a test makes it; tokens to open it with."""

from __future__ import annotations

import base64
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.support.accounts import mailbox
from tests.support.peers import serving
from xoauth2_proxy.accounts.accounts import Account, TlsMode, Upstream
from xoauth2_proxy.oauth.grant import AccessToken, Monotonic

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from tests.support.peers import Peer
    from xoauth2_proxy.errors import ProxyError
    from xoauth2_proxy.upstream.connection import Connection

ACCEPTED = "235 2.7.0 Accepted"
CHALLENGE = "334 " + base64.b64encode(b'{"status":"401"}').decode()
REFUSED = "535 5.7.8 Username and Password not accepted"


@dataclass
class Provider:
    """What it says, and what it heard; call it as the script of `peers.serving`."""

    context: ssl.SSLContext | None = None  # None: STARTTLS is not offered
    greeting: str = "220 provider.example ESMTP"
    extensions: list[str] = field(
        default_factory=lambda: ["PIPELINING", "CHUNKING", "AUTH LOGIN XOAUTH2"]
    )
    in_clear: list[str] = field(default_factory=list)  # further extensions before TLS
    starttls: str = "220 2.0.0 go on"
    # What complete credentials, and then each further line, draw; the last one again and again.
    answers: list[str] = field(default_factory=lambda: [ACCEPTED])
    prompt: str = "334 "
    heard: list[bytes] = field(default_factory=list)  # all lines of all connections
    connections: int = 0
    ends: int = 0  # connections that have ended
    _answered: int = 0

    async def __call__(self, peer: Peer) -> None:
        self.connections += 1
        peer.lines = self.heard
        try:
            with suppress(OSError):  # TLS errors included: the client's doing
                await self._serve(peer)
        finally:
            self.ends += 1

    @property
    def responses(self) -> list[bytes]:
        """The SASL responses heard, without base64."""
        found = []
        for line in self.heard:
            with suppress(ValueError):
                found.append(base64.b64decode(line.split()[-1] if line else b"", validate=True))
        return [one for one in found if one.startswith(b"user=")]

    async def _serve(self, peer: Peer) -> None:
        is_clear = self.context is not None
        peer.says(self.greeting)
        while line := await peer.line():
            verb = line.split()[0].upper()
            if verb == b"EHLO":
                words = [*self.in_clear, "STARTTLS"] if is_clear else self.extensions
                said = ["provider.example", *words]
                peer.says(*(f"250-{word}" for word in said[:-1]), f"250 {said[-1]}")
            elif verb == b"STARTTLS":
                peer.says(self.starttls)
                if self.context is not None and self.starttls.startswith("220"):
                    await peer.starts_tls(self.context)
                    is_clear = False
            elif verb == b"AUTH":
                await self._auth(peer, line)
            elif verb == b"QUIT":
                peer.says("221 2.0.0 bye")
                return
            else:
                peer.says("502 5.5.1 not here")

    async def _auth(self, peer: Peer, line: bytes) -> None:
        if len(line.split()) < 3:
            peer.says(self.prompt)
            if not self.prompt.startswith("334"):
                return
            await peer.line()
        while True:
            answer = self.answers[min(self._answered, len(self.answers) - 1)]
            self._answered += 1
            peer.says(answer)
            if not answer.startswith("334"):
                return
            await peer.line()


@asynccontextmanager
async def at(
    provider: Provider,
    tls: TlsMode = TlsMode.NONE,
    ca_file: Path | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Account]:
    """Run the provider; give an account whose upstream it is."""
    async with serving(provider, context) as port:
        yield mailbox(upstream=Upstream("localhost", port, tls, ca_file))


async def refusal(opening: Awaitable[object], kind: type[ProxyError]) -> ProxyError:
    """Return the error that opening ends with, which is of `kind` and no other."""
    with pytest.raises(kind) as caught:
        await opening
    assert caught.type is kind
    return caught.value


def ends(connection: Connection) -> None:
    assert connection.is_usable
    connection.abort()


class Tokens:
    """Gives out token-1, then token-2 once it is invalidated, and so on."""

    def __init__(self) -> None:
        self.invalidated: list[str] = []
        self.refusals: list[str] = []  # of whole logins; "": it succeeded
        self._current = self._token(1)

    async def token_for(self, account: Account) -> AccessToken:
        assert account.email == "someone@example.com"
        return self._current

    def invalidate(self, account: Account, token: AccessToken) -> bool:
        assert token is self._current
        self.invalidated.append(token.value)
        self._current = self._token(len(self.invalidated) + 1)
        return True

    def note_login(self, account: Account, refusal: str = "") -> None:
        self.refusals.append(refusal)

    @staticmethod
    def _token(number: int) -> AccessToken:
        return AccessToken.with_lifetime(f"token-{number}", Monotonic(time.monotonic()), 3600.0)
