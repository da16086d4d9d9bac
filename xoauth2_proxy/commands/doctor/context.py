"""One mailbox under examination: what is known at first, and what each step finds out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from xoauth2_proxy.accounts.oauth_client import MICROSOFT_AUTHORITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore
    from xoauth2_proxy.oauth.token_request import Clock
    from xoauth2_proxy.upstream.connection import Connection

_GOOGLE = "https://oauth2.googleapis.com/token"


class Trouble(Exception):
    """A step failed: `text` says how it is, `remedy` what to do."""

    def __init__(self, text: str, remedy: str, source: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.remedy = remedy
        self.source = source  # where that is written; "": it needs no proof


class NotNeeded(Exception):
    """A step does not apply to this mailbox; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorDependencies:
    """What the examination needs of the proxy's own parts."""

    store: TokenStore
    is_store_shared: bool  # False: it is this process's alone, and a running proxy has its own
    refreshers: Mapping[str, Refresher]
    hostname: str = "[127.0.0.1]"  # for EHLO


@dataclass
class DoctorContext:
    """The mailbox, the means to examine it, and the findings that later steps need."""

    account: Account
    given: DoctorDependencies
    send_to: str = ""  # whom a test message goes to; "": none is sent
    clock: Clock = time

    token_endpoint: str = ""  # "": none is asked over HTTP, or it is not known
    access_token: str = field(default="", repr=False)
    extensions: dict[str, str] = field(default_factory=dict)  # of the mail server
    connection: Connection | None = None  # logged in
    # What may be a cause if the provider refuses the token: text and remedy.
    suspicions: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Set the token endpoint, which an issuer's metadata may replace later."""
        client, refresher = self.account.oauth, self.account.refresher
        if not self.account.keeps_tokens:
            return
        self.token_endpoint = client.token_endpoint
        if not self.token_endpoint and refresher == "gmail":
            self.token_endpoint = _GOOGLE
        elif not self.token_endpoint and refresher == "outlook":
            authority = (client.authority or MICROSOFT_AUTHORITY).rstrip("/")
            self.token_endpoint = f"{authority}/{client.tenant or 'common'}/oauth2/v2.0/token"

    @property
    def issuer(self) -> str:
        """The issuer whose metadata name the token endpoint; "" if that is known without."""
        client = self.account.oauth
        is_asked = self.account.refresher == "oidc" and not client.token_endpoint
        return client.issuer if is_asked else ""

    @property
    def token_url(self) -> str:
        """What is reached first for a token: the issuer's metadata or the endpoint."""
        return self.issuer or self.token_endpoint

    @property
    def token_host(self) -> tuple[str, int]:
        """Host and port of that. Raises `NotNeeded` if none is asked over HTTP."""
        parts = urlsplit(self.token_url)
        if not parts.hostname:
            raise NotNeeded("no token endpoint is asked")
        return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)

    def close(self) -> None:
        """Close the connection."""
        if self.connection is not None:
            self.connection.close()
