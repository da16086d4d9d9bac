"""The logins of a load: each mailbox with the given secret or with its own mock tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.client.login import ClientLogin, Mechanism
from bench.targets.target_request import TargetError
from xoauth2_proxy.sandbox.state_directory import load_signing_key

if TYPE_CHECKING:
    from pathlib import Path

    from bench.runs.run_request import RunRequest
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

_TOKEN_SECONDS = 3600.0  # as at providers


def logins_of(request: RunRequest, state_dir: Path) -> list[ClientLogin]:
    """Return the logins of the plan's mailboxes, in order.

    Raises:
        TargetError: the key that signs mock tokens cannot be used.
    """
    mailboxes, mechanism = request.plan.mailboxes, request.mechanism
    if request.accounts is not None and not mechanism.takes_token:
        passwords = {one.address: one.password for one in request.accounts.mailboxes}
        return [_own_login(mailbox, mechanism, passwords[mailbox]) for mailbox in mailboxes]
    secret = "" if mechanism is Mechanism.NONE else request.secret
    if secret is not None:
        return [ClientLogin(mailbox, mechanism, lambda: secret) for mailbox in mailboxes]
    if not state_dir.is_dir():  # reading the key would create one that no server knows
        raise TargetError(
            f"There is no {state_dir}, where the key of the mock tokens should be: give the "
            "--state-dir of the proxy or sandbox that is to take them."
        )
    # A load with passwords does without the library for tokens, in each of its processes.
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

    try:
        tokens = MockTokens(load_signing_key(state_dir))
    except (OSError, ValueError) as error:
        raise TargetError(f"The mock tokens' signing key cannot be used: {error}") from error
    ttl_seconds = request.token_ttl_seconds or _TOKEN_SECONDS
    return [mock_login(mailbox, mechanism, tokens, ttl_seconds) for mailbox in mailboxes]


def _own_login(mailbox: str, mechanism: Mechanism, password: str) -> ClientLogin:
    return ClientLogin(mailbox, mechanism, lambda: password)


def mock_login(
    mailbox: str, mechanism: Mechanism, tokens: MockTokens, ttl_seconds: float = _TOKEN_SECONDS
) -> ClientLogin:
    """Return a login that uses a new mock token each time."""
    return ClientLogin(mailbox, mechanism, lambda: tokens.mint(mailbox, ttl_seconds=ttl_seconds))
