"""`status`: who needs somebody comes first, in words and as JSON, with or without a proxy."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from rich.console import Console as RichConsole

from tests.support.accounts import mailbox
from xoauth2_proxy.accounts.accounts import DisabledAccount
from xoauth2_proxy.accounts.oauth_client import OAuthClient, fingerprint
from xoauth2_proxy.commands import status
from xoauth2_proxy.commands.console import Console, span
from xoauth2_proxy.commands.status import StatusOptions
from xoauth2_proxy.errors import TokenStoreUnavailable
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import issued_to
from xoauth2_proxy.oauth.stores import Failure, StoredGrant
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Account

DAY = 86_400.0


@dataclass
class Terminal:
    """What a person sees."""

    out: io.StringIO = field(default_factory=io.StringIO)
    err: io.StringIO = field(default_factory=io.StringIO)

    @property
    def console(self) -> Console:
        return Console(RichConsole(file=self.out, width=160), RichConsole(file=self.err, width=160))

    @property
    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()

    @property
    def document(self) -> Any:
        return json.loads(self.out.getvalue())


def account(name: str) -> Account:
    made = mailbox(f"{name}@example.com")
    oauth = OAuthClient(client_id="id", refresh_token="rt", idle_days=90)
    return replace(made, provider="work", refresher="outlook", oauth=oauth)


def grant(owner: Account, kind: str = "", **changes: object) -> StoredGrant:
    now = time.time()
    failure = None
    if kind:
        failure = Failure(
            kind=kind,  # type: ignore[arg-type]
            oauth_error="invalid_grant",
            text="invalid_grant: AADSTS50173: revoked",
            at=EpochSeconds(now),
        )
    made = StoredGrant(
        issued_to=issued_to(owner),
        descends_from=fingerprint("rt"),
        refresh_token="rt-secret",
        signed_in_at=EpochSeconds(now - DAY),
        access_token="at-secret",
        access_token_expires_at=EpochSeconds(now + 3000),
        refreshed_at=EpochSeconds(now - 3 * 3600 - 5),
        failure=failure,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


ALICE, BOB, CAROL = account("alice"), account("bob"), account("carol")


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
async def store() -> MemoryStore:
    """Alice is well, Bob must sign in again, Carol must do so within nine days."""
    made = MemoryStore()
    await made.save(ALICE.key, grant(ALICE))
    await made.save(BOB.key, grant(BOB, "revoked"))
    ends = EpochSeconds(time.time() + 9.4 * DAY)
    await made.save(CAROL.key, grant(CAROL, refresh_token_expires_at=ends))
    return made


async def test_who_needs_somebody_comes_first(store: MemoryStore, terminal: Terminal) -> None:
    code = await status.run([ALICE, BOB, CAROL], store, StatusOptions(), terminal.console)
    assert code == 1
    shown = [line.split()[0] for line in terminal.lines if "@example.com " in line[:30]]
    assert shown == ["bob@example.com", "carol@example.com", "alice@example.com"]
    text = " ".join(" ".join(terminal.lines).split())
    assert "✗ sign-in needed" in text
    assert "The sign-in was revoked" in text
    assert "xoauth2-proxy login bob@example.com" in text
    assert "! needs you soon" in text
    assert "✓ ok" in text
    assert "3 h ago" in text
    assert terminal.lines[-1] == "3 mailboxes; 2 need attention"


async def test_all_is_well(store: MemoryStore, terminal: Terminal) -> None:
    assert await status.run([ALICE], store, StatusOptions(), terminal.console) == 0
    assert terminal.lines[-1] == "1 mailbox; none needs attention"


async def test_days_before_a_warning_are_the_caller_s(
    store: MemoryStore, terminal: Terminal
) -> None:
    assert await status.run([CAROL], store, StatusOptions(warn_days=9), terminal.console) == 0
    assert await status.run([CAROL], store, StatusOptions(warn_days=10), terminal.console) == 1


async def test_chosen_mailboxes_alone_are_shown(store: MemoryStore, terminal: Terminal) -> None:
    options = StatusOptions(mailboxes=("Alice@Example.com",))
    assert await status.run([ALICE, BOB], store, options, terminal.console) == 0
    assert "bob" not in terminal.out.getvalue()


async def test_an_unknown_mailbox_is_wrong_usage(store: MemoryStore, terminal: Terminal) -> None:
    options = StatusOptions(mailboxes=("nobody@example.com",))
    assert await status.run([ALICE], store, options, terminal.console) == 2
    assert terminal.out.getvalue() == ""
    assert "there is no account nobody@example.com" in terminal.err.getvalue()


async def test_disabled_accounts_are_shown_as_such(store: MemoryStore, terminal: Terminal) -> None:
    off = [DisabledAccount("Old@example.com", "gmail")]
    assert await status.run([ALICE], store, StatusOptions(), terminal.console, off) == 0
    assert [line.split()[:3] for line in terminal.lines[1:3]] == [
        ["alice@example.com", "✓", "ok"],
        ["Old@example.com", "–", "disabled"],
    ]
    assert terminal.lines[-1] == "1 mailbox; none needs attention; 1 disabled"


async def test_a_disabled_account_can_be_asked_for(store: MemoryStore, terminal: Terminal) -> None:
    off = [DisabledAccount("Old@example.com", "gmail")]
    options = StatusOptions(mailboxes=("old@example.com",), is_json=True)
    assert await status.run([ALICE], store, options, terminal.console, off) == 0
    assert terminal.document["mailboxes"] == [
        {"mailbox": "Old@example.com", "provider": "gmail", "state": "disabled"}
    ]


async def test_where_symbols_cannot_be_shown_the_words_stand_alone(store: MemoryStore) -> None:
    octets = io.BytesIO()
    out = io.TextIOWrapper(octets, encoding="ascii", errors="replace")
    console = Console(RichConsole(file=out, width=160), RichConsole(file=out, width=160))
    await status.run([ALICE, BOB, CAROL], store, StatusOptions(), console)
    out.flush()
    table = octets.getvalue().decode().splitlines()[:4]
    assert [" ".join(line.split()[1:3]) for line in table[1:]] == [
        "sign-in needed",
        "needs you",
        "ok 3",
    ]


async def test_json_for_machines(store: MemoryStore, terminal: Terminal) -> None:
    code = await status.run([ALICE, BOB], store, StatusOptions(is_json=True), terminal.console)
    assert code == 1
    assert terminal.document["version"] == 1
    bob, alice = terminal.document["mailboxes"]
    assert bob["mailbox"] == "bob@example.com"
    assert bob["state"] == "sign_in_needed"
    assert alice["days_left"] is None
    assert alice["last_success"].endswith("Z")
    assert "secret" not in terminal.out.getvalue()


async def test_thousands_fit_on_a_screen_and_all_of_them_where_asked(terminal: Terminal) -> None:
    accounts = [account(f"user{number:04}") for number in range(3000)]
    store = MemoryStore()
    for one in accounts[1000:]:
        await store.save(one.key, grant(one))
    await store.save(accounts[7].key, grant(accounts[7], "revoked"))
    assert await status.run(accounts, store, StatusOptions(), terminal.console) == 1
    assert len(terminal.lines) < 70
    assert "user0007" in terminal.lines[1]
    assert terminal.lines[-2] == "… and 2,950 more that are well (--all shows them)"
    everything = Terminal()
    await status.run(accounts, store, StatusOptions(is_all=True), everything.console)
    assert len(everything.lines) > 3000


async def test_words_in_addresses_are_no_markup(terminal: Terminal) -> None:
    odd = replace(account("x"), email='"[red]"@example.com')
    await status.run([odd], MemoryStore(), StatusOptions(), terminal.console)
    assert '"[red]"@example.com' in terminal.out.getvalue()


class BrokenStore(MemoryStore):
    async def load(self, mailbox: str) -> StoredGrant | None:
        raise TokenStoreUnavailable("grants: permission denied")


async def test_a_store_that_cannot_be_read_is_no_good_news(terminal: Terminal) -> None:
    assert await status.run([ALICE], BrokenStore(), StatusOptions(), terminal.console) == 1
    assert "permission denied" in " ".join(terminal.out.getvalue().split())


async def test_an_endpoint_in_trouble_needs_nobody(terminal: Terminal) -> None:
    store = MemoryStore()
    await store.save(ALICE.key, grant(ALICE, "unavailable"))
    assert await status.run([ALICE], store, StatusOptions(), terminal.console) == 0
    assert "1 with temporary trouble" in terminal.lines[-1]


# A proxy that keeps tokens in its memory.


@dataclass
class Admin:
    """The admin server of a running proxy, as far as `status` knows it."""

    url: str = ""
    token: str = ""
    body: object = None

    async def list_accounts(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization", "") != (self.token and f"Bearer {self.token}"):
            raise web.HTTPUnauthorized
        return web.json_response(self.body)


@pytest.fixture
async def admin() -> AsyncIterator[Admin]:
    made = Admin(
        body={
            "success": True,
            "accounts": [
                {
                    "email": "alice@example.com",
                    "provider": "work",
                    "state": "ok",
                    "last_success": "2026-11-01T12:00:00Z",
                    "next_refresh": None,
                    "days_left": 6.5,
                    "reason": "",
                    "remedy": "",
                    "last_error": "",
                    "source": "file",
                }
            ],
        }
    )
    app = web.Application()
    app.router.add_get("/accounts", made.list_accounts)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_a_proxy_is_asked_for_what_it_alone_knows(admin: Admin, terminal: Terminal) -> None:
    options = StatusOptions(is_json=True, warn_days=5)
    assert await status.run_remote(admin.url, "", options, terminal.console) == 0
    (one,) = terminal.document["mailboxes"]
    assert (one["mailbox"], one["state"]) == ("alice@example.com", "ok")
    assert one["last_success"] == "2026-11-01T12:00:00Z"
    assert (
        await status.run_remote(admin.url, "", StatusOptions(warn_days=7), Terminal().console) == 1
    )


async def test_a_proxy_is_asked_for_its_disabled_accounts_too(
    admin: Admin, terminal: Terminal
) -> None:
    off = {"email": "Old@example.com", "provider": "gmail", "state": "disabled", "reason": "…"}
    admin.body = {**admin.body, "disabled_accounts": [off]}  # type: ignore[dict-item]
    options = StatusOptions(warn_days=5)
    assert await status.run_remote(admin.url, "", options, terminal.console) == 0
    assert "Old@example.com" in terminal.lines[2]
    assert 'disabled ("enabled": false)' in terminal.lines[2]
    assert terminal.lines[-1] == "1 mailbox; none needs attention; 1 disabled"
    asked = Terminal()
    options = StatusOptions(mailboxes=("old@example.com",), is_json=True)
    assert await status.run_remote(admin.url, "", options, asked.console) == 0
    assert asked.document["mailboxes"] == [
        {"mailbox": "Old@example.com", "provider": "gmail", "state": "disabled"}
    ]


async def test_a_proxy_is_shown_the_admin_token(admin: Admin, terminal: Terminal) -> None:
    admin.token = "admin-token-7Qw3"
    assert (
        await status.run_remote(admin.url, "wrong", StatusOptions(warn_days=5), terminal.console)
        == 1
    )
    assert "XOAUTH2_PROXY_ADMIN_TOKEN" in terminal.err.getvalue()
    assert (
        await status.run_remote(
            admin.url, admin.token, StatusOptions(warn_days=5), terminal.console
        )
        == 0
    )
    assert "admin-token" not in terminal.out.getvalue() + terminal.err.getvalue()


@pytest.mark.parametrize(
    "body", [[], {"accounts": {}}, {"accounts": [{"email": "a@b"}]}, {"accounts": [1]}, "x"]
)
async def test_an_answer_that_is_no_list_is_said_to_be_none(
    admin: Admin, terminal: Terminal, body: object
) -> None:
    admin.body = body
    assert await status.run_remote(admin.url, "", StatusOptions(), terminal.console) == 1
    assert "could not be asked" in terminal.err.getvalue()


async def test_a_proxy_that_does_not_run_cannot_be_asked(terminal: Terminal) -> None:
    assert await status.run_remote("http://127.0.0.1:1", "", StatusOptions(), terminal.console) == 1
    assert 'set "store" to file' in " ".join(terminal.err.getvalue().split())


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min"), (7200, "2 h"), (8.7e5, "10 d")],
)
def test_times_are_told_in_one_unit(seconds: float, words: str) -> None:
    assert span(seconds) == words
