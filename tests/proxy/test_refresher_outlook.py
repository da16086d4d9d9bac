"""Microsoft's token endpoint as msal asks it, for people and for applications."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.token_endpoint import FAILURES, HANGS, Answer, TokenEndpoint, answer, error
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.outlook import OutlookRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MAILBOX = "someone@contoso.example"
TENANT = "contoso.example"
REFRESH_TOKEN = "0.AXoA-a-refresh-token"
SECRET = "abc8Q~a-client-secret"
SHORT_SECONDS = 0.4
DISCOVERY = f"/{TENANT}/v2.0/.well-known/openid-configuration"
TOKENS = f"/{TENANT}/oauth2/v2.0/token"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def refresher(threads: ThreadPoolExecutor) -> OutlookRefresher:
    return OutlookRefresher(threads, PATIENCE_SECONDS)


@pytest.fixture
async def endpoint(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    clients = {"client-1": SECRET, "public-1": ""}
    async with TokenEndpoint(authority, clients=clients) as endpoint:
        endpoint.grants(REFRESH_TOKEN)
        yield endpoint


def persons(endpoint: TokenEndpoint, **more: Any) -> Grant:
    client = OAuthClient(
        client_id="client-1",
        client_secret=SECRET,
        authority=endpoint.url,
        tenant=TENANT,
        ca_file=endpoint.ca_file,
    )
    return Grant(mailbox=MAILBOX, refresh_token=REFRESH_TOKEN, client=replace(client, **more))


def applications(endpoint: TokenEndpoint, **more: Any) -> Grant:
    grant = persons(endpoint, **{"grant_type": GrantType.CLIENT_CREDENTIALS, **more})
    return replace(grant, refresh_token="")


async def test_refresh_token_gets_an_access_token(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    endpoint.lifetime_seconds = 4567
    issued = await refresher.refresh(persons(endpoint))
    assert (issued.access_token, issued.lifetime_seconds) == (endpoint.issued[0], 4567.0)
    assert [one.path for one in endpoint.requests] == [DISCOVERY, TOKENS]
    form = endpoint.token_requests[0].form
    assert (form["grant_type"], form["refresh_token"]) == ("refresh_token", REFRESH_TOKEN)
    assert (form["client_id"], form["client_secret"]) == ("client-1", SECRET)
    assert set(form["scope"].split()) == {
        "https://outlook.office.com/SMTP.Send",
        "offline_access",
        "openid",
        "profile",
    }


async def test_client_without_a_secret_gets_one_too(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    grant = persons(endpoint, client_id="public-1", client_secret="")
    assert (await refresher.refresh(grant)).access_token
    assert "client_secret" not in endpoint.token_requests[0].form


async def test_configured_scopes_are_asked_for(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    """Another cloud has another resource; `offline_access` is msal's to add."""
    scopes = ("https://partner.outlook.cn/SMTP.Send", "offline_access", "openid")
    await refresher.refresh(persons(endpoint, scopes=scopes))
    scope = endpoint.token_requests[0].form["scope"].split()
    assert "https://partner.outlook.cn/SMTP.Send" in scope
    assert "https://outlook.office.com/SMTP.Send" not in scope


async def test_personal_account_has_a_tenant_of_its_own(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    await refresher.refresh(persons(endpoint, tenant="consumers"))
    assert endpoint.token_requests[0].path == "/consumers/oauth2/v2.0/token"


async def test_tenant_not_named_is_anyones(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    await refresher.refresh(persons(endpoint, tenant="", authority=endpoint.url + "/"))
    assert endpoint.token_requests[0].path == "/common/oauth2/v2.0/token"


async def test_named_token_endpoint_needs_no_discovery(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    url = f"{endpoint.url}/somewhere/token"
    grant = persons(endpoint, token_endpoint=url, authority="", tenant="")
    assert (await refresher.refresh(grant)).access_token
    assert [one.path for one in endpoint.requests] == ["/somewhere/token"]


async def test_further_parameters_are_sent(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    await refresher.refresh(persons(endpoint, parameters=(("claims", "a & b"),)))
    assert endpoint.token_requests[0].form["claims"] == "a & b"


async def test_replaced_refresh_token_is_told(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    endpoint.rotates = endpoint.detects_reuse = True
    first = await refresher.refresh(persons(endpoint))
    assert first.refresh_token not in ("", REFRESH_TOKEN)
    newer = replace(persons(endpoint), refresh_token=first.refresh_token)
    assert (await refresher.refresh(newer)).access_token == endpoint.issued[1]
    with pytest.raises(GrantRevoked):
        await refresher.refresh(persons(endpoint))


@pytest.mark.parametrize("odd", ["3599", None, "soon", 1e308, [], -1])
async def test_odd_answers_cost_no_token(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, odd: object
) -> None:
    body = {"access_token": "at", "expires_in": odd, "refresh_token": "rt-2", "id_token": "no.jwt"}
    endpoint.will(answer({**body, "client_info": "garbled"}))
    issued = await refresher.refresh(persons(endpoint))
    assert (issued.access_token, issued.refresh_token) == ("at", "rt-2")
    assert issued.lifetime_seconds > 0


async def test_nobody_signed_in_yet(endpoint: TokenEndpoint, refresher: OutlookRefresher) -> None:
    with pytest.raises(GrantRevoked, match=f"no one has signed in yet: .* login {MAILBOX}"):
        await refresher.refresh(replace(persons(endpoint), refresh_token=""))
    assert endpoint.requests == []


async def test_grant_microsoft_does_not_know_is_the_operators(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    with pytest.raises(TokenEndpointRefused, match="service_account"):
        await refresher.refresh(persons(endpoint, grant_type=GrantType.SERVICE_ACCOUNT))


@pytest.mark.parametrize(("given", "kind", "words"), FAILURES)
async def test_trouble_is_told_for_what_it_is(
    endpoint: TokenEndpoint,
    threads: ThreadPoolExecutor,
    given: Answer,
    kind: type[TokenError],
    words: str,
) -> None:
    endpoint.will(given)
    seconds = SHORT_SECONDS if given.manner != "whole" else PATIENCE_SECONDS
    with pytest.raises(TokenError) as raised:
        await OutlookRefresher(threads, seconds).refresh(persons(endpoint))
    assert type(raised.value) is kind
    assert words in str(raised.value)
    assert len(endpoint.token_requests) <= 1


@pytest.mark.parametrize(
    "given",
    [
        error("invalid_grant", "AADSTS65001: consent is missing"),  # msal: for 60 s
        error("invalid_client", "AADSTS7000222: expired", 401),
        answer({}, 429, {"Retry-After": "3000"}),  # msal: for 3000 s
        answer({}, 503),
    ],
)
async def test_mended_trouble_is_over_at_once(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, given: Answer
) -> None:
    endpoint.will(given)
    with pytest.raises(TokenError):
        await refresher.refresh(persons(endpoint))
    assert (await refresher.refresh(persons(endpoint))).access_token == endpoint.issued[0]


async def test_retry_after_is_told(endpoint: TokenEndpoint, refresher: OutlookRefresher) -> None:
    endpoint.will(answer({}, 429, {"Retry-After": "7"}))
    with pytest.raises(TokenEndpointUnavailable) as raised:
        await refresher.refresh(persons(endpoint))
    assert raised.value.retry_after_seconds == 7.0


async def test_error_keeps_its_words_for_the_log(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    endpoint.will(error("invalid_grant", "AADSTS50173: revoked.", suberror="bad_token"))
    with pytest.raises(GrantRevoked, match=r"\(bad_token\): AADSTS50173: revoked\.") as raised:
        await refresher.refresh(persons(endpoint))
    assert raised.value.oauth_error == "invalid_grant"


async def test_errors_quote_no_secret(endpoint: TokenEndpoint, refresher: OutlookRefresher) -> None:
    endpoint.clients["client-1"] = "another"  # the endpoint then quotes what it was sent
    with pytest.raises(TokenEndpointRefused) as raised:
        await refresher.refresh(persons(endpoint))
    endpoint.will(error("invalid_grant", f"Unknown {REFRESH_TOKEN}"))
    with pytest.raises(GrantRevoked) as raised_too:
        await refresher.refresh(persons(endpoint))
    texts = [repr(one.value) + str(one.value) for one in (raised, raised_too)]
    assert not any(secret in text for secret in (SECRET, REFRESH_TOKEN) for text in texts)
    assert all(one.value.__cause__ is None for one in (raised, raised_too))


async def test_answers_are_not_logged(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    issued = await refresher.refresh(persons(endpoint))
    endpoint.will(answer(b'{"access_token": "at-broken-json'))
    with pytest.raises(TokenEndpointUnavailable):
        await refresher.refresh(persons(endpoint))
    secrets = (issued.access_token, REFRESH_TOKEN, SECRET, "at-broken-json")
    assert not any(secret in caplog.text for secret in secrets)


async def test_certificate_of_another_authority_gets_no_secret(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    await refresher.refresh(persons(endpoint))
    asked = len(endpoint.requests)
    with pytest.raises(TokenEndpointUnavailable, match="not trusted"):
        await refresher.refresh(persons(endpoint, ca_file=other))
    assert len(endpoint.requests) == asked


async def test_authority_that_does_not_resolve_is_transient(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    with pytest.raises(TokenEndpointUnavailable, match=r"login\.invalid does not resolve"):
        await refresher.refresh(persons(endpoint, authority="https://login.invalid"))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (
            error("invalid_tenant", "AADSTS90002: Tenant 'x' not found."),
            TokenEndpointRefused,
            "AADSTS90002",
        ),
        (answer({}, 503, {"Retry-After": "9"}), TokenEndpointUnavailable, "HTTP 503"),
        (answer(b"<html>"), TokenEndpointUnavailable, "not a JSON object"),
        (answer({"issuer": "https://x"}), TokenEndpointRefused, "msal: KeyError"),
        (HANGS, TokenEndpointUnavailable, "no answer in time"),
    ],
)
async def test_trouble_with_the_metadata_is_over_once_it_is_mended(
    endpoint: TokenEndpoint,
    threads: ThreadPoolExecutor,
    given: Answer,
    kind: type[TokenError],
    words: str,
) -> None:
    endpoint.will(given, to="discovery")
    refresher = OutlookRefresher(threads, SHORT_SECONDS if given is HANGS else PATIENCE_SECONDS)
    with pytest.raises(TokenError, match=words) as raised:
        await refresher.refresh(persons(endpoint))
    assert type(raised.value) is kind
    assert (await refresher.refresh(persons(endpoint))).access_token


async def test_metadata_are_asked_for_once(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    for _ in range(3):
        await refresher.refresh(persons(endpoint))
    paths = [one.path for one in endpoint.requests]
    assert (paths.count(DISCOVERY), paths.count(TOKENS)) == (1, 3)


async def test_metadata_are_for_those_who_trust_the_same(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, tmp_path: Path
) -> None:
    """They name where the secrets go."""
    other = tmp_path / "ca.pem"
    other.write_bytes(endpoint.ca_file.read_bytes())
    for ca_file in (endpoint.ca_file, other):
        await refresher.refresh(persons(endpoint, ca_file=ca_file))
    assert [one.path for one in endpoint.requests].count(DISCOVERY) == 2


async def test_metadata_that_name_plain_http_get_no_secret(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    endpoint.metadata["token_endpoint"] = "http://login.example/token"
    with pytest.raises(TokenEndpointRefused):
        await refresher.refresh(persons(endpoint))


@pytest.mark.parametrize("base", ["http://localhost:9", "nonsense"])
async def test_authority_without_tls_is_the_operators(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, base: str
) -> None:
    with pytest.raises(TokenEndpointRefused):
        await refresher.refresh(persons(endpoint, authority=base))


async def test_mailboxes_are_refreshed_side_by_side(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    endpoint.will(HANGS)
    held_up = asyncio.create_task(refresher.refresh(persons(endpoint)))
    await until(lambda: len(endpoint.token_requests) == 1)
    others = await asyncio.gather(*(refresher.refresh(persons(endpoint)) for _ in range(5)))
    assert {one.access_token for one in others} == set(endpoint.issued)
    endpoint.release()
    with pytest.raises(TokenEndpointUnavailable):
        await held_up


async def test_application_gets_a_token_with_its_secret(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    issued = await refresher.refresh(applications(endpoint))
    assert (issued.access_token, issued.refresh_token) == (endpoint.issued[0], "")
    form = endpoint.token_requests[0].form
    assert (form["grant_type"], form["client_secret"]) == ("client_credentials", SECRET)
    assert form["scope"] == "https://outlook.office365.com/.default"
    assert [one.path for one in endpoint.requests] == [DISCOVERY, TOKENS]


async def test_applications_token_is_a_new_one_each_time(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    """msal would give out the one it has until it expires, refused by the provider or not."""
    tokens = [(await refresher.refresh(applications(endpoint))).access_token for _ in range(3)]
    assert tokens == endpoint.issued
    assert len(set(tokens)) == 3


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def certificate(authority: trustme.CA) -> trustme.LeafCert:
    return authority.issue_cert("relay.example", key_type=trustme.KeyType.RSA)


async def test_application_gets_a_token_with_its_certificate(
    endpoint: TokenEndpoint,
    refresher: OutlookRefresher,
    certificate: trustme.LeafCert,
    tmp_path: Path,
) -> None:
    leaf = certificate.cert_chain_pems[0].bytes()
    endpoint.certificates["client-1"] = leaf
    pem = tmp_path / "relay.pem"
    for blocks in (
        [certificate.private_key_pem.bytes(), leaf],
        [leaf, certificate.private_key_pem.bytes()],
    ):
        pem.write_bytes(b"\n".join([b"Bag Attributes", *blocks]))
        grant = applications(endpoint, certificate=pem, client_secret="")
        assert (await refresher.refresh(grant)).access_token
    form = endpoint.token_requests[0].form
    assert "client_secret" not in form
    header = jwt.get_unverified_header(form["client_assertion"])
    assert header["alg"] == "PS256"
    assert "x5t#S256" in header
    assert endpoint.claims[0]["sub"] == "client-1"
    thumbprint = x509.load_pem_x509_certificate(leaf).fingerprint(hashes.SHA256())
    assert jwt.utils.base64url_decode(header["x5t#S256"]) == thumbprint


async def test_certificate_goes_with_a_persons_grant_too(
    endpoint: TokenEndpoint,
    refresher: OutlookRefresher,
    certificate: trustme.LeafCert,
    tmp_path: Path,
) -> None:
    endpoint.certificates["client-1"] = certificate.cert_chain_pems[0].bytes()
    pem = tmp_path / "relay.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    grant = persons(endpoint, certificate=pem, client_secret="")
    assert (await refresher.refresh(grant)).access_token
    assert endpoint.token_requests[0].form["refresh_token"] == REFRESH_TOKEN


async def test_unknown_certificate_is_the_operators(
    endpoint: TokenEndpoint,
    refresher: OutlookRefresher,
    certificate: trustme.LeafCert,
    tmp_path: Path,
) -> None:
    pem = tmp_path / "relay.pem"
    certificate.private_key_and_cert_chain_pem.write_to_path(str(pem))
    with pytest.raises(TokenEndpointRefused, match="invalid_client: unknown key"):
        await refresher.refresh(applications(endpoint, certificate=pem))


async def test_unusable_certificate_is_the_operators(
    endpoint: TokenEndpoint,
    refresher: OutlookRefresher,
    certificate: trustme.LeafCert,
    key: rsa.RSAPrivateKey,
    tmp_path: Path,
) -> None:
    leaf = certificate.cert_chain_pems[0].bytes()
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )
    broken = b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    pem = tmp_path / "relay.pem"
    grant = applications(endpoint, certificate=pem)
    for content, words in (
        (None, "cannot be read: No such file"),
        (b"\xff\xfe", "is not PEM"),
        (leaf, "does not hold both"),
        (locked, "does not hold both"),
        (locked + leaf, "msal: "),
        (broken + leaf, "msal: "),
    ):
        if content is not None:
            pem.write_bytes(content)
        with pytest.raises(TokenEndpointRefused, match=words) as raised:
            await refresher.refresh(grant)
        assert "c2VjcmV0" not in str(raised.value)
    assert endpoint.token_requests == []


@pytest.mark.parametrize("tenant", ["", "common", "organizations", "consumers"])
async def test_application_needs_a_tenant(
    endpoint: TokenEndpoint, refresher: OutlookRefresher, tenant: str
) -> None:
    with pytest.raises(TokenEndpointRefused, match="tenant"):
        await refresher.refresh(applications(endpoint, tenant=tenant))


async def test_application_needs_a_secret_or_a_certificate(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    with pytest.raises(TokenEndpointRefused, match="client_secret or a certificate"):
        await refresher.refresh(applications(endpoint, client_secret=""))


async def test_application_without_a_right_is_the_operators(
    endpoint: TokenEndpoint, refresher: OutlookRefresher
) -> None:
    """Nobody signed in, so nobody could do it again."""
    endpoint.will(error("invalid_grant", "AADSTS700082"))
    with pytest.raises(TokenEndpointRefused):
        await refresher.refresh(applications(endpoint))
