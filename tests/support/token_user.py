"""A process of its own that gets access tokens as the relay does, and uses them.

    python -m tests.support.token_user NAME file /the/directory http://127.0.0.1:12345

It begins after a line on its input, `tokens` or `refreshes`; it says `asking`, and `good` at the
first token. It goes on until its input ends or something fails; at its end it says how often the
mail server took its tokens and what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from tests.support.accounts import mailbox
from tests.support.store_user import StoreUser, open_place, say
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.errors import TokenError
from xoauth2_proxy.metrics import Metrics
from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher
from xoauth2_proxy.oauth.token_source import TokenSource

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Account

_ROOT = Path(__file__).parents[2]
_BETWEEN_MESSAGES_SECONDS = 0.005
_HELD_SECONDS = 4.0  # how long a Redis lock outlives a process that is killed


class TokenUser(StoreUser):
    """The process, as the test that started it sees it."""

    def use(self, what: str) -> None:
        """Begin; `what` is `tokens` or `refreshes`."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n".encode())

    async def end(self) -> tuple[int, list[str]]:
        """Return how many tokens were good, and the errors."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        good, errors = json.loads((await self.rest())[-1])
        assert await self.process.wait() == 0
        return good, errors


@asynccontextmanager
async def token_user(name: str, *place: str) -> AsyncIterator[TokenUser]:
    """Start a process that is ready, but has not begun; `place` ends with the endpoint's URL."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.token_user", name, *place),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    user = TokenUser(process)
    try:
        assert await user.line() == "ready"
        yield user
    finally:
        if process.returncode is None:
            await user.kill()


class Using:
    """What the process does."""

    def __init__(self, name: str, source: TokenSource, url: str) -> None:
        self.good = 0
        self.errors: list[str] = []
        self._name = name
        self._source = source
        self._url = url
        client = OAuthClient(client_id="tests", refresh_token="rt-0", token_endpoint=f"{url}/token")
        self._account: Account = replace(mailbox(), refresher="oidc", oauth=client)

    async def use(self, what: str, is_over: asyncio.Event) -> None:
        say("asking")
        async with aiohttp.ClientSession() as session:
            while not is_over.is_set():
                try:
                    await self._use_one(what, session)
                except TokenError as error:
                    self.errors.append(type(error).__name__)
                    return
                self.good += 1
                if self.good == 1:
                    say("good")

    async def _use_one(self, what: str, session: aiohttp.ClientSession) -> None:
        if what == "renewals":
            token = await self._source.refresh(self._account)
        else:
            await asyncio.sleep(_BETWEEN_MESSAGES_SECONDS)
            token = await self._source.token_for(self._account)
        headers = {"Authorization": f"Bearer {token.value}", "X-Name": self._name}
        async with session.get(f"{self._url}/mail", headers=headers) as response:
            if response.status != 200:
                raise TokenError(f"the mail server says {response.status}")


async def main(name: str, kind: str, where: str, url: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        store = open_place(kind, where, _HELD_SECONDS)
        source = TokenSource({"oidc": OidcRefresher(threads)}, Metrics(), store)
        using, is_over = Using(name, source, url), asyncio.Event()
        say("ready")
        what = await asyncio.to_thread(sys.stdin.readline)
        task = asyncio.create_task(using.use(what.strip(), is_over))
        await asyncio.to_thread(sys.stdin.read)
        is_over.set()
        await task
        await source.close()
    say(json.dumps([using.good, using.errors]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
