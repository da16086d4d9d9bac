"""The package in tests/acme_plug_in, built and installed as users do it, and a mailbox at Acme."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support.acme import APP_KEY, AcmeServer
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.oauth.grant import Grant
from xoauth2_proxy.oauth.refreshers.contract import Outcome, Subject

if TYPE_CHECKING:
    from collections.abc import Collection

    from tests.support.command_line import Command, CommandLine
    from tests.support.sandbox import Sandbox
    from xoauth2_proxy.oauth.refreshers import Refresher

PACKAGE = Path(__file__).parents[1] / "acme_plug_in"
ALICE = "alice@acme.example"
PASSWORD = "opens sesame"


def document(acme: AcmeServer, provider: Sandbox) -> dict[str, Any]:
    """Return a configuration with one mailbox at Acme."""
    host, port = provider.smtp_address
    return {
        "providers": {
            "acme-mail": {
                "refresher": "acme",
                "upstream": {"host": host, "port": port, "ca_file": str(provider.ca_file)},
                "options": {"service": acme.url, "app_key": APP_KEY},
            }
        },
        "accounts": [{"email": ALICE, "provider": "acme-mail", "password": PASSWORD}],
    }


async def sign_in(
    command_line: CommandLine, says: str = "yes", options: tuple[str, ...] = ()
) -> Command:
    """Run `login`, and answer Acme's page as a browser without scripts would."""
    browser = {"BROWSER": "true"}
    async with (
        command_line.start("login", ALICE, "--web", *options, environ=browser) as command,
        aiohttp.ClientSession() as http,
    ):
        url = await command.url()
        async with http.get(url) as page:
            assert f'value="{ALICE}"' in await page.text()
        async with http.post(url, data={"login": ALICE, "says": says}) as landed:
            await landed.text()
        await command.ends()
    return command


class AcmeSubject(Subject):
    """The package's refresher, with Acme's server."""

    def __init__(self, refresher: Refresher, options: object, server: AcmeServer) -> None:
        self._refresher = refresher
        self._client = OAuthClient(options=options)
        self._server = server

    @property
    def refresher(self) -> Refresher:
        return self._refresher

    @property
    def secrets(self) -> Collection[str]:  # type: ignore[override]
        return [APP_KEY, *self._server.keys]

    def grant(self, mailbox: str) -> Grant:
        key = f"acme-key-of-{mailbox}"
        self._server.keys[key] = mailbox
        return Grant(mailbox=mailbox, client=self._client, refresh_token=key)

    def provider_answers(self, outcome: Outcome) -> None:
        self._server.outcome = outcome

    async def is_asked(self) -> None:
        await self._server.is_held()

    def opens(self, access_token: str, mailbox: str) -> bool:
        return self._server.tokens.verify(access_token) == mailbox
