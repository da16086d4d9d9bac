"""Observes the provider during the run: asks the sandbox, if there is one, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from bench.measurement.result import NotReconciled, ProviderFigures, Reconciliation
from bench.reconciliation import provider_counters, provider_settings
from bench.reconciliation.reconcile import SandboxMessages, SandboxUnavailable, reconcile
from bench.targets.mailboxes import DOMAIN
from xoauth2_proxy.sandbox.mock_mailboxes import MOCK_MAILBOXES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.load.messages import Messages
    from bench.measurement.recorder import Recorder
    from bench.reconciliation.provider_counters import ProviderCounters
    from bench.targets.target import Target


class ProviderObserver:
    """The sandbox's messages and counters since `begin`, which creates the observer."""

    def __init__(
        self,
        target: Target,
        mailboxes: tuple[str, ...],
        position: int | NotReconciled,
        before: ProviderCounters | None,
        settings: Mapping[str, object] | None,
    ) -> None:
        self._target = target
        self._mailboxes = mailboxes
        self._position = position
        self._before = before
        self.settings = settings  # of the provider; None: no sandbox, or unknown

    @classmethod
    async def begin(cls, target: Target, mailboxes: tuple[str, ...]) -> Self:
        """Return an observer that starts now; never fails."""
        url = target.sandbox_url
        if not url:
            return cls(target, mailboxes, NotReconciled(target.no_sandbox_reason), None, None)
        position: int | NotReconciled
        try:
            position = await SandboxMessages(url).position()
        except SandboxUnavailable as error:
            position = NotReconciled(str(error))
        settings = await provider_settings.read(url)
        await provider_counters.begin_peaks(url)
        before = await provider_counters.read(url, target.admin_url)
        return cls(target, mailboxes, position, before, settings)

    async def provider(self) -> ProviderFigures | None:
        """Return the provider's counts since `begin`; None if unknown."""
        after = await provider_counters.read(self._target.sandbox_url, self._target.admin_url)
        return provider_counters.difference(self._before, after, self._mailboxes)

    async def reconciled(
        self, messages: Messages, recorder: Recorder
    ) -> Reconciliation | NotReconciled:
        """Return the comparison of acknowledged and received messages."""
        if isinstance(self._position, NotReconciled):
            return self._position
        sandbox = SandboxMessages(self._target.sandbox_url)
        found = await reconcile(sandbox, self._position, messages, recorder, self._mailboxes)
        if isinstance(found, NotReconciled) or found.arrived or not found.acknowledged:
            return found
        if all(_is_mock(mailbox.lower()) for mailbox in self._mailboxes):
            return found
        # The mailboxes may use another provider.
        return NotReconciled(
            "no message reached this sandbox: the mailbox's provider may be another"
        )


def _is_mock(mailbox: str) -> bool:
    return mailbox in MOCK_MAILBOXES or mailbox.endswith(f"@{DOMAIN}")
