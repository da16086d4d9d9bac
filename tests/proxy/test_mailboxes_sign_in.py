"""Signing a mailbox in from the admin pages, while its settings may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.identity_server import NATIVE
from tests.support.operated import Operated, operated
from tests.support.person import Person
from tests.support.sign_ins import ALICE
from xoauth2_proxy.errors import SignInRefused
from xoauth2_proxy.mailboxes.interface import UnknownMailbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.identity_server import IdentityProvider
    from xoauth2_proxy.accounts.accounts import Account

pytest_plugins = ["tests.support.identity"]

REDIRECT = "http://127.0.0.1:4/"


def document(provider: IdentityProvider, **changes: object) -> dict[str, Any]:
    upstream = {"host": "localhost", "port": 2600}
    entry = {"refresher": "oidc", "upstream": upstream, "ca_file": str(provider.ca_file)}
    mailbox = {
        "email": ALICE,
        "provider": "own",
        "password": "opens sesame",
        "client_id": NATIVE,
        "issuer": provider.issuer,
        "scopes": "smtp",
    }
    return {"accounts": [mailbox | changes], "providers": {"own": entry}}


@pytest.fixture
async def relay(tmp_path: Path, identity_provider: IdentityProvider) -> AsyncIterator[Operated]:
    async with operated(tmp_path, document(identity_provider)) as relay:
        yield relay


async def answer_of(relay: Operated, provider: IdentityProvider) -> dict[str, str]:
    attempt = await relay.mailboxes.begin_sign_in(ALICE, "own", REDIRECT)
    async with Person(provider) as person:
        return dict(parse_qsl(urlsplit(await person.sign_in(attempt.url, ALICE)).query))


async def test_a_mailbox_is_signed_in(relay: Operated, identity_provider: IdentityProvider) -> None:
    answer = await answer_of(relay, identity_provider)
    await relay.mailboxes.reload()
    mailbox = await relay.mailboxes.finish_sign_in(answer)
    assert mailbox.account.key == ALICE
    assert relay.forgotten == [ALICE]
    assert await relay.store.load(ALICE)


@pytest.mark.parametrize(
    "change",
    [
        {"oauth_token_url": "https://elsewhere.example/token"},
        {"client_id": "another"},
        {"sign_in_as": "somebody else"},
        {"upstream": {"host": "127.0.0.1"}},
    ],
)
async def test_a_sign_in_is_for_the_settings_that_it_began_with(
    relay: Operated, identity_provider: IdentityProvider, change: dict[str, object]
) -> None:
    answer = await answer_of(relay, identity_provider)
    relay.write(document(identity_provider, **change))
    await relay.mailboxes.reload()
    with pytest.raises(SignInRefused, match="have changed since this sign-in began"):
        await relay.mailboxes.finish_sign_in(answer)
    assert await relay.store.load(ALICE) is None
    assert relay.proved == []


async def test_settings_that_change_while_the_mail_server_is_asked_count_too(
    tmp_path: Path, identity_provider: IdentityProvider
) -> None:
    """The provider does not name who signed in, so the mail server is asked."""

    endpoints: dict[str, object] = {
        "authorization_url": identity_provider.authorization_endpoint,
        "oauth_token_url": identity_provider.token_endpoint,
        "scopes": "smtp offline_access",
    }

    class Slow(Operated):
        async def log_in(self, account: Account, access_token: str) -> None:
            self.write(document(identity_provider, **endpoints, client_id="another"))
            await self.mailboxes.reload()

    nameless = document(identity_provider, **endpoints)
    del nameless["accounts"][0]["issuer"]
    relay = Slow(tmp_path, nameless, {})
    try:
        answer = await answer_of(relay, identity_provider)
        with pytest.raises(SignInRefused, match="have changed"):
            await relay.mailboxes.finish_sign_in(answer)
        assert await relay.store.load(ALICE) is None
    finally:
        await relay.close()


async def test_a_mailbox_that_was_removed_meanwhile_is_not_signed_in(
    relay: Operated, identity_provider: IdentityProvider
) -> None:
    answer = await answer_of(relay, identity_provider)
    other = document(identity_provider, email="other@example.com")
    relay.write(other)
    await relay.mailboxes.reload()
    with pytest.raises(UnknownMailbox):
        await relay.mailboxes.finish_sign_in(answer)
    assert await relay.store.load(ALICE) is None
