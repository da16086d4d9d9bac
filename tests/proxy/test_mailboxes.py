"""What an operator can do with mailboxes while the relay runs."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import argon2
import pytest

from tests.support.operated import FROM_FILE, Operated, gmail, operated, usual_document
from tests.support.waiting import until
from xoauth2_proxy.accounts.oauth_client import GrantType, OAuthClient
from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS
from xoauth2_proxy.errors import (
    ConfigError,
    GrantRevoked,
    SignInRefused,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenStoreUnavailable,
)
from xoauth2_proxy.mailboxes.additions import Proposal
from xoauth2_proxy.mailboxes.interface import (
    DefinedInFile,
    MailboxExists,
    NotSupported,
    ProviderInfo,
    UnknownMailbox,
)
from xoauth2_proxy.oauth.mailbox_status import State
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from xoauth2_proxy.mailboxes.additions import AddedMailbox, AdditionResult
    from xoauth2_proxy.oauth.stores import StoredGrant

NEW = "new@example.com"
OTHER = "other@example.com"
DEAD = GrantRevoked("expired or revoked", oauth_error="invalid_grant")
GONE = TokenEndpointUnavailable("no answer in time")


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Operated]:
    async with operated(tmp_path) as relay:
        yield relay


async def add(relay: Operated, *documents: dict[str, Any], **options: bool) -> AdditionResult:
    return await relay.mailboxes.add(
        [(f"[{number}]", Proposal(one, **options)) for number, one in enumerate(documents)]
    )


async def add_one(relay: Operated, document: dict[str, Any], **options: bool) -> AddedMailbox:
    result = await add(relay, document, **options)
    assert result.failed == []
    (added,) = result.added
    return added


async def stored(relay: Operated, email: str) -> StoredGrant:
    grant = await relay.store.load(email)
    assert grant is not None
    return grant


def files(relay: Operated) -> list[dict[str, Any]]:
    directory = relay.file.parent / "state" / "accounts"
    return [json.loads(one.read_bytes()) for one in sorted(directory.glob("*.json"))]


# Looking.


async def test_listing_tells_each_mailbox_and_where_it_is_written(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    found = await relay.mailboxes.listing()
    assert [(one.account.key, one.is_added) for one in found] == [(NEW, True), (FROM_FILE, False)]
    assert [one.status.state for one in found] == [State.OK, State.UNUSED]


async def test_a_mailbox_is_found_in_any_letter_case(relay: Operated) -> None:
    assert (await relay.mailboxes.find(FROM_FILE.upper())).account.key == FROM_FILE
    with pytest.raises(UnknownMailbox):
        await relay.mailboxes.find("nobody@example.com")


# Adding.


async def test_an_added_mailbox_is_in_force_at_once_with_the_token_it_was_tried_with(
    relay: Operated,
) -> None:
    added = await add_one(relay, gmail(NEW))
    assert (added.mailbox, added.is_new, added.password) == (NEW, True, "")
    assert relay.answers.asked == [(NEW, f"refresh-of-{NEW}")]
    token = await relay.tokens.token_for(relay.accounts[NEW])
    assert token.value == "access-1"
    assert len(relay.answers.asked) == 1
    assert (await stored(relay, NEW)).refresh_token == "rotated-1"


async def test_an_added_mailbox_is_there_after_a_restart(relay: Operated, tmp_path: Path) -> None:
    await add_one(relay, gmail(NEW))
    async with operated(tmp_path) as again:
        assert set(again.accounts) == {FROM_FILE, NEW}


async def test_a_mailbox_whose_token_is_refused_is_not_kept(relay: Operated) -> None:
    relay.answers.by_mailbox[NEW] = TokenEndpointRefused("no such client")
    result = await add(relay, gmail(NEW), gmail(OTHER))
    assert [one.mailbox for one in result.added] == [OTHER]
    assert [(email, str(error)) for email, error in result.failed] == [(NEW, "no such client")]
    assert set(relay.accounts) == {FROM_FILE, OTHER}
    assert [one["email"] for one in files(relay)] == [OTHER]
    assert await relay.store.load(NEW) is None


async def test_without_verification_nobody_is_asked(relay: Operated) -> None:
    await add_one(relay, gmail(NEW), verify=False)
    assert relay.answers.asked == []
    assert NEW in relay.accounts


async def test_a_mailbox_that_is_to_be_signed_in_needs_no_token_yet(relay: Operated) -> None:
    document = gmail(NEW)
    del document["refresh_token"]
    await add_one(relay, document)
    assert relay.answers.asked == []
    assert (await relay.mailboxes.find(NEW)).status.state is State.SIGN_IN_NEEDED


async def test_a_password_is_made_where_none_is_given_and_kept_as_a_hash(relay: Operated) -> None:
    document = gmail(NEW)
    del document["password"]
    first = await add_one(relay, document)
    second = await add_one(relay, gmail(OTHER, password="given by me"))
    assert len(first.password) >= 24
    assert second.password == ""
    kept = {one["email"]: one["password"] for one in files(relay)}
    assert argon2.PasswordHasher().verify(kept[NEW], first.password)
    assert argon2.PasswordHasher().verify(kept[OTHER], "given by me")


async def test_a_hash_is_kept_as_it_is(relay: Operated) -> None:
    hashed = argon2.PasswordHasher().hash("opens sesame")
    await add_one(relay, gmail(NEW, password=hashed))
    assert files(relay)[0]["password"] == hashed


async def test_everything_wrong_with_all_documents_is_told_and_nothing_added(
    relay: Operated,
) -> None:
    with pytest.raises(ConfigError) as caught:
        await add(
            relay,
            gmail(NEW),
            gmail("no address"),
            gmail(OTHER, provider="nowhere", colour="blue"),
            gmail(NEW.upper()),
        )
    assert {"[1].email", "[2].provider", "[2].colour", "[3].email"} <= {
        path for path, _ in caught.value.problems
    }
    assert set(relay.accounts) == {FROM_FILE}
    assert files(relay) == []
    assert relay.answers.asked == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", ["/bin/true"]),
        ("service_account", "/etc/passwd"),
        ("certificate", "/etc/passwd"),
        ("ca_file", "/etc/passwd"),
        ("refresh_token", {"file": "/etc/passwd"}),
        ("client_secret", "${HOME}"),
        ("password", {"file": "/etc/passwd"}),
        ("enabled", False),
    ],
)
async def test_an_account_from_the_network_runs_and_reads_nothing(
    relay: Operated, key: str, value: object
) -> None:
    with pytest.raises(ConfigError) as caught:
        await add(relay, gmail(NEW, **{key: value}))
    assert [path for path, _ in caught.value.problems if key in path]
    assert NEW not in relay.accounts


async def test_an_account_from_the_network_shows_the_providers_secret_to_nobody(
    tmp_path: Path,
) -> None:
    document = usual_document() | {
        "providers": {"gmail": {"client_id": "ours", "client_secret": "our secret"}}
    }
    theirs = {"email": NEW, "provider": "gmail", "refresh_token": "theirs"}
    async with operated(tmp_path, document) as relay:
        with pytest.raises(ConfigError):
            await add(relay, theirs | {"oauth_token_url": "https://evil.example/token"})
        assert relay.answers.asked == []


async def test_a_mailbox_that_is_there_is_replaced_only_if_that_was_meant(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    with pytest.raises(MailboxExists):
        await add(relay, gmail(NEW, client_id="another"))
    added = await add_one(relay, gmail(NEW, client_id="another"), overwrite=True)
    assert added.is_new is False
    assert relay.accounts[NEW].oauth.client_id == "another"
    assert len(files(relay)) == 1


async def test_a_mailbox_of_the_file_is_never_replaced(relay: Operated) -> None:
    with pytest.raises(DefinedInFile):
        await add(relay, gmail(FROM_FILE, client_id="another"), overwrite=True)
    assert relay.accounts[FROM_FILE].oauth.client_id == "a-client"


async def test_a_failed_replacement_leaves_the_grant_as_it_was(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    before = await stored(relay, NEW)
    relay.answers.by_mailbox[NEW] = DEAD
    result = await add(relay, gmail(NEW, refresh_token="another"), overwrite=True)
    assert [email for email, _ in result.failed] == [NEW]
    assert await stored(relay, NEW) == before
    assert relay.accounts[NEW].oauth.refresh_token == f"refresh-of-{NEW}"


async def test_a_replacement_goes_on_with_the_newest_refresh_token(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    await add_one(relay, gmail(NEW, password="another"), overwrite=True)
    assert relay.answers.asked[-1] == (NEW, "rotated-1")
    assert (await stored(relay, NEW)).refresh_token == "rotated-2"


async def test_a_refresh_token_replaced_on_trial_is_kept_before_anyone_needs_it(
    relay: Operated,
) -> None:
    """Others of the batch may still wait for their providers."""
    await add(relay, gmail(NEW), gmail(OTHER))
    before = (await stored(relay, NEW)).refresh_token
    held = relay.answers.held[OTHER] = asyncio.Event()
    adding = asyncio.create_task(add(relay, gmail(NEW), gmail(OTHER), overwrite=True))

    async def is_kept() -> bool:
        return (await stored(relay, NEW)).refresh_token != before

    await until(is_kept)
    assert not adding.done()
    await relay.tokens.refresh(relay.accounts[NEW])
    newest = await stored(relay, NEW)
    held.set()
    assert len((await adding).added) == 2
    assert await stored(relay, NEW) == newest


async def test_additions_at_the_same_time_lose_nothing(relay: Operated) -> None:
    emails = [f"mailbox{number}@example.com" for number in range(12)]
    await asyncio.gather(*(add_one(relay, gmail(email)) for email in emails))
    assert set(relay.accounts) == {FROM_FILE, *emails}
    assert len(files(relay)) == 12


async def test_of_two_additions_of_one_mailbox_one_succeeds(relay: Operated) -> None:
    relay.answers.may_answer.clear()
    first = asyncio.create_task(add(relay, gmail(NEW)))
    await relay.answers.is_asked.wait()
    with pytest.raises(MailboxExists):
        await add(relay, gmail(NEW.upper()))
    relay.answers.may_answer.set()
    assert len((await first).added) == 1
    assert len(relay.answers.asked) == 1


async def test_a_batch_asks_few_at_a_time(relay: Operated) -> None:
    await add(relay, *(gmail(f"mailbox{number}@example.com") for number in range(12)))
    assert len(relay.answers.asked) == 12
    assert 2 <= relay.answers.most_at_once <= 4


async def test_nothing_is_kept_where_the_configuration_has_become_wrong(relay: Operated) -> None:
    relay.answers.may_answer.clear()
    adding = asyncio.create_task(add(relay, gmail(NEW)))
    await relay.answers.is_asked.wait()
    relay.file.write_text("{")
    relay.answers.may_answer.set()
    with pytest.raises(ConfigError):
        await adding
    assert set(relay.accounts) == {FROM_FILE}
    assert files(relay) == []


# Removing.


async def test_removing_forgets_the_account_its_grant_and_its_token(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    await relay.mailboxes.remove(NEW.upper())
    assert NEW not in relay.accounts
    assert await relay.store.load(NEW) is None
    assert relay.forgotten[-1] == NEW
    assert files(relay) == []


async def test_a_mailbox_of_the_file_is_removed_there(relay: Operated) -> None:
    with pytest.raises(DefinedInFile, match="remove it there and reload"):
        await relay.mailboxes.remove(FROM_FILE)
    with pytest.raises(UnknownMailbox):
        await relay.mailboxes.remove("nobody@example.com")
    assert set(relay.accounts) == {FROM_FILE}


async def test_removing_all_leaves_the_files_own(relay: Operated) -> None:
    await add(relay, gmail(NEW), gmail(OTHER))
    assert await relay.mailboxes.remove_all() == [NEW, OTHER]
    assert set(relay.accounts) == {FROM_FILE}
    assert await relay.mailboxes.remove_all() == []


async def test_only_what_the_provider_calls_dead_is_removed(relay: Operated) -> None:
    emails = {name: f"{name}@example.com" for name in ("dead", "well", "gone", "unsure", "refused")}
    await add(relay, *(gmail(email) for email in emails.values()))
    relay.answers.by_mailbox |= {
        FROM_FILE: DEAD,
        emails["dead"]: DEAD,
        emails["gone"]: GONE,
        emails["unsure"]: GrantRevoked("a second factor", oauth_error="interaction_required"),
        emails["refused"]: TokenEndpointRefused("no such client", oauth_error="invalid_client"),
    }
    pruned = await relay.mailboxes.remove_invalid()
    assert pruned.removed == [emails["dead"]]
    assert {email for email, _ in pruned.undecided} == {
        emails["gone"],
        emails["unsure"],
        emails["refused"],
    }
    assert set(relay.accounts) == {FROM_FILE, *emails.values()} - {emails["dead"]}


async def test_an_outage_removes_nothing(relay: Operated) -> None:
    await add(relay, gmail(NEW), gmail(OTHER))
    relay.answers.by_mailbox |= {NEW: GONE, OTHER: GONE}
    pruned = await relay.mailboxes.remove_invalid()
    assert pruned.removed == []
    assert len(pruned.undecided) == 2
    assert len(relay.accounts) == 3


async def test_a_mailbox_that_was_never_signed_in_is_not_a_dead_one(relay: Operated) -> None:
    document = gmail(NEW)
    del document["refresh_token"]
    await add_one(relay, document)
    relay.answers.by_mailbox[NEW] = GrantRevoked("nobody has signed in")
    assert (await relay.mailboxes.remove_invalid()).removed == []


# Refreshing and revoking.


async def test_refreshing_gets_a_new_token_now(relay: Operated) -> None:
    account = relay.accounts[FROM_FILE]
    before = await relay.tokens.token_for(account)
    mailbox = await relay.mailboxes.refresh(FROM_FILE)
    assert mailbox.status.state is State.OK
    assert (await relay.tokens.token_for(account)).value != before.value


async def test_a_refresh_that_fails_says_why_and_shows_in_the_standing(relay: Operated) -> None:
    relay.answers.by_mailbox[FROM_FILE] = DEAD
    with pytest.raises(GrantRevoked):
        await relay.mailboxes.refresh(FROM_FILE)
    assert (await relay.mailboxes.find(FROM_FILE)).status.state is State.SIGN_IN_NEEDED


async def test_what_lives_on_its_clients_tokens_is_not_refreshed(tmp_path: Path) -> None:
    own = {"email": "own@example.com", "provider": "outlook", "password": "x"}
    async with operated(tmp_path, {"accounts": [own]}) as relay:
        with pytest.raises(NotSupported):
            await relay.mailboxes.refresh("own@example.com")
        with pytest.raises(NotSupported):
            await relay.mailboxes.revoke("own@example.com")


async def test_there_is_nothing_to_revoke_before_a_sign_in(relay: Operated) -> None:
    document = gmail(NEW)
    del document["refresh_token"]
    await add_one(relay, document)
    with pytest.raises(NotSupported):
        await relay.mailboxes.revoke(NEW)


async def test_revoking_says_what_it_did_not_end(tmp_path: Path) -> None:
    # A provider without discovery has no way to take a grant back.
    url = "http://127.0.0.1:9/"
    document = {
        "accounts": [
            {
                "email": FROM_FILE,
                "provider": "own",
                "password": "x",
                "client_id": "a-client",
                "refresh_token": "refresh",
            }
        ],
        "providers": {
            "own": {
                "refresher": "oidc",
                "upstream": {"host": "localhost", "port": 25},
                "oauth_token_url": f"{url}token",
                "authorization_url": f"{url}authorize",
            }
        },
    }
    async with operated(tmp_path, document) as relay:
        revoked = await relay.mailboxes.revoke(FROM_FILE)
        assert len(revoked.left_over) == 2
        assert "no revocation endpoint" in revoked.left_over[0]
        assert "configuration file has a refresh token" in revoked.left_over[1]
        assert relay.forgotten == [FROM_FILE]
        assert await relay.store.load(FROM_FILE) is None


# Signing in.


@pytest.mark.parametrize(
    ("refresher", "client", "obstacle"),
    [
        ("mock", OAuthClient(), "sandbox"),
        ("command", OAuthClient(command=("x",)), "command"),
        ("outlook", OAuthClient(), "client_id"),
        ("outlook", OAuthClient(client_id="x"), ""),
        (
            "outlook",
            OAuthClient(client_id="x", grant_type=GrantType.CLIENT_CREDENTIALS),
            "client_credentials",
        ),
        ("oidc", OAuthClient(client_id="x"), "issuer"),
        ("oidc", OAuthClient(client_id="x", issuer="https://issuer.example"), ""),
    ],
)
def test_a_provider_says_why_nobody_can_sign_in(
    refresher: str, client: OAuthClient, obstacle: str
) -> None:
    provider = ProviderInfo("own", BUILT_IN_REFRESHERS[refresher], client)
    assert obstacle in provider.obstacle
    assert bool(provider.flows) is not bool(provider.obstacle)


def test_google_has_no_device_flow_for_mail() -> None:
    gmail = ProviderInfo("gmail", BUILT_IN_REFRESHERS["gmail"], OAuthClient(client_id="x"))
    assert gmail.flows == ("browser",)


async def test_a_sign_in_begins_for_the_mailboxs_own_provider_only(relay: Operated) -> None:
    with pytest.raises(UnknownMailbox):
        await relay.mailboxes.begin_sign_in(FROM_FILE, "outlook", "http://localhost/")
    with pytest.raises(UnknownMailbox):
        await relay.mailboxes.begin_sign_in("nobody@example.com", "gmail", "http://localhost/")


async def test_a_sign_in_that_its_settings_forbid_does_not_begin(tmp_path: Path) -> None:
    sandboxed = {"email": FROM_FILE, "provider": "mock", "password": "x"}
    async with operated(tmp_path, {"accounts": [sandboxed]}) as relay:
        with pytest.raises(NotSupported, match="sandbox"):
            await relay.mailboxes.begin_sign_in(FROM_FILE, "mock", "http://localhost/")


async def test_an_answer_to_no_attempt_is_refused(relay: Operated) -> None:
    with pytest.raises(SignInRefused):
        await relay.mailboxes.finish_sign_in({"state": "made up", "code": "x"})


# Reading the file again.


async def test_reloading_takes_up_the_file_and_keeps_what_was_added(relay: Operated) -> None:
    await add_one(relay, gmail(NEW))
    relay.write({"accounts": [gmail(OTHER)]})
    await relay.mailboxes.reload()
    assert set(relay.accounts) == {NEW, OTHER}


async def test_a_wrong_file_changes_nothing(relay: Operated) -> None:
    relay.write({"accounts": [gmail("no address")]})
    with pytest.raises(ConfigError):
        await relay.mailboxes.reload()
    assert set(relay.accounts) == {FROM_FILE}


# A store in trouble.


class ClosedStore(MemoryStore):
    """A store that cannot be reached."""

    async def load(self, mailbox: str) -> StoredGrant | None:
        raise TokenStoreUnavailable("connection refused")

    @asynccontextmanager
    async def lock(self, mailbox: str) -> AsyncIterator[None]:
        raise TokenStoreUnavailable("connection refused")
        yield


async def test_a_store_in_trouble_is_told_and_nothing_is_added(tmp_path: Path) -> None:
    async with operated(tmp_path, store=ClosedStore()) as relay:
        (mailbox,) = await relay.mailboxes.listing()
        assert mailbox.status.state is State.TROUBLE
        assert "connection refused" in mailbox.status.reason
        result = await add(relay, gmail(NEW))
        assert [type(error) for _, error in result.failed] == [TokenStoreUnavailable]
        assert set(relay.accounts) == {FROM_FILE}


def test_what_is_secret_does_not_show() -> None:
    proposal = Proposal(gmail(NEW))
    assert "sesame" not in repr(proposal)
    assert replace(proposal, overwrite=True).overwrite
