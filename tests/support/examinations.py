"""A mailbox for the doctor: an account, its means, and what a person sees of the examination."""

from __future__ import annotations

import base64
import io
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from aiohttp import web
from rich.console import Console as RichConsole

from tests.support.accounts import mailbox
from tests.support.token_scripts import WrittenRefresher
from xoauth2_proxy.accounts.oauth_client import OAuthClient
from xoauth2_proxy.commands.console import Console
from xoauth2_proxy.commands.doctor import command
from xoauth2_proxy.commands.doctor.context import DoctorDependencies
from xoauth2_proxy.oauth.stores.memory import MemoryStore

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    from xoauth2_proxy.accounts.accounts import Account, Upstream
    from xoauth2_proxy.errors import TokenError

MAILBOX = "someone@example.com"


@dataclass
class Examination:
    """One run of the doctor, after it."""

    code: int
    text: str
    complaints: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        return {one["step"]: one for one in self.document["steps"]}

    @property
    def failed(self) -> dict[str, Any]:
        """The step that fails first."""
        assert self.code == 1
        at = [one["result"] for one in self.document["steps"]].index("failed")
        found: dict[str, Any] = self.document["steps"][at]
        return found


@dataclass
class Ward:
    """What an examination is made with."""

    account: Account
    token: TokenError | str = "token-1"
    refresher: Any = None
    store: Any = field(default_factory=MemoryStore)
    is_store_shared: bool = True

    async def examine(
        self,
        email: str = "",
        send_to: str = "",
        *,
        is_json: bool = True,
        is_all: bool = False,
        encoding: str = "utf-8",
    ) -> Examination:
        octets, err = io.BytesIO(), io.StringIO()
        out = io.TextIOWrapper(octets, encoding=encoding, errors="replace", newline="")
        console = Console(RichConsole(file=out, width=200), RichConsole(file=err, width=200))
        has_none = not self.account.keeps_tokens and self.refresher is None
        refresher = self.refresher or WrittenRefresher(self.token)
        dependencies = DoctorDependencies(
            store=self.store,
            is_store_shared=self.is_store_shared,
            refreshers={} if has_none else {self.account.refresher: refresher},
            hostname="doctor.example",
        )
        options = command.DoctorOptions(
            mailbox="" if is_all else email or self.account.email,
            is_all=is_all,
            send_to=send_to,
            is_json=is_json,
        )
        code = await command.run([self.account], options, dependencies, console)
        out.flush()
        return Examination(code, octets.getvalue().decode(), err.getvalue())


def patient(upstream: Upstream, refresher: str = "oidc", **client: object) -> Account:
    """Return an account whose refresh token is configured."""
    oauth = OAuthClient(client_id="id", refresh_token="rt")
    return replace(
        mailbox(MAILBOX, upstream),
        provider="work",
        refresher=refresher,
        oauth=replace(oauth, **client),  # type: ignore[arg-type]
    )


def signed(**claims: object) -> str:
    """Return a JWT with these claims, as Microsoft gives out; nobody checks its signature."""
    parts: list[object] = [{"alg": "RS256", "typ": "JWT"}, claims]
    shown = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode() for one in parts]
    return ".".join([*(one.rstrip("=") for one in shown), "c2lnbmF0dXJl"])


def microsoft(**changes: object) -> str:
    """Return a token as Exchange Online takes it, with `changes`; None leaves a claim out."""
    now = time.time()
    claims: dict[str, object] = {
        "aud": "https://outlook.office.com",
        "scp": "SMTP.Send",
        "upn": MAILBOX,
        "iat": now - 10,
        "exp": now + 3600,
        "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
    }
    merged = claims | changes
    return signed(**{key: value for key, value in merged.items() if value is not None})


@asynccontextmanager
async def token_host(
    context: ssl.SSLContext | None = None, ahead_seconds: float = 0.0
) -> AsyncIterator[str]:
    """Serve an endpoint that answers anything with 400; give its URL."""

    async def answer(_request: web.Request) -> web.Response:
        date = formatdate(time.time() + ahead_seconds, usegmt=True)
        return web.json_response({"error": "invalid_request"}, status=400, headers={"Date": date})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        yield f"{scheme}://localhost:{runner.addresses[0][1]}/token"
    finally:
        await runner.cleanup()
