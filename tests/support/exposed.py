"""A relay whose every secret is planted, with peers that give back what they are told.

The document has a mailbox for each way to get a token, one for each way in which that can fail, and
what a person, an operator's program and a script may do with them.
"""

from __future__ import annotations

import base64
import binascii
import json
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tests.support.betrayed import rsa_leaf, service_account_key
from tests.support.documents import upstream_at
from tests.support.logins import provider_entry
from tests.support.sign_ins import ALICE
from tests.support.token_endpoint import answer
from tests.support.treachery import TREACHERIES, note

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from tests.support.peers import Peer
    from tests.support.planted import Planted
    from tests.support.sandbox import Sandbox
    from tests.support.token_endpoint import Answer, Request, TokenEndpoint
    from tests.support.treachery import Treachery

Document = dict[str, Any]

SCRIPTED = "scripted@example.com"  # signs in at the endpoint
ECHOED = "echoed@example.com"  # its mail server shows what it was sent
REFUSED = "refused@example.com"  # its mail server takes no token
POSTED = "posted@example.com"  # added while the relay runs
OIDC = "oidc@example.com"


async def echo(peer: Peer) -> None:
    """Be a mail server that knows no AUTH and shows what it was sent, and what that means."""
    peer.says("220 echo.example")
    while line := (await peer.line()).decode():
        if line.startswith("EHLO"):
            peer.says("250-echo.example", "250 AUTH XOAUTH2")
            continue
        meaning = ""
        with suppress(binascii.Error, ValueError):
            meaning = base64.b64decode(line.rpartition(" ")[2], validate=True).decode()
        token = meaning.rpartition("Bearer ")[2]
        shown = "".join(letter if letter.isprintable() else " " for letter in token)
        peer.says(f"500-5.5.1 Unrecognized command: {line}", f"500 5.5.1 It means {shown}")


@dataclass
class Exposed:
    """The peers of one relay and the document that leads it to them."""

    planted: Planted
    endpoint: TokenEndpoint
    identity: IdentityProvider
    mail: Sandbox
    echo_port: int
    directory: Path
    passwords: dict[str, str] = field(default_factory=dict)  # by mailbox
    good: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.endpoint.metadata["revocation_endpoint"] = f"{self.endpoint.url}/revoke"
        self.endpoint.route("/revoke", TREACHERIES["temporarily_unavailable plainly"])

    @property
    def command_saw(self) -> str:
        """Arguments and environment of the commands that were run."""
        return "\n".join(file.read_text() for file in self.directory.glob("saw-*"))

    def note(self) -> None:
        """Search for all that the peers were told and gave out so far."""
        note(self.planted, self.endpoint)

    def document(self, **sections: object) -> Document:
        accounts = [
            *self._of_google(),
            *self._of_microsoft(),
            *self._of_others(),
            *self._of_commands(),
            *self._failing(),
            *self._signing_in(),
        ]
        return {"accounts": accounts, "providers": self._providers(), **sections}

    def added(self, email: str, provider: str, **changes: object) -> Document:
        """Return an account as it is posted, with a client of its own."""
        return {
            "email": email,
            "provider": provider,
            "password": self._new("a posted password"),
            "client_id": "id",
            "client_secret": self._new("a posted client secret"),
            "refresh_token": self._new("a posted refresh token"),
            **changes,
        }

    def _providers(self) -> Document:
        own = {
            "refresher": "oidc",
            "upstream": upstream_at(self.mail),
            "ca_file": str(self.endpoint.ca_file),
        }
        secret = {"client_id": "id", "client_secret": self._new("a provider's client secret")}
        token_url = f"{self.endpoint.url}/scripted/token"
        self._issues("/posted/token", POSTED)
        self.betrays("/posted-badly/token", TREACHERIES["invalid_client plainly"])
        return {
            "own": own | secret,
            "gmail": {**own, **secret, "refresher": "gmail"},
            "outlook": {**own, **secret, "refresher": "outlook", "authority": self.endpoint.url},
            "school": provider_entry(self.identity, upstream=upstream_at(self.mail)),
            "scripted": own
            | secret
            | {"authorization_url": f"{self.endpoint.url}/auth", "oauth_token_url": token_url},
            "program": {"refresher": "command", "upstream": upstream_at(self.mail)},
            "posted": own | {"oauth_token_url": f"{self.endpoint.url}/posted/token"},
            "posted-badly": own | {"oauth_token_url": f"{self.endpoint.url}/posted-badly/token"},
        }

    # Mailboxes that work.

    def _of_google(self) -> list[Document]:
        key = self.directory / "key.json"
        pem = service_account_key()
        self.planted.add("a private key", pem.decode().splitlines()[2])
        key.write_text(
            json.dumps(
                {
                    "type": "service_account",
                    "client_email": "me@cloud.example",
                    "private_key": pem.decode(),
                }
            )
        )
        public = load_pem_private_key(pem, None).public_key()
        self.endpoint.service_accounts["me@cloud.example"] = public.public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self._issues("/gmail/token", "gmail@example.com")
        self._issues("/service/token", "service@example.com")
        return [
            self._working(
                "gmail@example.com",
                provider="gmail",
                oauth_token_url=f"{self.endpoint.url}/gmail/token",
                refresh_token=self._new("a refresh token"),
            ),
            self._working(
                "service@example.com",
                provider="gmail",
                oauth_token_url=f"{self.endpoint.url}/service/token",
                service_account=str(key),
            ),
        ]

    def _of_microsoft(self) -> list[Document]:
        pem = self.directory / "client.pem"
        rsa_leaf().private_key_and_cert_chain_pem.write_to_path(str(pem))
        made = []
        for name, changes in (
            ("outlook", {"refresh_token": self._new("a refresh token")}),
            ("application", {"grant": "client_credentials"}),
            (
                "certificate",
                {"grant": "client_credentials", "client_id": "id", "certificate": str(pem)},
            ),
        ):
            email = f"{name}@example.com"
            self._issues(f"/{name}/oauth2/v2.0/token", email)
            made.append(self._working(email, provider="outlook", tenant=name, **changes))
        return made

    def _of_others(self) -> list[Document]:
        self._issues("/oidc/token", OIDC)
        self._issues("/client/token", "client@example.com")
        return [
            self._working(
                OIDC,
                issuer=f"{self.endpoint.url}/oidc",
                refresh_token=self._new("a refresh token"),
            ),
            self._working(
                "client@example.com",
                issuer=f"{self.endpoint.url}/client",
                grant="client_credentials",
                parameters={"resource": self._new("a parameter")},
            ),
        ]

    def _of_commands(self) -> list[Document]:
        token = self.planted.add("a printed token", self.mail.tokens.mint("command@example.com"))
        short = self.planted.new("a short token", is_plain=True)
        long = self.planted.add("a complained token", 3 * self.planted.new("x", is_plain=True))
        lines = {
            "command": f"echo {shlex.quote(token)}; echo {long} is fine >&2",
            "failing": f"echo {short}; echo + echo {short} {long} >&2; exit 75",
            "refusing": f"echo earlier {short} >&2; echo {long} was revoked >&2; exit 77",
        }
        made = []
        for name, line in lines.items():
            program = self.directory / name
            saw = shlex.quote(str(self.directory / f"saw-{name}"))
            program.write_text(
                f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/environ > {saw}\n"
                f"tr '\\0' '\\n' < /proc/$$/cmdline >> {saw}\n{line}\n"
            )
            program.chmod(0o755)
            account = self._account(
                f"{name}@example.com", provider="program", command=[str(program), "{mailbox}"]
            )
            (self.good if name == "command" else self.bad).append(account["email"])
            made.append(account)
        return made

    # Mailboxes that do not.

    def _failing(self) -> list[Document]:
        made = [
            self._betrayed(f"betrayed{number}@example.com", treachery)
            for number, treachery in enumerate(TREACHERIES.values())
        ]
        quoting = TREACHERIES["invalid_grant plainly"]
        made += [
            self._betrayed("betrayed-gmail@example.com", quoting, provider="gmail"),
            self._betrayed("betrayed-outlook@example.com", quoting, provider="outlook"),
        ]
        untrusted = self._betrayed("untrusted@example.com", quoting)
        untrusted["ca_file"] = str(self.mail.ca_file)  # another authority's
        self.endpoint.route("/echoed/token", self._issue_short)
        self.endpoint.route("/refused/token", self._issue_short)
        for email in (ECHOED, REFUSED):
            name = email.partition("@")[0]
            made.append(
                self._account(
                    email,
                    oauth_token_url=f"{self.endpoint.url}/{name}/token",
                    refresh_token=self._new("a refresh token"),
                )
            )
            self.bad.append(email)
        made[-2]["upstream"] = {"host": "localhost", "port": self.echo_port, "tls": "none"}
        return [*made, untrusted]

    def _signing_in(self) -> list[Document]:
        self.endpoint.route("/scripted/token", self._issue_short)
        return [
            self._account(ALICE, provider="school"),
            self._account(SCRIPTED, provider="scripted"),
        ]

    def _betrayed(self, email: str, treachery: Treachery, provider: str = "own") -> Document:
        path = f"/{email.partition('@')[0]}/token"
        self.betrays(path, treachery)
        self.bad.append(email)
        return self._account(
            email,
            provider=provider,
            oauth_token_url=f"{self.endpoint.url}{path}",
            client_id="id",
            client_secret=self._new("a client secret"),
            refresh_token=self._new("a refresh token"),
        )

    def betrays(self, path: str, treachery: Treachery) -> None:
        self.endpoint.route(path, treachery)

    def _working(self, email: str, **changes: object) -> Document:
        self.good.append(email)
        return self._account(email, **changes)

    def _account(self, email: str, **changes: object) -> Document:
        self.passwords[email] = self.planted.new("a password")
        account = {"email": email, "provider": "own", "password": self.passwords[email]}
        return account | changes

    def _issues(self, path: str, mailbox: str) -> None:
        """Answer with tokens that open the mailbox, and with another refresh token each time."""

        def issue(_: Request) -> Answer:
            token = self.planted.add("an access token", self.mail.tokens.mint(mailbox))
            rotated = self._new("a rotated refresh token")
            return answer({"access_token": token, "expires_in": 3600, "refresh_token": rotated})

        self.endpoint.route(path, issue)

    def _issue_short(self, _: Request) -> Answer:
        """Answer with a token that is too short to be recognised as one."""
        rotated = self._new("a rotated refresh token")
        return answer(self.endpoint.issue(refresh_token=rotated))

    def _new(self, name: str) -> str:
        return self.planted.new(name)
