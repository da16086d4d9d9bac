"""The contract of refreshers: all of the relay's own keep it, and what breaks it is found."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.distributions import GOOD, install
from tests.support.refresher_subjects import (
    CLIENT_SECRET,
    CommandSubject,
    EndpointSubject,
    LocalSubject,
    MockSubject,
)
from tests.support.token_endpoint import TokenEndpoint
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)
from xoauth2_proxy.oauth.grant import Grant, TokenResponse
from xoauth2_proxy.oauth.refreshers.contract import (
    MAILBOX,
    RETRY_AFTER_SECONDS,
    Outcome,
    RefresherContract,
    Subject,
)
from xoauth2_proxy.oauth.refreshers.registry import RefresherRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import trustme

    from xoauth2_proxy.oauth.refreshers import Refresher


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RefresherRegistry]:
    registry = RefresherRegistry(tmp_path)
    yield registry
    registry.close()


@pytest.fixture
async def server(
    authority: trustme.CA, registry: RefresherRegistry
) -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint(authority) as server:
        yield server


class TestOidc(RefresherContract):
    @pytest.fixture
    def subject(self, registry: RefresherRegistry, server: TokenEndpoint) -> Subject:
        client = OAuthClient(
            client_id="client-1",
            client_secret=CLIENT_SECRET,
            issuer=server.issuer,
            ca_file=server.ca_file,
        )
        return EndpointSubject(registry.refreshers(["oidc"])["oidc"], server, client)


class TestGmail(RefresherContract):
    @pytest.fixture
    def subject(self, registry: RefresherRegistry, server: TokenEndpoint) -> Subject:
        client = OAuthClient(
            client_id="client-1",
            client_secret=CLIENT_SECRET,
            token_endpoint=server.token_url,
            ca_file=server.ca_file,
        )
        return EndpointSubject(registry.refreshers(["gmail"])["gmail"], server, client)


class TestOutlook(RefresherContract):
    @pytest.fixture
    def subject(self, registry: RefresherRegistry, server: TokenEndpoint) -> Subject:
        client = OAuthClient(
            client_id="client-1",
            client_secret=CLIENT_SECRET,
            authority=server.url,
            tenant="contoso.example",
            scopes=("https://outlook.office.com/SMTP.Send",),
            ca_file=server.ca_file,
        )
        outlook = registry.refreshers(["outlook"])["outlook"]
        path = "/contoso.example/oauth2/v2.0/token"
        return EndpointSubject(outlook, server, client, path)


class TestCommand(RefresherContract):
    @pytest.fixture
    def subject(self, registry: RefresherRegistry, tmp_path: Path) -> Subject:
        return CommandSubject(registry.refreshers(["command"])["command"], tmp_path)


class TestMock(RefresherContract):
    @pytest.fixture
    def subject(self, registry: RefresherRegistry, tmp_path: Path) -> Subject:
        return MockSubject(registry.refreshers(["mock"])["mock"], tmp_path)


class TestPlugIn(RefresherContract):
    @pytest.fixture
    def subject(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
        install(tmp_path, "acme", "acme_under_contract", GOOD, {"acme": "acme_under_contract:Acme"})
        monkeypatch.syspath_prepend(str(tmp_path))
        registry = RefresherRegistry(tmp_path)
        yield LocalSubject(registry.refreshers(["acme"])["acme"])
        registry.close()
        del sys.modules["acme_under_contract"]


# What breaks the contract is found.

ERRORS: dict[Outcome, type[TokenError]] = {
    Outcome.REVOKED: GrantRevoked,
    Outcome.NOT_SIGNED_IN: GrantRevoked,
    Outcome.REFUSED: TokenEndpointRefused,
    Outcome.IN_TROUBLE: TokenEndpointUnavailable,
    Outcome.GARBLED: TokenEndpointUnavailable,
}


class FlawedSubject(Subject):
    """A refresher that keeps the contract, but for one flaw; it is its own provider."""

    secrets = (CLIENT_SECRET,)

    def __init__(self, flaw: str = "") -> None:
        self._flaw = flaw
        self._outcome = Outcome.GRANTED
        self._asked = asyncio.Event()
        self._tasks: list[asyncio.Task[object]] = []
        self._live = f"rt-of-{MAILBOX}"

    @property
    def refresher(self) -> Refresher:
        return self

    def grant(self, mailbox: str) -> Grant:
        return Grant(mailbox=mailbox, client=OAuthClient(), refresh_token=f"rt-of-{mailbox}")

    def provider_answers(self, outcome: Outcome) -> None:
        self._outcome = outcome

    async def is_asked(self) -> None:
        await self._asked.wait()

    def opens(self, access_token: str, mailbox: str) -> bool:
        return "".join(access_token.split()) == f"at-of-{mailbox}"

    def leftovers(self) -> list[str]:
        return ["a process"] if self._flaw == "process left" else []

    async def refresh(self, grant: Grant) -> TokenResponse:
        self._asked.set()
        outcome = self._outcome if grant.refresh_token else Outcome.NOT_SIGNED_IN
        if outcome is Outcome.SILENT:
            await self._wait()
        if outcome is Outcome.BUSY:
            seconds = 0.0 if self._flaw == "no retry-after" else RETRY_AFTER_SECONDS
            raise TokenEndpointUnavailable("busy", seconds)
        if outcome in ERRORS:
            self._fail(outcome)
        return await self._issue(grant, outcome)

    async def _wait(self) -> None:
        if self._flaw == "task left":
            self._tasks.append(asyncio.create_task(asyncio.Event().wait()))
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if self._flaw != "not cancelled":
                raise
            self._outcome = Outcome.GRANTED

    def _fail(self, outcome: Outcome) -> None:
        kind = ERRORS[outcome]
        if self._flaw == f"{outcome} is something else":
            kind = GrantRevoked if kind is TokenEndpointUnavailable else TokenEndpointUnavailable
        if self._flaw == f"{outcome} is an error of a library":
            raise KeyError(outcome)
        if self._flaw == "secret logged":
            logging.getLogger("library").debug("sent %s", CLIENT_SECRET)
        if self._flaw == "secret in a cause":
            raise kind("no") from ValueError(CLIENT_SECRET)
        if self._flaw == "secret in an error":
            raise kind(f"no, {CLIENT_SECRET}")
        raise kind("" if self._flaw == "no words" else "no")

    async def _issue(self, grant: Grant, outcome: Outcome) -> TokenResponse:
        owner = grant.mailbox
        if self._flaw == "mailboxes mixed up":
            self._last = owner
            await asyncio.sleep(0)
            owner = self._last
        value = f"at-of-{owner}"
        if self._flaw == "no token":
            value = ""
        if self._flaw == "controls in the token":
            value += "\r\n"
        lifetimes = {"no lifetime": 0.0, "endless": float("inf")}
        rotated = ""
        if outcome is Outcome.ROTATED:
            if grant.refresh_token != self._live:
                raise GrantRevoked("another one is live")
            self._live = f"{grant.refresh_token}-rotated"
            rotated = self._live + ("-and-mangled" if self._flaw == "rotated one mangled" else "")
        return TokenResponse(
            access_token=value,
            lifetime_seconds=lifetimes.get(self._flaw, 3600.0),
            refresh_token="" if self._flaw == "rotated one lost" else rotated,
        )

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class TestFlawless(RefresherContract):
    @pytest.fixture
    async def subject(self) -> Subject:
        return FlawedSubject()


@pytest.mark.parametrize(
    ("flaw", "found_by"),
    [
        ("no token", "test_gives_an_access_token"),
        ("controls in the token", "test_gives_an_access_token"),
        ("no lifetime", "test_an_access_token_lasts_for_some_time"),
        ("endless", "test_an_access_token_lasts_for_some_time"),
        ("rotated one lost", "test_a_rotated_refresh_token_comes_back"),
        ("rotated one mangled", "test_a_rotated_refresh_token_comes_back"),
        ("revoked is something else", "test_a_revoked_grant_needs_a_person"),
        ("revoked is an error of a library", "test_a_revoked_grant_needs_a_person"),
        ("not signed in is something else", "test_without_a_refresh_token_a_person_is_needed"),
        ("refused is something else", "test_a_refused_client_needs_the_operator"),
        ("in trouble is something else", "test_trouble_is_transient"),
        ("garbled is something else", "test_an_answer_without_sense_is_transient"),
        ("no retry-after", "test_a_busy_provider_is_left_alone_as_long_as_it_asks"),
        ("not cancelled", "test_a_cancelled_refresh_ends_at_once_and_leaves_nothing"),
        ("task left", "test_a_cancelled_refresh_ends_at_once_and_leaves_nothing"),
        ("process left", "test_a_cancelled_refresh_ends_at_once_and_leaves_nothing"),
        ("mailboxes mixed up", "test_mailboxes_do_not_mix_up"),
        ("secret in an error", "test_no_error_tells_a_secret"),
        ("secret in a cause", "test_no_error_tells_a_secret"),
        ("no words", "test_no_error_tells_a_secret"),
        ("secret logged", "test_no_log_line_tells_a_secret"),
    ],
)
async def test_a_flaw_is_found(flaw: str, found_by: str) -> None:
    subject = FlawedSubject(flaw)
    try:
        with pytest.raises((AssertionError, TokenError, KeyError)):
            await getattr(RefresherContract(), found_by)(subject)
    finally:
        await subject.close()
