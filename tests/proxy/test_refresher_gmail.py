"""Google's token endpoint as google-auth asks it, for people and for service accounts."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
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
from xoauth2_proxy.oauth.refreshers.gmail import GmailRefresher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

MAILBOX = "someone@gmail.com"
ROBOT = "relay@project.iam.gserviceaccount.com"
REFRESH_TOKEN = "1//0g-a-refresh-token"
SECRET = "GOCSPX-a-client-secret"
SHORT_SECONDS = 0.4


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def refresher(threads: ThreadPoolExecutor) -> GmailRefresher:
    return GmailRefresher(threads, PATIENCE_SECONDS)


@pytest.fixture
async def endpoint(authority: trustme.CA) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority, clients={"client-1": SECRET}) as endpoint:
        endpoint.grants(REFRESH_TOKEN)
        yield endpoint


def persons(endpoint: TokenEndpoint) -> Grant:
    return Grant(
        mailbox=MAILBOX,
        refresh_token=REFRESH_TOKEN,
        client=OAuthClient(
            client_id="client-1",
            client_secret=SECRET,
            token_endpoint=endpoint.token_url,
            ca_file=endpoint.ca_file,
        ),
    )


@pytest.fixture(scope="module")
def robot_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def robots(endpoint: TokenEndpoint, robot_key: rsa.RSAPrivateKey, tmp_path: Path) -> Grant:
    """The right of a service account to act for the mailbox."""
    endpoint.service_accounts[ROBOT] = robot_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    endpoint.mailboxes.add(MAILBOX)
    key_file = tmp_path / "robot.json"
    key_file.write_text(json.dumps(key_document(robot_key)))
    client = OAuthClient(
        grant_type=GrantType.SERVICE_ACCOUNT,
        service_account=key_file,
        token_endpoint=endpoint.token_url,
        ca_file=endpoint.ca_file,
    )
    return Grant(mailbox=MAILBOX, client=client)


def key_document(key: rsa.RSAPrivateKey) -> dict[str, str]:
    """What Google's console hands out."""
    private_key = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "type": "service_account",
        "client_email": ROBOT,
        "private_key_id": "key-1",
        "private_key": private_key.decode(),
        "token_uri": "https://oauth2.googleapis.com/token",
    }


async def test_refresh_token_gets_an_access_token(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    endpoint.lifetime_seconds = 3599
    issued = await refresher.refresh(persons(endpoint))
    assert (issued.access_token, issued.lifetime_seconds) == (endpoint.issued[0], 3599.0)
    assert (issued.refresh_token, issued.refresh_token_lifetime_seconds) == ("", 0.0)
    assert endpoint.requests[0].form == {
        "grant_type": "refresh_token",
        "refresh_token": REFRESH_TOKEN,
        "client_id": "client-1",
        "client_secret": SECRET,
    }


async def test_client_without_a_secret_gets_one_too(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    endpoint.clients["client-1"] = ""
    grant = persons(endpoint)
    grant = replace(grant, client=replace(grant.client, client_secret=""))
    assert (await refresher.refresh(grant)).access_token


async def test_further_parameters_are_sent(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    grant = persons(endpoint)
    more = (("audience", "mail & more"), ("prompt", "none"))
    await refresher.refresh(replace(grant, client=replace(grant.client, parameters=more)))
    assert endpoint.requests[0].form["audience"] == "mail & more"
    assert endpoint.requests[0].form["refresh_token"] == REFRESH_TOKEN


async def test_replaced_refresh_token_is_told(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    endpoint.rotates = endpoint.detects_reuse = True
    first = await refresher.refresh(persons(endpoint))
    assert first.refresh_token not in ("", REFRESH_TOKEN)
    newer = replace(persons(endpoint), refresh_token=first.refresh_token)
    assert (await refresher.refresh(newer)).access_token == endpoint.issued[1]
    with pytest.raises(GrantRevoked):
        await refresher.refresh(persons(endpoint))


async def test_short_life_of_a_refresh_token_is_told(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    """Seven days, while the project's consent screen is being tested."""
    endpoint.refresh_lifetime_seconds = 604799
    assert (await refresher.refresh(persons(endpoint))).refresh_token_lifetime_seconds == 604799


@pytest.mark.parametrize("odd", ["3599", None, "soon", 1e308, [], -1])
async def test_odd_lifetimes_cost_no_token(
    endpoint: TokenEndpoint, refresher: GmailRefresher, odd: object
) -> None:
    endpoint.will(answer({"access_token": "at", "expires_in": odd, "refresh_token": "rt-2"}))
    issued = await refresher.refresh(persons(endpoint))
    assert (issued.access_token, issued.refresh_token) == ("at", "rt-2")
    assert issued.lifetime_seconds > 0


async def test_nobody_signed_in_yet(endpoint: TokenEndpoint, refresher: GmailRefresher) -> None:
    with pytest.raises(GrantRevoked, match=f"no one has signed in yet: .* login {MAILBOX}"):
        await refresher.refresh(replace(persons(endpoint), refresh_token=""))
    assert endpoint.requests == []


async def test_grant_google_does_not_know_is_the_operators(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    grant = persons(endpoint)
    client = replace(grant.client, grant_type=GrantType.CLIENT_CREDENTIALS)
    with pytest.raises(TokenEndpointRefused, match="client_credentials"):
        await refresher.refresh(replace(grant, client=client))


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
        await GmailRefresher(threads, seconds).refresh(persons(endpoint))
    assert type(raised.value) is kind
    assert words in str(raised.value)
    # google-auth would try again, and sleep; that is the token source's to decide.
    assert len(endpoint.requests) <= 1


async def test_trouble_is_not_remembered(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    endpoint.will(answer({}, 503, {"Retry-After": "7"}))
    with pytest.raises(TokenEndpointUnavailable) as raised:
        await refresher.refresh(persons(endpoint))
    assert raised.value.retry_after_seconds == 7.0
    assert (await refresher.refresh(persons(endpoint))).access_token


async def test_error_keeps_its_word_for_the_log(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    endpoint.will(error("invalid_grant", "Bad Request", error_subtype="invalid_rapt"))
    with pytest.raises(GrantRevoked, match=r"invalid_grant \(invalid_rapt\): Bad") as raised:
        await refresher.refresh(persons(endpoint))
    assert raised.value.oauth_error == "invalid_grant"


async def test_errors_quote_no_secret(endpoint: TokenEndpoint, refresher: GmailRefresher) -> None:
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
    endpoint: TokenEndpoint, refresher: GmailRefresher, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    issued = await refresher.refresh(persons(endpoint))
    endpoint.will(answer(b'{"access_token": "at-broken-json'))
    with pytest.raises(TokenEndpointUnavailable):
        await refresher.refresh(persons(endpoint))
    secrets = (issued.access_token, REFRESH_TOKEN, SECRET, "at-broken-json")
    assert not any(secret in caplog.text for secret in secrets)


async def test_certificate_of_another_authority_gets_no_secret(
    endpoint: TokenEndpoint, refresher: GmailRefresher, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    grant = persons(endpoint)
    with pytest.raises(TokenEndpointUnavailable, match="not trusted"):
        await refresher.refresh(replace(grant, client=replace(grant.client, ca_file=other)))
    assert endpoint.requests == []


async def test_endpoint_that_does_not_resolve_is_transient(
    endpoint: TokenEndpoint, refresher: GmailRefresher
) -> None:
    grant = persons(endpoint)
    client = replace(grant.client, token_endpoint="https://oauth2.invalid/token")
    with pytest.raises(TokenEndpointUnavailable, match=r"oauth2\.invalid does not resolve"):
        await refresher.refresh(replace(grant, client=client))


async def test_mailboxes_are_refreshed_side_by_side(
    endpoint: TokenEndpoint, threads: ThreadPoolExecutor
) -> None:
    refresher = GmailRefresher(threads, PATIENCE_SECONDS)
    endpoint.will(HANGS)
    held_up = asyncio.create_task(refresher.refresh(persons(endpoint)))
    await until(lambda: len(endpoint.requests) == 1)
    others = await asyncio.gather(*(refresher.refresh(persons(endpoint)) for _ in range(5)))
    assert {one.access_token for one in others} == set(endpoint.issued)
    endpoint.release()
    with pytest.raises(TokenEndpointUnavailable):
        await held_up


async def test_service_account_acts_for_the_mailbox(
    endpoint: TokenEndpoint, refresher: GmailRefresher, robots: Grant
) -> None:
    issued = await refresher.refresh(robots)
    assert (issued.access_token, issued.refresh_token) == (endpoint.issued[0], "")
    claims = endpoint.claims[0]
    assert (claims["iss"], claims["sub"]) == (ROBOT, MAILBOX)
    assert claims["scope"] == "https://mail.google.com/"
    assert len(endpoint.requests) == 1


async def test_service_account_asks_for_configured_scopes(
    endpoint: TokenEndpoint, refresher: GmailRefresher, robots: Grant
) -> None:
    scopes = ("https://mail.google.com/", "email")
    await refresher.refresh(replace(robots, client=replace(robots.client, scopes=scopes)))
    assert endpoint.claims[0]["scope"] == "https://mail.google.com/ email"


async def test_service_account_that_may_not_act_is_the_operators(
    endpoint: TokenEndpoint, refresher: GmailRefresher, robots: Grant
) -> None:
    """Nobody signed in, so nobody could do it again."""
    with pytest.raises(TokenEndpointRefused, match="invalid_grant: Invalid email") as raised:
        await refresher.refresh(replace(robots, mailbox="stranger@gmail.com"))
    assert raised.value.oauth_error == "invalid_grant"


async def test_renewed_key_file_counts_at_once(
    endpoint: TokenEndpoint, refresher: GmailRefresher, robots: Grant
) -> None:
    key_file = robots.client.service_account
    assert key_file is not None
    good = key_file.read_text()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    key_file.write_text(json.dumps(key_document(other)))
    with pytest.raises(TokenEndpointRefused, match="Invalid JWT Signature"):
        await refresher.refresh(robots)
    key_file.write_text(good)
    assert (await refresher.refresh(robots)).access_token


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        ("", "is not JSON"),
        ("[]", "is not a service account's key file"),
        ('{"type": "authorized_user", "refresh_token": "1//secret"}', "is not a service account"),
        (
            json.dumps(
                {
                    "client_email": ROBOT,
                    "private_key": "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----",
                }
            ),
            "is not a service account's key file",
        ),
    ],
)
async def test_unusable_key_file_is_the_operators(
    endpoint: TokenEndpoint,
    refresher: GmailRefresher,
    robots: Grant,
    content: str | None,
    words: str,
) -> None:
    key_file = robots.client.service_account
    assert key_file is not None
    key_file.unlink()
    if content is not None:
        key_file.write_text(content)
    with pytest.raises(TokenEndpointRefused, match=words) as raised:
        await refresher.refresh(robots)
    assert "secret" not in str(raised.value)
    assert endpoint.requests == []


async def test_service_account_without_a_key_file_is_the_operators(
    refresher: GmailRefresher,
) -> None:
    client = OAuthClient(grant_type=GrantType.SERVICE_ACCOUNT)
    with pytest.raises(TokenEndpointRefused, match="service_account"):
        await refresher.refresh(Grant(mailbox=MAILBOX, client=client))
