"""A token endpoint that betrays every client, and clients of every kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import trustme
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.planted import objects
from tests.support.treachery import TREACHERIES, note
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.gmail import GmailRefresher
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher
from xoauth2_proxy.oauth.refreshers.outlook import OutlookRefresher

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from tests.support.planted import Planted
    from tests.support.token_endpoint import Answer, Request, TokenEndpoint
    from tests.support.treachery import Treachery
    from xoauth2_proxy.oauth.refreshers import Refresher

ALICE = "alice@example.com"


@cache
def rsa_leaf() -> trustme.LeafCert:
    """Return what clients sign with: RSA is what Google and Microsoft take."""
    return trustme.CA().issue_cert("me.example", key_type=trustme.KeyType.RSA)


@cache
def service_account_key() -> bytes:
    """Return the key of a service account (PEM), a short one.

    It is loaded for each request, and its primes are tested: at 2,048 bits, for 30 ms.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


@dataclass
class Asking:
    """A refresher, what it presents, and where its endpoint is asked."""

    refresher: Refresher
    grant: Grant
    path: str


@dataclass
class Office:
    """An endpoint that gives nothing but back what it is told, and clients of every kind."""

    endpoint: TokenEndpoint
    threads: ThreadPoolExecutor
    planted: Planted
    directory: Path
    is_plain: bool
    said_by_objects: list[str] = field(default_factory=list)

    def new(self, name: str) -> str:
        return self.planted.new(name, is_plain=self.is_plain)

    def client(self, **changes: Any) -> OAuthClient:
        client = OAuthClient(
            client_id="id",
            client_secret=self.new("a client secret"),
            refresh_token=self.new("a refresh token"),
            parameters=(("resource", self.planted.new("a parameter")),),
            ca_file=self.endpoint.ca_file,
        )
        return replace(client, **changes)

    def gmail(self) -> Asking:
        client = self.client(token_endpoint=f"{self.endpoint.url}/gmail/token")
        return self._asking(GmailRefresher(self.threads), client, "/gmail/token")

    def service_account(self) -> Asking:
        key = self.directory / "key.json"
        signing = {"type": "service_account", "client_email": "me@cloud.example"}
        key.write_text(json.dumps(signing | {"private_key": service_account_key().decode()}))
        client = self.client(
            grant_type=GrantType.SERVICE_ACCOUNT,
            client_secret="",
            service_account=key,
            token_endpoint=f"{self.endpoint.url}/service/token",
        )
        return self._asking(GmailRefresher(self.threads), client, "/service/token")

    def outlook(self) -> Asking:
        return self._outlook(self.client(tenant="people"))

    def outlook_application(self) -> Asking:
        return self._outlook(
            self.client(grant_type=GrantType.CLIENT_CREDENTIALS, tenant="by-secret")
        )

    def outlook_certificate(self) -> Asking:
        pem = self.directory / "client.pem"
        rsa_leaf().private_key_and_cert_chain_pem.write_to_path(str(pem))
        return self._outlook(
            self.client(
                grant_type=GrantType.CLIENT_CREDENTIALS,
                client_secret="",
                certificate=pem,
                tenant="by-certificate",
            )
        )

    def oidc(self) -> Asking:
        client = self.client(token_endpoint=f"{self.endpoint.url}/oidc/token")
        return self._asking(OidcRefresher(self.threads), client, "/oidc/token")

    def oidc_basic(self) -> Asking:
        client = self.client(issuer=f"{self.endpoint.url}/basic")
        return self._asking(OidcRefresher(self.threads), client, "/basic/token")

    def oidc_application(self) -> Asking:
        client = self.client(
            grant_type=GrantType.CLIENT_CREDENTIALS, issuer=f"{self.endpoint.url}/app"
        )
        return self._asking(OidcRefresher(self.threads), client, "/app/token")

    def _outlook(self, client: OAuthClient) -> Asking:
        client = replace(client, authority=self.endpoint.url)
        path = f"/{client.tenant}/oauth2/v2.0/token"
        return self._asking(OutlookRefresher(self.threads), client, path)

    def _asking(self, refresher: Refresher, client: OAuthClient, path: str) -> Asking:
        grant = Grant(mailbox=ALICE, client=client, refresh_token=client.refresh_token)
        return Asking(refresher, grant, path)

    def betrays(self, path: str, treachery: Treachery) -> None:
        self.endpoint.route(path, treachery)

    def looks_around(self, path: str) -> None:
        """Look at all objects while a request is under way, before it fails."""

        def look(request: Request) -> Answer:
            self.said_by_objects.append(objects())
            return TREACHERIES["a page"](request)

        self.endpoint.route(path, look)

    def leaks(self, text: str) -> set[str]:
        note(self.planted, self.endpoint)
        return self.planted.leaks(text)


CLIENTS = {
    "gmail": Office.gmail,
    "service account": Office.service_account,
    "outlook": Office.outlook,
    "outlook application": Office.outlook_application,
    "outlook certificate": Office.outlook_certificate,
    "oidc": Office.oidc,
    "oidc basic": Office.oidc_basic,
    "oidc application": Office.oidc_application,
}
