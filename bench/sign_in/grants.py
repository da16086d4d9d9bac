"""The grants that a run's users have given, from the exchange of a code to their revocation.

I1: every grant that may have begun is revoked: at the end, after an error or a signal, and at once
after a second signal. Those that cannot be revoked are listed.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from bench.sign_in.authorization_server import OutcomeUnknown, SignInFailed

if TYPE_CHECKING:
    from collections.abc import Collection

    from bench.sign_in.authorization_server import (
        AuthorizationServer,
        Redemption,
        RegisteredClient,
    )

_AT_ONCE = 4  # revocations
_END_SECONDS = 120.0
_END_AT_ONCE_SECONDS = 10.0  # after a second signal
_ATTEMPTS = 3
_AGAIN_SECONDS = 0.2


class Grants:
    """All grants of one run at one server; for several threads."""

    def __init__(
        self, server: AuthorizationServer, client: RegisteredClient, *, is_kept: bool
    ) -> None:
        self._server = server
        self._client = client
        self._is_kept = is_kept
        self._changed = threading.Condition()
        self._tokens: dict[str, str] = {}  # refresh tokens by mailbox
        self._under_way: set[str] = set()  # mailboxes whose code is being exchanged
        self._doubtful: dict[str, Redemption] = {}  # codes whose exchange got no answer

    def redeem(self, mailbox: str, redemption: Redemption) -> str:
        """Exchange a code; return the refresh token. Blocks. Raises: as the server's `redeem`."""
        with self._changed:
            self._under_way.add(mailbox)
        try:
            token = self._server.redeem(self._client, redemption)
            self.add(mailbox, token)
        except OutcomeUnknown:
            with self._changed:
                self._doubtful[mailbox] = redemption
            raise
        finally:
            with self._changed:
                self._under_way.discard(mailbox)
                self._changed.notify_all()
        return token

    def add(self, mailbox: str, token: str) -> None:
        """Take a grant that began otherwise."""
        with self._changed:
            self._tokens[mailbox] = token

    def end(self) -> None:
        """Revoke all grants, or list them; blocks, never raises."""
        self._end(_END_SECONDS)

    def end_at_once(self) -> None:
        """Do the same in the last moment of the process, with a short time limit."""
        self._end(_END_AT_ONCE_SECONDS)

    def _end(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, seconds)
        at = f"at {self._server.issuer}"
        if unknown := self._settle(deadline):
            _tell(f"It is not known whether these users have a grant {at}", unknown)
        if not self._tokens:
            return
        if self._is_kept:
            _tell(f"The grants of these users stay {at}", self._tokens)
            self._tokens.clear()
        elif not self._server.revocation_endpoint:
            _tell(f"These grants stay, because nothing can be revoked {at}", self._tokens)
            self._tokens.clear()
        else:
            self._revoke_all(deadline)
            if self._tokens:
                _tell(f"The grants of these users could not be revoked {at}", self._tokens)

    def _settle(self, deadline: float) -> list[str]:
        """Find out what became of codes without an answer, by presenting them again.

        If they were exchanged, the second use ends the grant (RFC 6749 §4.1.2); if not, there are
        tokens now. Returns the mailboxes of those that had no answer again.
        """
        unknown = []
        for mailbox, redemption in tuple(self._doubtful.items()):
            try:
                if time.monotonic() > deadline:
                    raise OutcomeUnknown("there is no time left")
                self.add(mailbox, self._server.redeem(self._client, redemption))
            except OutcomeUnknown:
                unknown.append(mailbox)
            except SignInFailed:
                pass  # it has ended
            self._doubtful.pop(mailbox, None)
        return unknown

    def _revoke_all(self, deadline: float) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for mailbox, token in tuple(self._tokens.items()):
                threads.submit(self._revoke, mailbox, token, deadline)

    def _revoke(self, mailbox: str, token: str, deadline: float) -> None:
        for _ in range(_ATTEMPTS):
            if time.monotonic() > deadline:
                return
            try:
                self._server.revoke(self._client, token)
            except SignInFailed:
                time.sleep(_AGAIN_SECONDS)
            else:
                with self._changed:
                    self._tokens.pop(mailbox, None)
                return


def _tell(what: str, mailboxes: Collection[str]) -> None:
    """Print even if progress is not shown, because grants are left behind."""
    names = "\n".join(f"  {one}" for one in sorted(mailboxes))
    with suppress(OSError, ValueError):  # standard error is closed
        print(f"{what}, {len(mailboxes)} of them:\n{names}", file=sys.stderr, flush=True)  # noqa: T201
