"""Signs mailboxes in: pending attempts, and who may give a mailbox its grant.

I1: an attempt is found by its state, once, and before it expires.
I2: a grant is saved only if it is the mailbox's: the provider names who signed in and vouches for
the name, or its mail server accepts the token.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.oauth_client import fingerprint
from xoauth2_proxy.errors import SignInRefused, TokenEndpointUnavailable, UpstreamAuthRejected
from xoauth2_proxy.oauth.grant import EpochSeconds
from xoauth2_proxy.oauth.refresh import current_grant, issued_to, refreshed_grant
from xoauth2_proxy.oauth.stores import StoredGrant

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager

    from xoauth2_proxy.accounts.accounts import Account
    from xoauth2_proxy.oauth.attempt import Attempt, SignInResult
    from xoauth2_proxy.oauth.authorization import SignInServer
    from xoauth2_proxy.oauth.refreshers import Refresher
    from xoauth2_proxy.oauth.stores import TokenStore

    TokenVerifier = Callable[[str], Awaitable[None]]

ATTEMPT_SECONDS = 300.0  # a password manager and a second factor take their time
MAX_ATTEMPTS = 100  # the oldest makes room
# Metadata and revocation take up to 10 s each, with a wait for a thread; others wait longer than
# this for the store's lock (`LOCK_WAIT_SECONDS`).
REVOKE_SECONDS = 30.0


class PendingSignIns:
    """The attempts of this process that have not been answered."""

    def __init__(self, threads: Executor, clock: Callable[[], float] = time.monotonic) -> None:
        self._threads = threads
        self._clock = clock
        # When each began, by state, the oldest first.
        self._pending: dict[str, tuple[float, SignInServer, Attempt]] = {}

    def __len__(self) -> int:
        self._drop_expired()
        return len(self._pending)

    async def begin(
        self, account: Account, redirect_uri: str, refresher: Refresher | None = None
    ) -> Attempt:
        """Return a new attempt for the account, whose refresher is needed if it is a plug-in.

        Raises: as `SignInServer.begin`.
        """
        server = await open_server(account, refresher, self._threads)
        attempt = await server.begin(redirect_uri)
        self._drop_expired()
        while len(self._pending) >= MAX_ATTEMPTS:
            del self._pending[next(iter(self._pending))]
        self._pending[attempt.state] = self._clock(), server, attempt
        return attempt

    async def finish(self, answer: Mapping[str, str]) -> tuple[Account, SignInResult]:
        """Return the account and who signed in; `answer` is the query of the redirect.

        Raises:
            SignInRefused: it answers no pending attempt, or the sign-in was refused.
            TokenError: the provider cannot be asked.
        """
        self._drop_expired()
        try:
            _, server, attempt = self._pending.pop(answer.get("state", ""))
        except KeyError:
            raise SignInRefused(
                "no sign-in waits for this answer: it came after more than "
                f"{ATTEMPT_SECONDS:.0f} s, or for the second time; start the sign-in again"
            ) from None
        return server.account, await server.finish(attempt, answer)

    def _drop_expired(self) -> None:
        oldest = self._clock() - ATTEMPT_SECONDS
        for state, (begun_at, *_) in list(self._pending.items()):
            if begun_at > oldest:
                break
            del self._pending[state]


async def save_sign_in(
    store: TokenStore,
    account: Account,
    signed_in: SignInResult,
    now: EpochSeconds,
    verify_token: TokenVerifier | None = None,
    keep_lock: AbstractAsyncContextManager[object] | None = None,
) -> None:
    """Save the tokens as the account's grant, replacing the one before.

    `verify_token` logs in at the provider's mail server as the mailbox, with the access token it is
    given. It is called where the provider does not say who signed in, or does not vouch for the
    name, as Microsoft for multi-tenant applications. Without it such a sign-in is refused.
    `keep_lock` is entered once it is known who signed in, and held while the grant is saved.

    Raises:
        SignInRefused: another person signed in, or it is not known who did.
        UpstreamError: `verify_token` could not ask the mail server.
        TokenStoreUnavailable: the store did not save the grant.
        ProxyError: raised by `keep_lock`; nothing is saved then.
    """
    _check_name(account, signed_in)
    if not (signed_in.identity and signed_in.is_vouched):
        await _check_token(account, signed_in, verify_token)
    new = StoredGrant(
        issued_to=issued_to(account),
        descends_from=fingerprint(account.oauth.refresh_token),
        signed_in_at=now,
        subject=signed_in.subject,
    )
    async with keep_lock or nullcontext(), store.lock(account.key):
        await store.save(account.key, refreshed_grant(new, signed_in.issued, now))


async def revoke(
    store: TokenStore, account: Account, threads: Executor, refresher: Refresher | None = None
) -> bool:
    """Revoke the account's grant and delete it; return whether the provider has revoked it.

    Raises:
        TokenEndpointUnavailable: the provider cannot be asked; nothing is deleted.
        TokenEndpointRefused: the provider refuses the client; nothing is deleted.
        TokenStoreUnavailable: transient.
    """
    async with store.lock(account.key):
        stored = await store.load(account.key)
        grant = current_grant(account, stored, EpochSeconds(time.time()))
        is_revoked = False
        if grant.refresh_token or account.refresher_info.kept_in:
            try:
                async with asyncio.timeout(REVOKE_SECONDS):
                    server = await open_server(account, refresher, threads)
                    is_revoked = await server.revoke(grant.refresh_token)
            except TimeoutError:
                raise TokenEndpointUnavailable(
                    f"the provider did not revoke the grant within {REVOKE_SECONDS:.0f} s"
                ) from None
        await store.delete(account.key)
    return is_revoked


async def open_server(
    account: Account, refresher: Refresher | None, threads: Executor
) -> SignInServer:
    """Return where the account's owner signs in; `refresher` is the account's, if it is loaded.

    The first call imports Authlib, joserfc and requests, in a thread: 20 MiB that a relay whose
    mailboxes are signed in never needs, and a tenth of a second that would hold the event loop.
    """

    def imported() -> SignInServer:
        from xoauth2_proxy.oauth.authorization import server_of

        return server_of(account, refresher, threads)

    return await asyncio.get_running_loop().run_in_executor(threads, imported)


def _check_name(account: Account, signed_in: SignInResult) -> None:
    """Raise if the provider names a person who may not sign the mailbox in."""
    wanted = [name for name in (account.email, account.oauth.sign_in_as) if name]
    if signed_in.identity and _ascii_lower(signed_in.identity) not in map(_ascii_lower, wanted):
        raise SignInRefused(
            f"{signed_in.identity} signed in, but the mailbox is {' or '.join(wanted)}: sign "
            "out at the provider and sign in again, or write "
            f'"sign_in_as": "{signed_in.identity}" if this is how the mailbox\'s owner is '
            "called there"
        )


async def _check_token(
    account: Account, signed_in: SignInResult, verify_token: TokenVerifier | None
) -> None:
    """Raise unless the mail server accepts the token for the mailbox."""
    if verify_token is None:
        raise SignInRefused(
            f"the provider does not vouch for who signed in for {account.email}"
            if signed_in.identity
            else f"the provider does not say who signed in for {account.email}"
        )
    try:
        await verify_token(signed_in.issued.access_token)
    except UpstreamAuthRejected as error:
        raise SignInRefused(
            f"{account.upstream.host} refuses the token for {account.email} ({error}): sign in as "
            "this mailbox's owner"
        ) from None


def _ascii_lower(name: str) -> str:
    """Return the name with ASCII letters in lower case; some other letters would become ASCII."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in name.strip())
