"""ID tokens: who has signed in, signed with keys that anyone can fetch. OpenID Connect Core §2.

The keys are made when they are first needed, since an RSA key takes a tenth of a second.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from xoauth2_proxy.sandbox.oauth.errors import OAuthError
from xoauth2_proxy.sandbox.provider_settings import SigningAlgorithm
from xoauth2_proxy.sandbox.tokens.signing import Signer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from xoauth2_proxy.sandbox.oauth.attempts import AuthorizationRequest
    from xoauth2_proxy.sandbox.oauth.clients import Client
    from xoauth2_proxy.sandbox.provider_settings import TokenEndpointSettings

_PUBLISHED = (SigningAlgorithm.RS256, SigningAlgorithm.ES256)
_SECONDS = 3600


class IdTokens:
    """Issues ID tokens and publishes the keys that verify them."""

    def __init__(
        self, settings: TokenEndpointSettings, state_dir: Path, now: Callable[[], float]
    ) -> None:
        """`now` is the authorization server's clock, in seconds since the epoch."""
        self._settings = settings
        self._state_dir = state_dir
        self._now = now
        self._signers: dict[SigningAlgorithm, Signer] = {}
        self._loading = asyncio.Lock()

    async def issue(self, request: AuthorizationRequest, mailbox: str) -> str:
        """Return an ID token for the client. Raises `OAuthError`: its secret is too short."""
        issued_at = int(self._now())
        claims: dict[str, Any] = {
            "iss": request.issuer,
            "aud": request.client.client_id,
            "iat": issued_at,
            "auth_time": issued_at,
            "exp": issued_at + _SECONDS,
            **person(mailbox),
        }
        if request.nonce:
            claims["nonce"] = request.nonce
        return (await self._signer_for(request.client)).sign(claims)

    async def key_set(self) -> dict[str, object]:
        """Return the public keys. RFC 7517 §5."""
        return {"keys": [(await self._signer(one)).public_key for one in _PUBLISHED]}

    async def _signer_for(self, client: Client) -> Signer:
        algorithm = client.id_token_algorithm or self._settings.id_token_algorithm
        if algorithm is SigningAlgorithm.HS256 and client.secret:  # OpenID Connect Core §10.1
            try:
                return Signer.with_secret(client.secret.encode())
            except ValueError as error:
                raise OAuthError("server_error", f"HS256: {error}", 500) from None
        is_public = algorithm in _PUBLISHED
        return await self._signer(algorithm if is_public else SigningAlgorithm.RS256)

    async def _signer(self, algorithm: SigningAlgorithm) -> Signer:
        async with self._loading:
            if algorithm not in self._signers:
                self._signers[algorithm] = await asyncio.to_thread(
                    Signer.with_key_pair, algorithm, self._state_dir
                )
        return self._signers[algorithm]


def person(mailbox: str) -> dict[str, object]:
    """Return the claims that name the mailbox's owner. OpenID Connect Core §5.1."""
    return {
        # Not the address, so that a program which takes one for the other is found out.
        "sub": hashlib.sha256(mailbox.encode()).hexdigest()[:24],
        "email": mailbox,
        "email_verified": True,
        "preferred_username": mailbox,
    }
