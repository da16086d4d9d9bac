"""Refreshers with the providers they ask, as `RefresherContract` wants them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.token_endpoint import GARBAGE, HANGS, answer, error
from tests.support.waiting import until
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.contract import RETRY_AFTER_SECONDS, Outcome, Subject
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokenInvalid, MockTokens

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.support.token_endpoint import Answer, Request, TokenEndpoint
    from xoauth2_proxy.oauth.refreshers import Refresher

CLIENT_SECRET = "s3cret-of-the-client"


class EndpointSubject(Subject):
    """Any refresher that presents refresh tokens to a token endpoint."""

    def __init__(
        self, refresher: Refresher, server: TokenEndpoint, client: OAuthClient, path: str = "/token"
    ) -> None:
        self._refresher = refresher
        self._server = server
        self._client = client
        self._outcome = Outcome.GRANTED
        self._owners: dict[str, str] = {}  # of tokens, to mailboxes
        self._holds_one = False
        server.route(path, self._answer)

    @property
    def refresher(self) -> Refresher:
        return self._refresher

    @property
    def secrets(self) -> Collection[str]:  # type: ignore[override]
        return [CLIENT_SECRET, *self._owners]

    def grant(self, mailbox: str) -> Grant:
        refresh_token = f"rt-of-{mailbox}"
        self._owners[refresh_token] = mailbox
        return Grant(mailbox=mailbox, client=self._client, refresh_token=refresh_token)

    def provider_answers(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._holds_one = False

    async def is_asked(self) -> None:
        await until(lambda: self._holds_one)

    def opens(self, access_token: str, mailbox: str) -> bool:
        return self._owners.get(access_token) == mailbox

    def _answer(self, request: Request) -> Answer:
        refresh_token = request.form["refresh_token"]
        if self._outcome in (Outcome.GRANTED, Outcome.ROTATED):
            return self._grant(refresh_token)
        if self._outcome is Outcome.SILENT:
            self._holds_one = True
            return HANGS
        quoted = f"{refresh_token} of {request.client[1]}"
        return {
            Outcome.REVOKED: error("invalid_grant", f"{quoted} has been revoked"),
            Outcome.REFUSED: error("invalid_client", f"{quoted} is unknown", 401),
            Outcome.IN_TROUBLE: error("temporarily_unavailable", f"{quoted} must wait", 503),
            Outcome.BUSY: answer({}, 429, {"Retry-After": f"{RETRY_AFTER_SECONDS:.0f}"}),
            Outcome.GARBLED: GARBAGE,
        }[self._outcome]

    def _grant(self, refresh_token: str) -> Answer:
        owner = self._owners.get(refresh_token)
        if owner is None:
            return error("invalid_grant")
        body = self._server.issue()
        self._owners[str(body["access_token"])] = owner
        if self._outcome is Outcome.ROTATED:
            del self._owners[refresh_token]
            body["refresh_token"] = f"rt-{len(self._server.issued)}-of-{owner}"
            self._owners[str(body["refresh_token"])] = owner
        return answer(body)


class CommandSubject(Subject):
    """A program that prints tokens: a script, written anew for each outcome."""

    lacks = frozenset({Outcome.ROTATED, Outcome.BUSY, Outcome.NOT_SIGNED_IN})
    secrets = ("eyJhbGciOiJub25lIn0-a-token-as-they-are",)

    _SCRIPTS = {  # noqa: RUF012
        Outcome.GRANTED: 'echo "at-of-$1"',
        Outcome.REVOKED: f"echo {secrets[0]} was revoked >&2; exit 77",
        Outcome.REFUSED: f"echo {secrets[0]} is of another client >&2; exit 78",
        Outcome.IN_TROUBLE: f"echo {secrets[0]} must wait >&2; exit 75",
        Outcome.GARBLED: f"echo the token is {secrets[0]}",
        Outcome.SILENT: "echo $$ > {pid}; sleep 60",
    }

    def __init__(self, refresher: Refresher, directory: Path) -> None:
        self._refresher = refresher
        self._script = directory / "script"
        self._pid = directory / "pid"

    @property
    def refresher(self) -> Refresher:
        return self._refresher

    def grant(self, mailbox: str) -> Grant:
        client = OAuthClient(command=("sh", str(self._script), "{mailbox}"))
        return Grant(mailbox=mailbox, client=client)

    def provider_answers(self, outcome: Outcome) -> None:
        self._script.write_text(self._SCRIPTS[outcome].replace("{pid}", str(self._pid)))

    async def is_asked(self) -> None:
        await until(lambda: self._pid.exists() and self._pid.read_text() != "")

    def opens(self, access_token: str, mailbox: str) -> bool:
        return access_token == f"at-of-{mailbox}"

    def leftovers(self) -> Collection[str]:
        pid = self._pid.read_text().strip()
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return []
        return [] if state in {"Z", "X"} else [pid]  # dead; its parent has yet to notice


class LocalSubject(Subject):
    """A refresher that asks nobody, so that nothing can go wrong."""

    lacks = frozenset(Outcome) - {Outcome.GRANTED}

    def __init__(self, refresher: Refresher) -> None:
        self._refresher = refresher

    @property
    def refresher(self) -> Refresher:
        return self._refresher

    def grant(self, mailbox: str) -> Grant:
        return Grant(mailbox=mailbox, client=OAuthClient())

    def provider_answers(self, outcome: Outcome) -> None:
        assert outcome is Outcome.GRANTED

    async def is_asked(self) -> None:
        raise AssertionError("nobody is asked")

    def opens(self, access_token: str, mailbox: str) -> bool:
        return access_token == f"acme-{mailbox}"


class MockSubject(LocalSubject):
    """Mock tokens, which the sandbox provider would accept."""

    def __init__(self, refresher: Refresher, state_dir: Path) -> None:
        super().__init__(refresher)
        self._tokens = MockTokens(load_signing_key(state_dir))

    def opens(self, access_token: str, mailbox: str) -> bool:
        try:
            return self._tokens.verify(access_token) == mailbox
        except MockTokenInvalid:
            return False
