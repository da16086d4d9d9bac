"""One message on its way from a client to the provider, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xoauth2_proxy.accounts.accounts import Login
    from xoauth2_proxy.clients.interface import ConnectedClient
    from xoauth2_proxy.errors import ProxyError
    from xoauth2_proxy.smtp.protocol import Envelope, Reply


@dataclass(slots=True)
class Message:
    """A message, from the first event about it to its log line and the metrics."""

    login: Login
    envelope: Envelope
    id: str  # for the log
    size_bytes: int = 0
    start: bytes = b""  # of the content, for its Message-ID
    waited_seconds: float = 0.0  # for the rate limit and a connection, including its opening
    ended_at: float = 0.0  # when the client's last octet arrived, by `time.monotonic`
    failure: ProxyError | None = None
    refusal: Reply | None = None  # by the provider
    client: ConnectedClient | None = None  # whose message it is
