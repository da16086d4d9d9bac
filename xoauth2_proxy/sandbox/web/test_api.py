"""The API for test suites: it mints, explains and revokes tokens, and adds faults."""

# Annotations are read by pydantic, so they stay real objects here.
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from xoauth2_proxy.sandbox.behaviour import STRICT
from xoauth2_proxy.sandbox.faults import Fault, TokenFault
from xoauth2_proxy.sandbox.settings_document import fault_from
from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory, TokenKind
from xoauth2_proxy.sandbox.tokens.token_verifier import TokenVerifier, TooManyRevoked
from xoauth2_proxy.sandbox.web.server import refusal

MAX_BATCH = 1000  # tokens; each takes some 20 microseconds to sign

_Mailbox = Annotated[str, Field(min_length=3, max_length=320, pattern="^[^@]+@[^@]+$")]
_Token = Annotated[str, Field(min_length=1, max_length=16_384)]


class _Mint(BaseModel):
    model_config = STRICT
    ttl_seconds: float = Field(default=3600.0, ge=-31_536_000, le=31_536_000)
    kind: TokenKind = TokenKind.VALID


class _MintOne(_Mint):
    mailbox: _Mailbox


class _MintBatch(_Mint):
    mailboxes: list[_Mailbox] = Field(min_length=1, max_length=MAX_BATCH)


class _Explain(BaseModel):
    model_config = STRICT
    token: _Token = Field(repr=False)


class _Revoke(BaseModel):
    model_config = STRICT
    token: _Token | None = Field(default=None, repr=False)  # None: all that were minted until now


_Body = TypeVar("_Body", bound=BaseModel)


@dataclass(eq=False, repr=False)
class TestApi:
    """Serves `/test/…`. Bodies are JSON, which no form of a web page can send."""

    add_fault: Callable[[Fault | TokenFault], None]  # raises `ValueError` if there are too many
    clear_faults: Callable[[], None]
    verifier: TokenVerifier
    factory: TokenFactory

    def routes(self) -> Iterator[web.RouteDef]:
        """Return the routes to serve."""
        yield web.post("/test/tokens", self._mint_one)
        yield web.post("/test/tokens/batch", self._mint_batch)
        yield web.post("/test/tokens/explain", self._explain)
        yield web.post("/test/tokens/revoke", self._revoke)
        yield web.post("/test/faults", self._add_fault)
        yield web.delete("/test/faults", self._clear_faults)

    async def _mint_one(self, request: web.Request) -> web.Response:
        body = await _body(request, _MintOne)
        return web.json_response(self._mint(body.mailbox, body), status=201)

    async def _mint_batch(self, request: web.Request) -> web.Response:
        body = await _body(request, _MintBatch)
        tokens = [self._mint(mailbox, body) for mailbox in body.mailboxes]
        return web.json_response({"tokens": tokens}, status=201)

    def _mint(self, mailbox: str, body: _Mint) -> dict[str, object]:
        try:
            token = self.factory.mint(mailbox, body.kind, body.ttl_seconds)
        except TooManyRevoked as error:
            raise refusal(web.HTTPConflict, str(error)) from None
        expires_at = None  # refresh tokens do not expire
        if body.kind is not TokenKind.REFRESH:
            left = self.verifier.explain(token)["seconds_left"]
            expires_at = round(time.time() + left, 3) if isinstance(left, float) else None
        return {
            "mailbox": mailbox.lower(),
            "kind": body.kind.value,
            "token": token,
            "expires_at": expires_at,
        }

    async def _explain(self, request: web.Request) -> web.Response:
        body = await _body(request, _Explain)
        return web.json_response(self.verifier.explain(body.token))

    async def _revoke(self, request: web.Request) -> web.Response:
        body = await _body(request, _Revoke)
        try:
            if body.token is None:
                self.verifier.revoke_all()
            else:
                self.verifier.revoke(body.token)
        except TooManyRevoked as error:
            raise refusal(web.HTTPConflict, str(error)) from None
        return web.json_response({})

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            self.add_fault(fault_from(await _json(request)))
        except ValueError as error:
            raise refusal(web.HTTPBadRequest, str(error)) from None
        return web.json_response({}, status=201)

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.clear_faults()
        return web.json_response({})


async def _json(request: web.Request) -> object:
    if request.content_type != "application/json":
        raise refusal(web.HTTPUnsupportedMediaType, "the body must be application/json")
    try:
        return json.loads(await request.text())
    except (ValueError, RecursionError):
        raise refusal(web.HTTPBadRequest, "the body is no JSON") from None


async def _body(request: web.Request, kind: type[_Body]) -> _Body:
    document = await _json(request)
    try:
        return kind.model_validate_json(json.dumps(document))
    except ValidationError as error:
        problems = (
            ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"]
            for problem in error.errors(include_url=False, include_context=False)
        )
        raise refusal(web.HTTPBadRequest, "; ".join(problems)) from None
