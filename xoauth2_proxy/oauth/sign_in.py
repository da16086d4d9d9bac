"""Who may sign a mailbox in: attempts under way, and the grant that comes of them.

I1: an attempt is found by its state, once, and within its time.
I2: a grant is kept only if it is the mailbox's: the provider names who signed in and answers for
the name, or its mail server takes the token.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import SignInRefused, TokenEndpointUnavailable, UpstreamAuthRejected
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import current_grant, issued_to, renewed_grant
from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.authorization import Attempt, AuthorizationServer, SignedIn
    from xoauth2_proxy.oauth.stores import TokenStore

    Prove = Callable[[str], Awaitable[None]]

ATTEMPT_SECONDS = 300.0  # a password manager and a second factor take their time
MAX_ATTEMPTS = 100  # beyond it the oldest is given up
# For metadata and revocation, 10 s each, and a thread that is free: within what others wait for the
# store's lock (`stores.turns.LOCK_SECONDS`).
REVOKE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt, and where it was begun."""

    server: AuthorizationServer
    attempt: Attempt
    begun_at: float

    @property
    def account(self) -> Account:
        """Whose attempt it is."""
        return self.server.account


class SignIns:
    """The attempts whose answers may come back to this process."""

    def __init__(self, threads: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._clock = clock
        self._begun: dict[str, Begun] = {}  # by state, the oldest first

    def __len__(self) -> int:
        self._forget_the_late()
        return len(self._begun)

    async def begin(self, account: Account, redirect_uri: str) -> Attempt:
        """Return an attempt of the account's owner. Raises: as `AuthorizationServer.begin`."""
        server = await _server(account, self._threads)
        attempt = await server.begin(redirect_uri)
        self._forget_the_late()
        while len(self._begun) >= MAX_ATTEMPTS:
            del self._begun[next(iter(self._begun))]
        self._begun[attempt.state] = Begun(server, attempt, self._clock())
        return attempt

    def take(self, state: str) -> Begun | None:
        """Return the attempt that `state` belongs to, for the first and the last time."""
        self._forget_the_late()
        return self._begun.pop(state, None)

    async def finish(self, answer: Mapping[str, str]) -> tuple[Account, SignedIn]:
        """Return who signed in for which account; `answer` is the query of the redirect.

        Raises:
            SignInRefused: no attempt is under way that this answers, or it was refused.
            TokenError: the provider cannot be asked.
        """
        begun = self.take(answer.get("state", ""))
        if begun is None:
            raise SignInRefused(
                f"no sign-in waits for this answer: it came later than {ATTEMPT_SECONDS:.0f} s, "
                "or for a second time; begin again"
            )
        return begun.account, await begun.server.finish(begun.attempt, answer)

    def _forget_the_late(self) -> None:
        oldest = self._clock() - ATTEMPT_SECONDS
        for state, begun in list(self._begun.items()):
            if begun.begun_at > oldest:
                break
            del self._begun[state]


async def adopt(
    store: TokenStore,
    account: Account,
    signed_in: SignedIn,
    now: EpochSeconds,
    prove: Prove | None = None,
    turn: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Keep the tokens as the account's grant, in place of the one before.

    `prove` logs in at the provider's mail server as the mailbox, with the access token it is given;
    it is asked wherever the provider does not say who signed in, or does not answer for what it
    says, as Microsoft for organisations that it leaves open. Without it such a sign-in is refused.
    `turn` is entered once it is known who signed in, and held while the grant is kept.

    Raises:
        SignInRefused: somebody else signed in, or nobody can say who.
        UpstreamError: `prove` found the mail server in trouble.
        TokenStoreUnavailable: the store did not take the grant.
        ProxyError: whatever `turn` raises; nothing is kept then.
    """
    _check_name(account, signed_in)
    if not (signed_in.identity and signed_in.is_vouched):
        await _check_token(account, signed_in, prove)
    new = StoredGrant(
        issued_to=issued_to(account),
        descends_from=fingerprint(account.oauth.refresh_token),
        signed_in_at=now,
        subject=signed_in.subject,
    )
    async with turn or nullcontext(), store.lock(account.key):
        await store.save(account.key, renewed_grant(new, signed_in.issued, now))


async def revoke(
    store: TokenStore, account: Account, threads: Executor, now: EpochSeconds | None = None
) -> bool:
    """Give the account's grant back and forget it; return whether the provider took it back.

    Raises:
        TokenEndpointUnavailable: the provider cannot be asked; nothing is forgotten then.
        TokenEndpointRefused: nor is it where the provider does not know the client any more.
        TokenStoreUnavailable: transient.
    """
    moment = EpochSeconds(time.time()) if now is None else now
    async with store.lock(account.key):
        grant = current_grant(account, await store.load(account.key), moment)
        is_revoked = False
        if grant.refresh_token:
            is_revoked = await _give_back(account, grant.refresh_token, threads)
        await store.delete(account.key)
    return is_revoked


async def _give_back(account: Account, refresh_token: str, threads: Executor) -> bool:
    try:
        async with asyncio.timeout(REVOKE_SECONDS):
            server = await _server(account, threads)
            return await server.revoke(refresh_token)
    except TimeoutError:
        raise TokenEndpointUnavailable(
            f"the provider could not be told within {REVOKE_SECONDS:.0f} s"
        ) from None


async def _server(account: Account, threads: Executor) -> AuthorizationServer:
    """Return the account's authorization server.

    The first call imports Authlib, joserfc and requests, in a thread: 20 MiB that a relay whose
    mailboxes are signed in never needs, and a tenth of a second that would hold the event loop.
    """

    def imported() -> AuthorizationServer:
        from xoauth2_proxy.oauth.authorization import AuthorizationServer

        return AuthorizationServer(account, threads)

    return await asyncio.get_running_loop().run_in_executor(threads, imported)


def _check_name(account: Account, signed_in: SignedIn) -> None:
    """Raise if the provider names somebody who may not sign the mailbox in."""
    wanted = [name for name in (account.email, account.oauth.sign_in_as) if name]
    if signed_in.identity and _lower(signed_in.identity) not in map(_lower, wanted):
        raise SignInRefused(
            f"{signed_in.identity} signed in, but the mailbox is {' or '.join(wanted)}: sign "
            "out at the provider and sign in again, or write "
            f'"sign_in_as": "{signed_in.identity}" if this is how the mailbox\'s owner is '
            "called there"
        )


async def _check_token(account: Account, signed_in: SignedIn, prove: Prove | None) -> None:
    """Raise unless the mail server lets the mailbox in with the token."""
    if prove is None:
        raise SignInRefused(
            f"the provider does not vouch for who signed in for {account.email}"
            if signed_in.identity
            else f"the provider does not tell who signed in for {account.email}"
        )
    try:
        await prove(signed_in.issued.access_token)
    except UpstreamAuthRejected as error:
        raise SignInRefused(
            f"{account.upstream.host} does not take the token for {account.email} ({error}): has "
            "somebody else signed in?"
        ) from None


def _lower(name: str) -> str:
    """Return the name with ASCII's letters in lower case: there are others that become ASCII."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name.strip())
