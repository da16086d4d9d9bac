"""Who may sign a mailbox in: attempts under way, and the grant that comes of them.

I1: an attempt is found by its state, once, and within its time.
I2: a grant is kept only if it is the mailbox's: the provider names who signed in, or its mail
server takes the token.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts import login_key
from xoauth2_proxy.errors import SignInRefused, UpstreamAuthRejected
from xoauth2_proxy.oauth.authorization import AuthorizationServer
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.renewal import current_grant, issued_to, renewed_grant
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth_client import fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Executor

    from xoauth2_proxy.accounts import Account
    from xoauth2_proxy.oauth.authorization import Attempt, SignedIn
    from xoauth2_proxy.oauth.stores import TokenStore

    Prove = Callable[[str], Awaitable[None]]

ATTEMPT_SECONDS = 300.0  # a password manager and a second factor take their time
MAX_ATTEMPTS = 100  # beyond it the oldest is given up


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
        server = AuthorizationServer(account, self._threads)
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
) -> None:
    """Keep the tokens as the account's grant, in place of the one before.

    `prove` logs in at the provider's mail server as the mailbox, with the access token it is given;
    it is asked where the provider does not say who signed in.

    Raises:
        SignInRefused: somebody else signed in, or nobody can say who.
        UpstreamError: `prove` found the mail server in trouble.
        TokenStoreUnavailable: the store did not take the grant.
    """
    await _check_identity(account, signed_in, prove)
    new = StoredGrant(
        issued_to=issued_to(account),
        descends_from=fingerprint(account.oauth.refresh_token),
        signed_in_at=now,
        subject=signed_in.subject,
    )
    async with store.lock(account.key):
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
            is_revoked = await AuthorizationServer(account, threads).revoke(grant.refresh_token)
        await store.delete(account.key)
    return is_revoked


async def _check_identity(account: Account, signed_in: SignedIn, prove: Prove | None) -> None:
    wanted = [name for name in (account.email, account.oauth.sign_in_as) if name]
    if signed_in.identity:
        if login_key(signed_in.identity) not in map(login_key, wanted):
            raise SignInRefused(
                f"{signed_in.identity} signed in, but the mailbox is {' or '.join(wanted)}: sign "
                "out at the provider and sign in again, or write "
                f'"sign_in_as": "{signed_in.identity}" if this is how the mailbox\'s owner is '
                "called there"
            )
        return
    if prove is None:
        raise SignInRefused(f"the provider does not tell who signed in for {account.email}")
    try:
        await prove(signed_in.issued.access_token)
    except UpstreamAuthRejected as error:
        raise SignInRefused(
            f"{account.upstream.host} does not take the token for {account.email} ({error}): has "
            "somebody else signed in?"
        ) from None
