"""Every OAuth key of the configuration changes what a provider is asked, or when somebody is told.

What the account writes and what its provider's entry writes act alike. Each test names the keys it
shows; the last one compares them with the models.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tests.support.config_files import ConfigFile, account
from tests.support.token_endpoint import Request, TokenEndpoint
from xoauth2_proxy.config.account_sections import OAuthSection
from xoauth2_proxy.errors import TokenEndpointUnavailable
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.authorization import AuthorizationServer
from xoauth2_proxy.oauth.grant import EpochSeconds, Grant
from xoauth2_proxy.oauth.mailbox_status import State, status_of
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.grant import TokenResponse
    from xoauth2_proxy.oauth.refreshers import Refresher

pytestmark = pytest.mark.one_loop

Test = TypeVar("Test")

SHOWN: set[str] = set()
ACCOUNTS_ALONE = {"refresh_token", "sign_in_as"}
OF_PLUG_INS = {"options"}  # test_plug_in_package.py
BOTH = pytest.mark.parametrize("place", ["account", "provider"])


def shows(*keys: str) -> Callable[[Test], Test]:
    """Note that a test shows what these keys do."""
    SHOWN.update(keys)
    return lambda test: test


@dataclass
class Operator:
    """Writes OAuth keys into the file, for the account or for its provider."""

    file: ConfigFile
    place: str
    provider: str = "gmail"

    def account(self, **keys: object) -> Account:
        own: dict[str, object] = {"provider": self.provider}
        if self.provider == "oidc":
            own["upstream"] = {"host": "mx.example.com"}
        document: dict[str, object] = {"accounts": [account(**own, **keys)]}
        if self.place == "provider":
            own |= {key: keys.pop(key) for key in ACCOUNTS_ALONE & keys.keys()}
            document = {"accounts": [account(**own)], "providers": {self.provider: keys}}
        return self.file.load(document).accounts[0]


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path)


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint() as server:
        server.grants("rt")
        yield server


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority) as server:
        server.grants("rt")
        yield server


@contextmanager
def refresher_of(account: Account, file: ConfigFile) -> Iterator[Refresher]:
    registry = RefresherRegistry(file.state_dir)
    try:
        yield registry.refreshers([account.refresher])[account.refresher]
    finally:
        registry.close()


async def issued(account: Account, file: ConfigFile) -> TokenResponse:
    """Get a token as the relay does the first time."""
    client = account.oauth
    grant = Grant(mailbox=account.email, client=client, refresh_token=client.refresh_token)
    with refresher_of(account, file) as refresher:
        return await refresher.refresh(grant)


async def asked(account: Account, file: ConfigFile, endpoint: TokenEndpoint) -> Request:
    """Get a token; return what its endpoint was asked."""
    assert (await issued(account, file)).access_token in endpoint.issued
    return endpoint.token_requests[-1]


@shows("client_id", "client_secret", "refresh_token", "oauth_token_url")
@BOTH
@pytest.mark.parametrize("provider", ["gmail", "outlook", "yahoo"])
async def test_the_client_presents_its_refresh_token_at_the_token_url(
    file: ConfigFile, secure: TokenEndpoint, place: str, provider: str
) -> None:
    file.add("ca.pem", secure.ca_file.read_text())
    written = Operator(file, place, provider).account(
        client_id="me",
        client_secret="s",
        refresh_token="rt",
        oauth_token_url=secure.token_url,
        ca_file="ca.pem",
    )
    request = await asked(written, file, secure)
    assert request.client == ("me", "s")
    assert request.form["refresh_token"] == "rt"


@shows("grant", "scopes", "parameters", "issuer")
@BOTH
async def test_an_application_asks_the_issuers_endpoint_for_scopes(
    file: ConfigFile, endpoint: TokenEndpoint, place: str
) -> None:
    written = Operator(file, place, "oidc").account(
        grant="client_credentials",
        client_id="me",
        client_secret="s",
        scopes="mail.send mail.read",
        parameters={"audience": "smtp"},
        issuer=endpoint.issuer,
    )
    form = (await asked(written, file, endpoint)).form
    assert form["grant_type"] == "client_credentials"
    assert (form["scope"], form["audience"]) == ("mail.send mail.read", "smtp")
    assert endpoint.requests[0].path == "/.well-known/openid-configuration"


@shows("authority", "tenant", "ca_file", "certificate")
@BOTH
async def test_microsofts_client_proves_itself_to_its_tenant(
    file: ConfigFile, secure: TokenEndpoint, authority: trustme.CA, place: str
) -> None:
    leaf = authority.issue_cert("me.example", key_type=trustme.KeyType.RSA)
    leaf.private_key_and_cert_chain_pem.write_to_path(str(file.directory / "client.pem"))
    secure.certificates["me"] = leaf.cert_chain_pems[0].bytes()
    keys: dict[str, object] = {
        "grant": "client_credentials",
        "client_id": "me",
        "certificate": "client.pem",
        "tenant": "company.example",
        "authority": secure.url,
    }
    operator = Operator(file, place, "outlook")
    with pytest.raises(TokenEndpointUnavailable):
        await issued(operator.account(**keys), file)
    file.add("ca.pem", secure.ca_file.read_text())
    request = await asked(operator.account(**keys, ca_file="ca.pem"), file, secure)
    assert request.path.startswith("/company.example/")
    assert [claims["iss"] for claims in secure.claims] == ["me"]


@shows("service_account")
@BOTH
async def test_a_service_account_speaks_for_the_mailbox(
    file: ConfigFile, endpoint: TokenEndpoint, authority: trustme.CA, place: str
) -> None:
    leaf = authority.issue_cert("me.example", key_type=trustme.KeyType.RSA)
    pem = leaf.private_key_pem.bytes()
    endpoint.service_accounts["me@cloud.example"] = (
        load_pem_private_key(pem, None)
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    key = {
        "type": "service_account",
        "client_email": "me@cloud.example",
        "private_key": pem.decode(),
    }
    file.add("key.json", json.dumps(key))
    written = Operator(file, place).account(
        service_account="key.json", oauth_token_url=endpoint.token_url
    )
    await asked(written, file, endpoint)
    assert [claims["sub"] for claims in endpoint.claims] == [written.email]


@shows("command")
@BOTH
async def test_a_command_prints_the_token(file: ConfigFile, place: str) -> None:
    file.add("token", "#!/bin/sh\necho token-of-$1\n").chmod(0o755)
    entry: dict[str, object] = {
        "refresher": "command",
        "upstream": {"host": "mx.example.com", "port": 587},
    }
    command = {"command": ["./token", "{mailbox}"]}
    own = account(provider="own", **(command if place == "account" else {}))
    if place == "provider":
        entry |= command
    (written,) = file.load({"accounts": [own], "providers": {"own": entry}}).accounts
    assert (await issued(written, file)).access_token == f"token-of-{written.email}"


@shows("authorization_url", "sign_in_as")
@BOTH
async def test_people_sign_in_at_the_authorization_url(file: ConfigFile, place: str) -> None:
    written = Operator(file, place, "yahoo").account(
        client_id="me",
        oauth_token_url="http://127.0.0.1:1/token",
        authorization_url="http://127.0.0.1:1/sign-in",
        sign_in_as="boss@example.com",
    )
    with ThreadPoolExecutor(1) as threads:
        attempt = await AuthorizationServer(written, threads).begin("http://127.0.0.1:2/")
    url = urlsplit(attempt.url)
    assert f"{url.scheme}://{url.netloc}{url.path}" == "http://127.0.0.1:1/sign-in"
    assert parse_qs(url.query)["login_hint"] == ["boss@example.com"]


def states(account: Account) -> list[State]:
    """How it stands with two weeks' and with two days' warning, freshly signed in."""
    now = EpochSeconds(time.time())
    grant = StoredGrant(refresh_token="rt", signed_in_at=now, refreshed_at=now)
    return [status_of(account, grant, now, days).state for days in (14, 2)]


@shows("refresh_token_days")
@BOTH
async def test_the_end_of_a_sign_in_is_told_in_time(file: ConfigFile, place: str) -> None:
    operator = Operator(file, place)
    assert states(operator.account(client_id="me")) == [State.OK, State.OK]
    ending = operator.account(client_id="me", refresh_token_days=7)
    assert states(ending) == [State.ATTENTION, State.OK]


@shows("client_secret_expires")
@BOTH
async def test_the_end_of_a_client_secret_is_told_in_time(file: ConfigFile, place: str) -> None:
    day = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()
    ending = Operator(file, place).account(
        client_id="me", client_secret="s", client_secret_expires=day
    )
    assert states(ending) == [State.ATTENTION, State.OK]


@shows("refresh_window_seconds")
@BOTH
async def test_a_token_is_renewed_that_long_before_its_end(
    file: ConfigFile, endpoint: TokenEndpoint, place: str
) -> None:
    written = Operator(file, place).account(
        client_id="me",
        client_secret="s",
        refresh_token="rt",
        oauth_token_url=endpoint.token_url,
        refresh_window_seconds=300,
    )
    with refresher_of(written, file) as refresher:
        source = TokenSource({"gmail": refresher}, Metrics())
        token = await source.token_for(written)
        await source.close()
    assert token.expires_at - token.refresh_at == pytest.approx(300)


async def test_every_oauth_key_is_shown() -> None:
    assert {*OAuthSection.model_fields, *ACCOUNTS_ALONE} - OF_PLUG_INS == SHOWN
