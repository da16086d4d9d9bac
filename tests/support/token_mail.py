"""A mail server that takes whatever tokens a test says, and the configuration of its mailboxes.

It knows SMTP well enough for the relay; where strictness matters, the sandbox is the peer.
"""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.peers import serving
from tests.support.relay import MAILBOX, PASSWORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.support.peers import Peer

PROVIDER = "school"
_EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE 36700160")


@dataclass
class TokenMail:
    """What it heard; call it as the script of `peers.serving`."""

    accepts: Callable[[str], bool] = lambda token: True
    logins: list[tuple[str, str]] = field(default_factory=list)  # mailbox, token; good and bad
    messages: list[str] = field(default_factory=list)  # ids, as they were answered
    open: int = 0  # connections there are now
    port: int = 0

    async def __call__(self, peer: Peer) -> None:
        self.open += 1
        try:
            await self._serve(peer)
        finally:
            self.open -= 1

    async def _serve(self, peer: Peer) -> None:
        peer.says("220 mail.example ESMTP")
        while line := await _next_line(peer):
            verb, _, rest = line.decode().partition(" ")
            match verb.upper():
                case "EHLO":
                    said = ("mail.example", *_EXTENSIONS)
                    peer.says(*(f"250-{word}" for word in said), "250 AUTH XOAUTH2")
                case "AUTH":
                    await self._auth(peer, rest.partition(" ")[2])
                case "DATA":
                    await self._data(peer)
                case "QUIT":
                    peer.says("221 2.0.0 bye")
                    return
                case _:
                    peer.says("250 2.0.0 fine")

    async def _auth(self, peer: Peer, response: str) -> None:
        if not response:
            peer.says("334 ")
            response = (await peer.line()).decode()
        user, auth, *_ = base64.b64decode(response).decode().split("\x01")
        mailbox, token = user.removeprefix("user="), auth.removeprefix("auth=Bearer ")
        self.logins.append((mailbox, token))
        peer.says("235 2.7.0 Accepted" if self.accepts(token) else "535 5.7.8 not with this token")

    async def _data(self, peer: Peer) -> None:
        peer.says("354 go on")
        while await peer.line() != b".":
            pass
        self.messages.append(str(len(self.messages) + 1))
        peer.says(f"250 2.0.0 OK {self.messages[-1]}")


async def _next_line(peer: Peer) -> bytes:
    """Return the next line, however long it takes: only clients close idle connections."""
    while True:
        with suppress(TimeoutError):
            return await peer.line()


@asynccontextmanager
async def token_mail(
    accepts: Callable[[str], bool] = lambda token: True,
) -> AsyncIterator[TokenMail]:
    """Run a mail server that lets in who shows a token that is accepted."""
    server = TokenMail(accepts)
    async with serving(server) as server.port:
        yield server


def upstream_at_port(port: int) -> dict[str, object]:
    """Return the `upstream` of a server on this port, which speaks no TLS."""
    return {"host": "localhost", "port": port, "tls": "none"}


def provider_at(token_url: str, port: int, **changes: object) -> dict[str, object]:
    """Return an entry of `providers`: who gives tokens out, and which mail server takes them."""
    return {
        "refresher": "oidc",
        "client_id": "tests",
        "oauth_token_url": token_url,
        "upstream": upstream_at_port(port),
    } | changes


def mailbox_of(email: str = MAILBOX, **changes: object) -> dict[str, object]:
    """Return an account of that provider."""
    return {"email": email, "provider": PROVIDER, "password": PASSWORD} | changes


def school(provider: dict[str, object], *accounts: dict[str, object]) -> dict[str, object]:
    """Return a configuration of one provider and these accounts."""
    return {"providers": {PROVIDER: provider}, "accounts": list(accounts)}
