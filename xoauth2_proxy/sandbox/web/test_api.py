"""What only a test bench may have: minting and explaining tokens, and faults while it runs.

The proxy has none of this, and neither has the sandbox that runs inside it.
"""

# Annotations are read by pydantic, so they stay real objects here.
import json
import time
from collections.abc import Iterator
from typing import Annotated, Protocol, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from xoauth2_proxy.sandbox.behaviour import STRICT
from xoauth2_proxy.sandbox.faults import Fault, TokenFault
from xoauth2_proxy.sandbox.provider_settings import fault_from
from xoauth2_proxy.sandbox.provider_state import ProviderState
from xoauth2_proxy.sandbox.tokens.revocations import TooManyRevoked
from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory, TokenKind, explain
from xoauth2_proxy.sandbox.web.server import refusal

MAX_BATCH = 1000  # tokens; each takes some 20 microseconds to sign

_Mailbox = Annotated[str, Field(min_length=3, max_length=320, pattern="^[^@]+@[^@]+$")]
_Token = Annotated[str, Field(min_length=1, max_length=16_384)]


class Script(Protocol):
    """Where faults go."""

    def add_fault(self, fault: Fault | TokenFault) -> None:
        """Add a fault. Raises `ValueError`: there are too many."""
        ...

    def clear_faults(self) -> None:
        """Forget them."""
        ...


class _TokenWanted(BaseModel):
    model_config = STRICT
    mailbox: _Mailbox
    ttl_seconds: float = Field(default=3600.0, ge=-31_536_000, le=31_536_000)
    kind: TokenKind = TokenKind.VALID


class _BatchWanted(BaseModel):
    model_config = STRICT
    mailboxes: list[_Mailbox] = Field(min_length=1, max_length=MAX_BATCH)
    ttl_seconds: float = Field(default=3600.0, ge=-31_536_000, le=31_536_000)
    kind: TokenKind = TokenKind.VALID


class _TokenGiven(BaseModel):
    model_config = STRICT
    token: _Token


class _Revocation(BaseModel):
    model_config = STRICT
    token: _Token | None = None  # None: all that were minted until now


_Wanted = TypeVar("_Wanted", bound=BaseModel)


class TestApi:
    """Serves `/test/…`. Bodies are JSON, which no form of a web page can send."""

    def __init__(self, script: Script, provider: ProviderState, mint: TokenFactory) -> None:
        self._script = script
        self._provider = provider
        self._mint = mint

    def routes(self) -> Iterator[web.RouteDef]:
        """Return what is served."""
        yield web.post("/test/tokens", self._mint_one)
        yield web.post("/test/tokens/batch", self._mint_batch)
        yield web.post("/test/tokens/explain", self._explain)
        yield web.post("/test/tokens/revoke", self._revoke)
        yield web.post("/test/faults", self._add_fault)
        yield web.delete("/test/faults", self._clear_faults)

    def end(self) -> None:
        """Nothing waits here."""

    async def _mint_one(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _TokenWanted)
        minted = self._minted(wanted.mailbox, wanted.kind, wanted.ttl_seconds)
        return web.json_response(minted, status=201)

    async def _mint_batch(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _BatchWanted)
        tokens = [
            self._minted(mailbox, wanted.kind, wanted.ttl_seconds) for mailbox in wanted.mailboxes
        ]
        return web.json_response({"tokens": tokens}, status=201)

    def _minted(self, mailbox: str, kind: TokenKind, ttl_seconds: float) -> dict[str, object]:
        try:
            token = self._mint.mint(mailbox, kind, ttl_seconds)
        except TooManyRevoked as error:
            raise refusal(web.HTTPConflict, str(error)) from None
        return {
            "mailbox": mailbox.lower(),
            "kind": kind.value,
            "token": token,
            # A refresh token has no end of its own.
            "expires_at": None if kind is TokenKind.REFRESH else _end_of(self._provider, token),
        }

    async def _explain(self, request: web.Request) -> web.Response:
        given = await _body(request, _TokenGiven)
        return web.json_response(explain(self._provider, given.token))

    async def _revoke(self, request: web.Request) -> web.Response:
        wanted = await _body(request, _Revocation)
        if wanted.token is None:
            self._provider.revoke_all()
        else:
            try:
                self._provider.revoke(wanted.token)
            except TooManyRevoked as error:
                raise refusal(web.HTTPConflict, str(error)) from None
        return web.json_response({})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self._script.add_fault(fault_from(await _json(request)))
        except ValueError as error:
            raise refusal(web.HTTPBadRequest, str(error)) from None
        return web.json_response({}, status=201)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self._script.clear_faults()
        return web.json_response({})


def _end_of(provider: ProviderState, token: str) -> float | None:
    left = explain(provider, token)["seconds_left"]
    return round(time.time() + left, 3) if isinstance(left, float) else None


async def _json(request: web.Request) -> object:
    if request.content_type != "application/json":
        raise refusal(web.HTTPUnsupportedMediaType, "the body must be application/json")
    try:
        return json.loads(await request.text())
    except (ValueError, RecursionError):
        raise refusal(web.HTTPBadRequest, "the body is no JSON") from None


async def _body(request: web.Request, kind: type[_Wanted]) -> _Wanted:
    document = await _json(request)
    try:
        return kind.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems = (
            ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"]
            for problem in error.errors(include_url=False, include_context=False)
        )
        raise refusal(web.HTTPBadRequest, "; ".join(problems)) from None
