"""The accounts as a JSON API: list, add, remove, refresh, revoke, reload; and their access tokens.

Responses contain no secrets, except a generated password in the response to adding its mailbox, and
an access token where the configuration allows that.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from xoauth2_proxy import log
from xoauth2_proxy.accounts.credential import login_key
from xoauth2_proxy.admin.access_control import RouteKind
from xoauth2_proxy.admin.http_errors import HttpError, http_error
from xoauth2_proxy.admin.json_requests import (
    answer,
    email_of,
    error_response,
    fail,
    flag,
    json_body,
    log_change,
)
from xoauth2_proxy.errors import ProxyError, TokenError, TokenStoreUnavailable
from xoauth2_proxy.mailboxes.additions import Proposal
from xoauth2_proxy.oauth.mailbox_status import rfc3339
from xoauth2_proxy.oauth.token_info import TOKEN_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xoauth2_proxy.mailboxes.additions import AddedMailbox
    from xoauth2_proxy.mailboxes.interface import Mailbox
    from xoauth2_proxy.mailboxes.operations import Mailboxes

MAX_BATCH = 100
_DISABLED = {
    "state": "disabled",
    "reason": 'its account has "enabled": false',
    "remedy": 'write "enabled": true into the configuration file and reload',
}
MAX_BODY_BYTES = 1024 * 1024

_log = log.logger("admin")


class AccountsApi:
    """Serves `/accounts`, `/reload` and `/oauth/providers`."""

    def __init__(self, mailboxes: Mailboxes) -> None:
        self._mailboxes = mailboxes

    def routes(self) -> Iterator[tuple[RouteKind, web.RouteDef]]:
        """Return the routes and their kinds."""
        for route in (
            web.get("/accounts", self._list),
            web.post("/accounts", self._add),
            web.delete("/accounts", self._remove_all),
            web.post("/accounts/batch", self._add_batch),
            web.delete("/accounts/invalid", self._remove_invalid),
            web.get("/accounts/{email}", self._show),
            web.delete("/accounts/{email}", self._remove),
            web.post("/accounts/{email}/refresh", self._refresh),
            web.post("/accounts/{email}/revoke", self._revoke),
            web.post("/reload", self._reload),
            web.get("/oauth/providers", self._list_providers),
        ):
            yield RouteKind.API, route
        yield RouteKind.SECRET, web.get("/accounts/{email}/token", self._token, allow_head=False)

    async def _list(self, _request: web.Request) -> web.Response:
        accounts = [mailbox_json(one) for one in await self._mailboxes.listing()]
        disabled = [asdict(account) | _DISABLED for account in self._mailboxes.disabled()]
        return answer(total_accounts=len(accounts), accounts=accounts, disabled_accounts=disabled)

    async def _show(self, request: web.Request) -> web.Response:
        return answer(account=mailbox_json(await self._mailboxes.find(email_of(request))))

    async def _add(self, request: web.Request) -> web.Response:
        proposals = _proposals([("", await json_body(request))])
        result = await self._mailboxes.add(proposals)
        if result.failed:
            return error_response(_not_added(result.failed[0][1]))
        (added,) = result.added
        log_change("mailbox added", request, added.mailbox)
        mailbox = mailbox_json(await self._mailboxes.find(added.mailbox))
        return answer(201 if added.is_new else 200, account=mailbox | _password(added))

    async def _add_batch(self, request: web.Request) -> web.Response:
        documents = await json_body(request)
        if not isinstance(documents, list) or not 0 < len(documents) <= MAX_BATCH:
            fail("", f"must be an array of 1 to {MAX_BATCH} accounts")
        proposals = _proposals([(f"[{number}]", one) for number, one in enumerate(documents)])
        result = await self._mailboxes.add(proposals)
        for added in result.added:
            log_change("mailbox added", request, added.mailbox)
        failed = [{"email": email, "error": str(error)} for email, error in result.failed]
        success: bool | str = "partial" if result.added and failed else not failed
        status = {True: 200, "partial": 206, False: 400}[success]
        return answer(
            status,
            success=success,
            added_count=len(result.added),
            failed_count=len(failed),
            added_accounts=[{"email": one.mailbox} | _password(one) for one in result.added],
            failed_accounts=failed,
        )

    async def _remove(self, request: web.Request) -> web.Response:
        await self._mailboxes.remove(email_of(request))
        log_change("mailbox removed", request, email_of(request))
        return answer(removed=[email_of(request)])

    async def _remove_all(self, request: web.Request) -> web.Response:
        if request.query.get("confirm") != "true":
            fail("confirm", "must be true in the query, since this removes every added mailbox")
        removed = await self._mailboxes.remove_all()
        if not removed:
            return error_response(HttpError(404, "no mailbox was added at run time"))
        for mailbox in removed:
            log_change("mailbox removed", request, mailbox)
        return answer(removed_count=len(removed), removed=removed)

    async def _remove_invalid(self, request: web.Request) -> web.Response:
        pruned = await self._mailboxes.remove_invalid()
        for mailbox in pruned.removed:
            log_change("mailbox removed", request, mailbox)
        undecided = [{"email": email, "error": str(error)} for email, error in pruned.undecided]
        return answer(
            removed_count=len(pruned.removed), removed=pruned.removed, undecided=undecided
        )

    async def _refresh(self, request: web.Request) -> web.Response:
        mailbox = await self._mailboxes.refresh(email_of(request))
        log_change("mailbox refreshed", request, mailbox.account.key)
        return answer(account=mailbox_json(mailbox))

    async def _token(self, request: web.Request) -> web.Response:
        try:
            account, token = await self._mailboxes.token(email_of(request))
        except ProxyError as error:
            mailbox = login_key(email_of(request))
            log_change("access token not served", request, mailbox, error=error)
            raise
        log_change("access token served", request, account.key)
        left_seconds = max(0.0, token.expires_at - time.monotonic())
        return answer(
            email=account.email,
            access_token=token.value,
            token_type=TOKEN_TYPE,
            expires_in=int(left_seconds),
            expires_at=rfc3339(time.time() + left_seconds),
            scope=token.scope,
        )

    async def _revoke(self, request: web.Request) -> web.Response:
        revoked = await self._mailboxes.revoke(email_of(request))
        log_change("grant revoked", request, revoked.mailbox.account.key)
        return answer(account=mailbox_json(revoked.mailbox), warnings=revoked.left_over)

    async def _reload(self, request: web.Request) -> web.Response:
        await self._mailboxes.reload()
        _log.event(logging.INFO, "configuration read again", by=request.remote)
        return answer()

    async def _list_providers(self, _request: web.Request) -> web.Response:
        refreshers = await asyncio.to_thread(self._mailboxes.refreshers)  # plug-ins are loaded
        return answer(
            providers=[one.to_json() for one in self._mailboxes.providers],
            refreshers=[one.to_json() for one in refreshers],
        )


def mailbox_json(mailbox: Mailbox) -> dict[str, object]:
    """Return a mailbox as a JSON object."""
    status = mailbox.status.to_json()
    return {
        "email": status.pop("mailbox"),
        **status,
        "source": "added" if mailbox.is_added else "file",
        "can_sign_in": not mailbox.obstacle,
    }


def _password(added: AddedMailbox) -> dict[str, str]:
    return {"password": added.password} if added.password else {}


def _not_added(error: TokenError) -> HttpError:
    """Return the response for a mailbox without a token; if the provider refused it, 400."""
    failed = http_error(error)
    is_transient = isinstance(error, TokenStoreUnavailable) or error.is_transient
    status = failed.status if is_transient else 400
    return HttpError(status, f"not added, because there is no access token: {failed.text}")


def _proposals(documents: list[tuple[str, Any]]) -> list[tuple[str, Proposal]]:
    return [(path, _proposal(path, document)) for path, document in documents]


def _proposal(path: str, document: Any) -> Proposal:  # noqa: ANN401 - as it came
    if not isinstance(document, dict):
        fail(path, "must be an object")
    verify = flag(document, "verify", path, default=True)
    overwrite = flag(document, "overwrite", path, default=False)
    return Proposal(document, verify, overwrite)
