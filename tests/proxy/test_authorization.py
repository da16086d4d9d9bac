"""Signing in at a real authorization server: what is asked, what is believed, what is refused."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from tests.support.identity_server import CONFIDENTIAL, CONFIDENTIAL_BASIC, NATIVE
from tests.support.person import Person
from tests.support.sign_ins import ALICE, MAIL_SCOPES, account
from xoauth2_proxy.errors import (
    SignInRefused,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
)
from xoauth2_proxy.oauth.authorization import AuthorizationServer
from xoauth2_proxy.oauth.authorization.provider_profile import ProviderProfile
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.gmail import GmailRefresher
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher
from xoauth2_proxy.oauth.refreshers.outlook import OutlookRefresher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.identity_server import IdentityProvider
    from xoauth2_proxy.oauth.attempt import SignInResult
    from xoauth2_proxy.oauth.refreshers import Refresher

pytest_plugins = ["tests.support.identity"]

REDIRECT = "http://127.0.0.1:4/"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def sign_in(
    server: AuthorizationServer, provider: IdentityProvider, who: str = ALICE
) -> SignInResult:
    attempt = await server.begin(REDIRECT)
    async with Person(provider) as person:
        return await server.finish(attempt, query(await person.sign_in(attempt.url, who)))


@pytest.mark.parametrize("kind", ["oidc", "gmail", "outlook"])
async def test_a_person_signs_in_and_is_known(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, kind: str
) -> None:
    signed_in = await sign_in(
        AuthorizationServer(account(identity_provider, kind=kind), threads), identity_provider
    )
    assert (signed_in.identity, signed_in.is_vouched) == (ALICE, True)
    assert signed_in.subject
    assert signed_in.issued.refresh_token
    assert signed_in.issued.lifetime_seconds == 3600
    assert MAIL_SCOPES[kind] in signed_in.issued.scope.split()
    assert identity_provider.counters().token_requests("authorization_code") == 1


@pytest.mark.parametrize("client_id", [CONFIDENTIAL_BASIC])
async def test_a_client_with_a_secret_shows_it(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, client_id: str
) -> None:
    server = AuthorizationServer(account(identity_provider, client_id=client_id), threads)
    assert (await sign_in(server, identity_provider)).identity == ALICE


@pytest.mark.parametrize("client_id", [NATIVE, CONFIDENTIAL])
@pytest.mark.parametrize(
    ("kind", "refresher"),
    [("gmail", GmailRefresher), ("outlook", OutlookRefresher), ("oidc", OidcRefresher)],
)
async def test_what_a_person_granted_the_refresher_can_use(
    identity_provider: IdentityProvider,
    threads: ThreadPoolExecutor,
    kind: str,
    refresher: Callable[[ThreadPoolExecutor], Refresher],
    client_id: str,
) -> None:
    mine = account(
        identity_provider,
        kind=kind,
        client_id=client_id,
        token_endpoint="" if kind == "outlook" else identity_provider.token_endpoint,
    )
    granted = (await sign_in(AuthorizationServer(mine, threads), identity_provider)).issued
    grant = Grant(mailbox=ALICE, client=mine.oauth, refresh_token=granted.refresh_token)
    renewed = await refresher(threads).refresh(grant)
    assert renewed.access_token != granted.access_token
    assert renewed.refresh_token not in ("", granted.refresh_token)


async def test_a_configured_token_endpoint_is_shown_the_secret_in_the_body(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(
        account(
            identity_provider,
            client_id=CONFIDENTIAL,
            token_endpoint=identity_provider.token_endpoint,
        ),
        threads,
    )
    assert (await sign_in(server, identity_provider)).identity == ALICE


async def test_the_request_is_protected_and_names_the_mailbox(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt, other = await server.begin(REDIRECT), await server.begin(REDIRECT)
    asked = query(attempt.url)
    assert asked["code_challenge_method"] == "S256"
    assert asked["code_challenge"] not in (
        attempt.code_verifier,
        query(other.url)["code_challenge"],
    )
    assert asked["state"] == attempt.state != other.state
    assert asked["nonce"] == attempt.nonce != other.nonce
    assert asked["login_hint"] == ALICE
    assert asked["redirect_uri"] == REDIRECT
    assert 43 <= len(attempt.code_verifier) <= 128
    for secret in (attempt.state, attempt.code_verifier, attempt.nonce):
        assert secret not in repr(attempt)


@pytest.mark.parametrize(
    ("kind", "asked_for", "not_asked_for"),
    [
        ("oidc", {"prompt": ["consent"]}, {"access_type"}),
        ("gmail", {"prompt": ["consent"], "access_type": ["offline"]}, set()),
        ("outlook", {}, {"prompt", "access_type"}),
    ],
)
async def test_each_provider_is_asked_for_lasting_rights_in_its_way(
    identity_provider: IdentityProvider,
    threads: ThreadPoolExecutor,
    kind: str,
    asked_for: dict[str, list[str]],
    not_asked_for: set[str],
) -> None:
    server = AuthorizationServer(account(identity_provider, kind=kind), threads)
    asked = parse_qs(urlsplit((await server.begin(REDIRECT)).url).query)
    assert asked_for.items() <= asked.items()
    assert not_asked_for.isdisjoint(asked)
    scopes = asked["scope"][0].split()
    assert {"openid", "email", MAIL_SCOPES[kind]} <= set(scopes)
    assert ("offline_access" in scopes) == (kind != "gmail")


async def test_a_provider_without_metadata_is_asked_for_its_own_scopes_only(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    yahoo = account(
        identity_provider,
        issuer="",
        scopes=("mail-w",),
        authorization_endpoint=identity_provider.authorization_endpoint,
        token_endpoint=identity_provider.token_endpoint,
    )
    asked = query((await AuthorizationServer(yahoo, threads).begin(REDIRECT)).url)
    assert asked["scope"] == "mail-w"
    assert "nonce" not in asked
    assert asked["code_challenge_method"] == "S256"


async def test_an_account_without_endpoints_says_what_is_missing(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    with pytest.raises(TokenEndpointRefused, match="issuer"):
        await AuthorizationServer(account(identity_provider, issuer=""), threads).begin(REDIRECT)


async def test_targets_of_the_configuration_are_named_at_once(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    parameters = (("resource", identity_provider.audience), ("verify", "no"))
    server = AuthorizationServer(account(identity_provider, parameters=parameters), threads)
    attempt = await server.begin(REDIRECT)
    assert query(attempt.url)["resource"] == identity_provider.audience
    assert "verify" not in query(attempt.url)
    assert (await sign_in(server, identity_provider)).identity == ALICE


async def test_a_code_is_good_once(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt = await server.begin(REDIRECT)
    async with Person(identity_provider) as person:
        answer = query(await person.sign_in(attempt.url, ALICE))
    await server.finish(attempt, answer)
    with pytest.raises(SignInRefused, match="sign in again") as caught:
        await server.finish(attempt, answer)
    assert answer["code"] not in str(caught.value)


async def test_a_code_of_another_attempt_is_worth_nothing(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt, other = await server.begin(REDIRECT), await server.begin(REDIRECT)
    async with Person(identity_provider) as person:
        answer = query(await person.sign_in(attempt.url, ALICE))
    with pytest.raises(SignInRefused, match="state"):
        await server.finish(other, answer)
    assert identity_provider.counters().token_requests() == 0
    # Even with the right state, PKCE ties the code to the attempt that asked for it.
    with pytest.raises(SignInRefused, match="invalid_grant"):
        await server.finish(other, answer | {"state": other.state})


async def test_an_answer_of_another_issuer_is_refused_before_the_code_is_sent(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt = await server.begin(REDIRECT)
    async with Person(identity_provider) as person:
        answer = query(await person.sign_in(attempt.url, ALICE))
    assert answer["iss"] == identity_provider.issuer
    with pytest.raises(SignInRefused, match="iss"):
        await server.finish(attempt, answer | {"iss": "https://elsewhere.example"})
    del answer["iss"]
    for nameless in (answer, {"state": attempt.state, "error": "access_denied"}):
        with pytest.raises(SignInRefused, match="its iss is missing"):
            await server.finish(attempt, nameless)
    assert identity_provider.counters().token_requests() == 0


async def test_a_code_that_was_copied_by_itself_needs_no_issuer(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt, other = await server.begin(REDIRECT), await server.begin(REDIRECT)
    async with Person(identity_provider) as person:
        code = query(await person.sign_in(attempt.url, ALICE))["code"]
        stranger = query(await person.sign_in(attempt.url, ALICE))["code"]
    assert (await server.finish_with_code(attempt, code)).identity == ALICE
    with pytest.raises(SignInRefused, match="invalid_grant"):
        await server.finish_with_code(other, stranger)


@pytest.mark.parametrize(
    ("kind", "settings", "is_multi_tenant"),
    [
        ("outlook", {"tenant": "common"}, True),
        ("outlook", {"tenant": "Organizations"}, True),
        ("outlook", {"tenant": "consumers"}, True),
        ("outlook", {"tenant": ""}, True),
        ("outlook", {"tenant": "example.com"}, False),
        ("oidc", {}, False),
        ("gmail", {}, False),
    ],
)
def test_nobody_vouches_for_the_names_of_organisations_left_open(
    identity_provider: IdentityProvider, kind: str, settings: dict[str, str], is_multi_tenant: bool
) -> None:
    mine = account(identity_provider, kind=kind, **settings)
    assert ProviderProfile(mine, {}).is_multi_tenant is is_multi_tenant
    # Whatever the refresher is called, the metadata of many organisations show it.
    assert ProviderProfile(
        mine, {"issuer": "https://login.example/{tenantid}/v2.0"}
    ).is_multi_tenant


@pytest.mark.parametrize("says_no_to", ["login", "consent"])
async def test_a_denied_sign_in_says_so(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, says_no_to: str
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt = await server.begin(REDIRECT)
    async with Person(identity_provider) as person:
        if says_no_to == "login":
            end = await person.refuse_to_sign_in(attempt.url)
        else:
            end = await person.sign_in(attempt.url, ALICE, consents=False)
    with pytest.raises(SignInRefused, match="access_denied: The person declined"):
        await server.finish(attempt, query(end))


async def test_an_error_of_a_redirect_is_told_short_and_without_control_characters(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt = await server.begin(REDIRECT)
    answer = {"state": attempt.state, "error": "no\r\n\x1b[2J", "error_description": "x" * 9000}
    with pytest.raises(SignInRefused, match="says no") as caught:
        await server.finish(attempt, answer | {"iss": identity_provider.issuer})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


async def test_without_a_refresh_token_nobody_is_signed_in(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    identity_provider.set(issues_refresh_tokens=False)
    with pytest.raises(SignInRefused, match="offline_access"):
        await sign_in(AuthorizationServer(account(identity_provider), threads), identity_provider)


async def test_a_name_that_is_told_by_userinfo_only_is_asked_for(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    identity_provider.set(identity_in="userinfo")
    server = AuthorizationServer(account(identity_provider), threads)
    assert (await sign_in(server, identity_provider)).identity == ALICE


@pytest.mark.parametrize("behaviour", [{"identity_in": "none"}, {"email_verified": False}])
async def test_a_name_that_is_not_told_or_not_verified_stays_unknown(
    identity_provider: IdentityProvider,
    threads: ThreadPoolExecutor,
    behaviour: dict[str, bool | str],
) -> None:
    identity_provider.set(**behaviour)
    signed_in = await sign_in(
        AuthorizationServer(account(identity_provider), threads), identity_provider
    )
    assert signed_in.identity == ""
    assert signed_in.subject


async def test_google_is_signed_in_only_with_the_right_to_mail(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    wanted = (MAIL_SCOPES["gmail"], "https://www.googleapis.com/auth/unticked")
    google = account(identity_provider, kind="gmail", scopes=wanted)
    with pytest.raises(SignInRefused, match=r"auth/unticked: sign in again and tick its box"):
        await sign_in(AuthorizationServer(google, threads), identity_provider)


async def test_a_provider_that_is_away_is_told_as_such(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, unused_tcp_port: int
) -> None:
    away = account(identity_provider, issuer=f"https://127.0.0.1:{unused_tcp_port}/t1/v2.0")
    with pytest.raises(TokenEndpointUnavailable, match="refuses connections"):
        await AuthorizationServer(away, threads).begin(REDIRECT)


async def test_a_server_with_another_authoritys_certificate_is_not_spoken_to(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    with pytest.raises(TokenEndpointUnavailable, match="certificate"):
        await AuthorizationServer(account(identity_provider, ca_file=None), threads).begin(REDIRECT)


@pytest.mark.parametrize("kind", ["oidc", "outlook"])
async def test_a_person_signs_in_on_another_device(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, kind: str
) -> None:
    server = AuthorizationServer(account(identity_provider, kind=kind), threads)
    attempt = await server.begin_device()
    assert attempt.device_code not in repr(attempt)
    async with asyncio.TaskGroup() as tasks, Person(identity_provider) as person:
        waiting = tasks.create_task(server.finish_device(attempt))
        await person.approve_device(attempt.verification_uri, attempt.user_code, ALICE)
    assert waiting.result().identity == ALICE
    assert waiting.result().issued.refresh_token


async def test_a_device_that_is_denied_says_so(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    attempt = await server.begin_device()
    async with Person(identity_provider) as person:
        await person.approve_device(
            attempt.verification_uri, attempt.user_code, ALICE, consents=False
        )
    with pytest.raises(SignInRefused, match="declined"):
        await server.finish_device(attempt)


async def test_googles_device_flow_is_never_used(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider, kind="gmail"), threads)
    assert "device_authorization_endpoint" in await server.metadata()
    assert not server.profile.can_use_device
    with pytest.raises(SignInRefused, match="no scope for mail"):
        await server.begin_device()


async def test_a_revoked_refresh_token_is_worth_nothing_to_anyone(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    server = AuthorizationServer(account(identity_provider), threads)
    refresh_token = (await sign_in(server, identity_provider)).issued.refresh_token
    assert await server.revoke(refresh_token)
    assert await server.revoke(refresh_token)  # dead already


async def test_a_provider_without_revocation_says_so(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor
) -> None:
    yahoo = account(identity_provider, issuer="", token_endpoint=identity_provider.token_endpoint)
    assert not await AuthorizationServer(yahoo, threads).revoke("any")


@pytest.mark.parametrize(
    ("kind", "expected"), [("outlook", "http://localhost:8"), ("oidc", "http://127.0.0.1:8/")]
)
def test_the_redirect_has_the_host_that_the_provider_allows(
    identity_provider: IdentityProvider, threads: ThreadPoolExecutor, kind: str, expected: str
) -> None:
    server = AuthorizationServer(account(identity_provider, kind=kind), threads)
    assert server.profile.redirect_uri(8) == expected
