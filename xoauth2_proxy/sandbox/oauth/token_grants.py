"""What each grant type gives: which mailbox, for which scope, with which tokens.

RFC 6749 §4.1 (authorization code), §4.4 (client credentials) and §6 (refresh token); RFC 8628.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xoauth2_proxy.sandbox.oauth.attempts import CodeReused
from xoauth2_proxy.sandbox.oauth.clients import DEVICE_GRANT, GRANT_TYPES
from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.tokens.token_factory import GrantEnded, TokenKind
from xoauth2_proxy.sandbox.tokens.token_verifier import TooManyRevoked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xoauth2_proxy.sandbox.oauth.attempts import Allowed, Attempts, AuthorizationRequest
    from xoauth2_proxy.sandbox.oauth.clients import Client
    from xoauth2_proxy.sandbox.oauth.id_tokens import IdTokens
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings
    from xoauth2_proxy.sandbox.tokens.token_factory import TokenFactory

OFFLINE = "offline_access"  # OpenID Connect Core §11
OPENID = "openid"
_NO_MAILBOX = "client_credentials need the parameter mailbox, or a client_id that is one"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request for tokens, as far as it can be read."""

    grant_type: str
    mailbox: str  # that the request names, good or not; "": none
    client_id: str
    client_secret: str = field(repr=False)
    form: Mapping[str, str] = field(repr=False)
    client: str  # address:port

    @property
    def scope(self) -> str:
        """The scope that is asked for; "" for what was granted."""
        return self.form.get("scope", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Issue:
    mailbox: str
    scope: str
    grant: str = ""
    refresh_token: str = field(default="", repr=False)
    request: AuthorizationRequest | None = None  # that an ID token answers


class TokenGrants:
    """Issues tokens for grants."""

    def __init__(
        self,
        settings: TokenEndpointSettings,
        factory: TokenFactory,
        attempts: Attempts,
        id_tokens: IdTokens,
    ) -> None:
        self._settings = settings
        self._factory = factory
        self._attempts = attempts
        self._id_tokens = id_tokens

    def mailbox_of(self, form: Mapping[str, str], client_id: str) -> str:
        """Return the mailbox that a token request is about; "" if it cannot be known."""
        match form.get("grant_type"):
            case "refresh_token":
                try:
                    return self._factory.read(form.get("refresh_token", "")).mailbox
                except GrantEnded:
                    return ""
            case "authorization_code":
                return self._attempts.mailbox_of_code(form.get("code", ""))
            case "urn:ietf:params:oauth:grant-type:device_code":
                return self._attempts.mailbox_of_code(form.get("device_code", ""))
        return form.get("mailbox", client_id if "@" in client_id else "").lower()

    async def issue(
        self, asked: TokenRequest, client: Client, kind: TokenKind = TokenKind.VALID
    ) -> dict[str, object]:
        """Return the body of the response; the access token is of this kind.

        Raises `OAuthError`: the request is refused.
        """
        try:
            issue = self._issue(asked, client)
            more = {"grant": issue.grant, "client_id": client.client_id, "scope": issue.scope}
            seconds = self._settings.ttl_seconds
            token = self._factory.mint(
                issue.mailbox, kind, seconds, {key: value for key, value in more.items() if value}
            )
        except GrantEnded as ended:
            raise OAuthError("invalid_grant", ended.reason) from None
        except TooManyRevoked as error:  # because of a fault, or a code that came twice
            raise OAuthError("server_error", str(error), 500) from None
        body: dict[str, object] = {"token_type": "Bearer", "access_token": token}
        body["expires_in"] = int(seconds) if seconds.is_integer() else seconds
        if issue.refresh_token:
            body["refresh_token"] = issue.refresh_token
        if issue.scope:
            body["scope"] = issue.scope
        if issue.request is not None and OPENID in issue.scope.split():
            body["id_token"] = await self._id_tokens.issue(issue.request, issue.mailbox)
        return body

    def _issue(self, asked: TokenRequest, client: Client) -> _Issue:
        match asked.grant_type:
            case "refresh_token":
                return self._refreshed(asked, client)
            case "authorization_code":
                return self._redeemed(asked, client)
            case "client_credentials":
                if not asked.mailbox:
                    raise OAuthError("invalid_request", _NO_MAILBOX)
                return _Issue(mailbox=asked.mailbox, scope=asked.scope)
            case grant_type if grant_type == DEVICE_GRANT:
                device_code = asked.form.get("device_code", "")
                return self._begun(self._attempts.poll(device_code, client.client_id))
        told = f"only {', '.join(GRANT_TYPES)} are known"
        raise OAuthError("unsupported_grant_type", told)

    def _refreshed(self, asked: TokenRequest, client: Client) -> _Issue:
        refresh_token = asked.form.get("refresh_token", "")
        known = self._factory.read(refresh_token)
        if known.client_id and known.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The refresh token is another client's.")
        if known.scope and not set(asked.scope.split()) <= set(known.scope.split()):
            raise OAuthError("invalid_scope", "The scope is wider than what was granted.")
        _, successor = self._factory.use(refresh_token)
        return _Issue(
            mailbox=known.mailbox,
            scope=asked.scope or known.scope,
            grant=known.grant,
            refresh_token=successor,
        )

    def _redeemed(self, asked: TokenRequest, client: Client) -> _Issue:
        code, form = asked.form.get("code", ""), asked.form
        uri, verifier = form.get("redirect_uri", ""), form.get("code_verifier", "")
        try:
            allowed = self._attempts.redeem(code, client.client_id, uri, verifier)
        except CodeReused as reused:
            self._factory.end_grant(reused.grant)
            raise
        issue = self._begun(allowed)
        self._attempts.redeemed(code, issue.grant)
        return issue

    def _begun(self, allowed: Allowed) -> _Issue:
        request, scopes = allowed.request, allowed.request.scope.split()
        grant, refresh_token = self._factory.begin_grant(
            allowed.mailbox, request.client.client_id, request.scope
        )
        # OpenID Connect Core §11; OAuth 2.0 by itself leaves it to the server.
        has_refresh_token = OFFLINE in scopes or OPENID not in scopes
        return _Issue(
            mailbox=allowed.mailbox,
            scope=request.scope,
            grant=grant,
            refresh_token=refresh_token if has_refresh_token else "",
            request=request,
        )
