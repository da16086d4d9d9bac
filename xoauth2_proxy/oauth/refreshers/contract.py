"""What every refresher must do, as tests that its author inherits.

A refresher's tests are a class with one fixture, run by pytest with pytest-asyncio in auto mode:

    class TestAcmeRefresher(RefresherContract):
        @pytest.fixture
        async def subject(self) -> AsyncIterator[Subject]:
            async with AcmeServer() as server:
                yield AcmeSubject(server)

`Subject` says what the fixture provides: the refresher and its provider, preferably a real server
on loopback. This module does not import pytest.
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

from xoauth2_proxy.errors import (
    GrantRevoked,
    TokenEndpointRefused,
    TokenEndpointUnavailable,
    TokenError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse
    from xoauth2_proxy.oauth.refreshers import Refresher

MAILBOX = "someone@example.com"
RETRY_AFTER_SECONDS = 7.0  # what a busy provider asks for

_PROMPTLY_SECONDS = 5.0  # how soon a cancelled refresh gives up
_LOOKS = 250  # for leftovers, within that time
_CONCURRENT = 8


class Outcome(StrEnum):
    """What becomes of a request for an access token."""

    GRANTED = "granted"
    ROTATED = "rotated"  # granted, with a new refresh token that replaces the one presented
    REVOKED = "revoked"  # the grant has ended: `invalid_grant`
    REFUSED = "refused"  # the client is wrong: `invalid_client` and the like
    IN_TROUBLE = "in trouble"  # HTTP 503 and the like
    BUSY = "busy"  # HTTP 429 or 503 with a `Retry-After` of RETRY_AFTER_SECONDS
    GARBLED = "garbled"  # an answer that makes no sense
    SILENT = "silent"  # no answer until the refresher gives up
    NOT_SIGNED_IN = "not signed in"  # no refresh token to present; the provider is not asked


class Subject(ABC):
    """A refresher under test, with the provider that it asks."""

    # Outcomes that this refresher cannot have; their tests pass.
    lacks: frozenset[Outcome] = frozenset()

    # What must not be in any text: refresh tokens, client secrets, access tokens. The provider
    # should quote them in its answers, as real ones sometimes do.
    secrets: Collection[str] = ()

    @property
    @abstractmethod
    def refresher(self) -> Refresher:
        """The refresher, always the same one."""

    @abstractmethod
    def grant(self, mailbox: str) -> Grant:
        """Return a grant of the mailbox that the provider knows; `mailbox` may be any address."""

    @abstractmethod
    def provider_answers(self, outcome: Outcome) -> None:
        """Have the provider answer every request from now on with this outcome."""

    @abstractmethod
    async def is_asked(self) -> None:
        """Return when the provider has a request that it has not answered."""

    @abstractmethod
    def opens(self, access_token: str, mailbox: str) -> bool:
        """Return whether the provider would open the mailbox to the bearer of the token."""

    def leftovers(self) -> Collection[str]:
        """Return names of what a cancelled refresh left running, processes for example."""
        return ()


class RefresherContract:
    """The tests. A subclass has the fixture `subject`, a new one for each test."""

    async def test_gives_an_access_token(self, subject: Subject) -> None:
        """The token opens the mailbox, and fits into an SMTP command."""
        issued = await _refresh(subject, Outcome.GRANTED)
        assert subject.opens(issued.access_token, MAILBOX)
        assert issued.access_token.isascii()
        assert issued.access_token.isprintable()
        assert " " not in issued.access_token

    async def test_an_access_token_lasts_for_some_time(self, subject: Subject) -> None:
        """The lifetime is in seconds from now, however the provider states it."""
        issued = await _refresh(subject, Outcome.GRANTED)
        assert math.isfinite(issued.lifetime_seconds)
        assert issued.lifetime_seconds > 0
        assert issued.refresh_token_lifetime_seconds >= 0

    async def test_a_rotated_refresh_token_comes_back(self, subject: Subject) -> None:
        """The relay presents it next time; the provider accepts no other."""
        if Outcome.ROTATED in subject.lacks:
            return
        before = subject.grant(MAILBOX)
        issued = await _refresh(subject, Outcome.ROTATED)
        assert issued.refresh_token
        assert issued.refresh_token != before.refresh_token
        again = await subject.refresher.refresh(replace(before, refresh_token=issued.refresh_token))
        assert subject.opens(again.access_token, MAILBOX)

    async def test_a_revoked_grant_needs_a_person(self, subject: Subject) -> None:
        """`GrantRevoked` makes the relay ask for a new sign-in."""
        if Outcome.REVOKED not in subject.lacks:
            assert isinstance(await _error(subject, Outcome.REVOKED), GrantRevoked)

    async def test_without_a_refresh_token_a_person_is_needed(self, subject: Subject) -> None:
        """The relay treats a mailbox that was never signed in like a revoked grant."""
        if Outcome.NOT_SIGNED_IN not in subject.lacks:
            assert isinstance(await _error(subject, Outcome.NOT_SIGNED_IN), GrantRevoked)

    async def test_a_refused_client_needs_the_operator(self, subject: Subject) -> None:
        """`TokenEndpointRefused` says that the configuration is wrong, not the grant."""
        if Outcome.REFUSED not in subject.lacks:
            assert isinstance(await _error(subject, Outcome.REFUSED), TokenEndpointRefused)

    async def test_trouble_is_transient(self, subject: Subject) -> None:
        """After `TokenEndpointUnavailable` the relay tries again."""
        if Outcome.IN_TROUBLE not in subject.lacks:
            assert isinstance(await _error(subject, Outcome.IN_TROUBLE), TokenEndpointUnavailable)

    async def test_an_answer_without_sense_is_transient(self, subject: Subject) -> None:
        """Such an answer comes from a middlebox, and never means that a grant has ended."""
        if Outcome.GARBLED not in subject.lacks:
            assert isinstance(await _error(subject, Outcome.GARBLED), TokenEndpointUnavailable)

    async def test_a_busy_provider_is_left_alone_as_long_as_it_asks(self, subject: Subject) -> None:
        """The relay waits `retry_after_seconds`."""
        if Outcome.BUSY in subject.lacks:
            return
        error = await _error(subject, Outcome.BUSY)
        assert isinstance(error, TokenEndpointUnavailable)
        assert abs(error.retry_after_seconds - RETRY_AFTER_SECONDS) < 5.0  # it may have been a date

    async def test_a_cancelled_refresh_ends_at_once_and_leaves_nothing(
        self, subject: Subject
    ) -> None:
        """The relay cancels refreshes when it stops, and must not wait for them."""
        if Outcome.SILENT in subject.lacks:
            return
        subject.provider_answers(Outcome.SILENT)
        tasks = asyncio.all_tasks()
        refresh = asyncio.create_task(subject.refresher.refresh(subject.grant(MAILBOX)))
        await subject.is_asked()
        refresh.cancel()
        async with asyncio.timeout(_PROMPTLY_SECONDS):
            await asyncio.wait([refresh])
        assert refresh.cancelled()
        assert asyncio.all_tasks() <= tasks
        for _ in range(_LOOKS):  # a killed process may be listed for another moment
            if not subject.leftovers():
                break
            await asyncio.sleep(_PROMPTLY_SECONDS / _LOOKS)
        assert not subject.leftovers()
        issued = await _refresh(subject, Outcome.GRANTED)
        assert subject.opens(issued.access_token, MAILBOX)

    async def test_mailboxes_do_not_mix_up(self, subject: Subject) -> None:
        """The relay asks for one mailbox at a time, but for many mailboxes at once."""
        subject.provider_answers(Outcome.GRANTED)
        mailboxes = [f"mailbox{number}@example.com" for number in range(_CONCURRENT)]
        refreshes = [subject.refresher.refresh(subject.grant(mailbox)) for mailbox in mailboxes]
        for mailbox, issued in zip(mailboxes, await asyncio.gather(*refreshes), strict=True):
            assert subject.opens(issued.access_token, mailbox)

    async def test_no_error_tells_a_secret(self, subject: Subject) -> None:
        """Errors are logged and shown to the operator, with their causes."""
        for outcome in _FAILURES - subject.lacks:
            error = await _error(subject, outcome)
            told = "".join([*traceback.format_exception(error), repr(error), str(vars(error))])
            assert not _quoted_secrets(subject, told), outcome
            assert str(error), outcome  # an operator needs a text

    async def test_no_log_line_tells_a_secret(self, subject: Subject) -> None:
        """This includes debug messages, and those of libraries."""
        with _all_log_lines() as lines:
            issued = await _refresh(subject, Outcome.GRANTED)
            for outcome in _FAILURES - subject.lacks:
                await _error(subject, outcome)
        assert not _quoted_secrets(subject, "\n".join(lines))
        assert not any(issued.access_token in line for line in lines)


_FAILURES = frozenset(
    {Outcome.REVOKED, Outcome.REFUSED, Outcome.IN_TROUBLE, Outcome.BUSY, Outcome.GARBLED}
)


async def _refresh(subject: Subject, outcome: Outcome) -> TokenResponse:
    grant = subject.grant(MAILBOX)
    if outcome is Outcome.NOT_SIGNED_IN:
        grant = replace(grant, refresh_token="")
    else:
        subject.provider_answers(outcome)
    return await subject.refresher.refresh(grant)


async def _error(subject: Subject, outcome: Outcome) -> TokenError:
    """Return the error of a refresh, which must be a `TokenError`."""
    try:
        await _refresh(subject, outcome)
    except TokenError as error:
        return error
    raise AssertionError(f"no error, though the provider's answer was: {outcome}")


def _quoted_secrets(subject: Subject, text: str) -> list[int]:
    """Return the positions of the secrets that are in `text`; a report must not show them."""
    return [place for place, secret in enumerate(subject.secrets) if secret in text]


@contextmanager
def _all_log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    root = logging.getLogger()
    level = root.level
    handler = _Recorder(lines)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class _Recorder(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{self.format(record)} {vars(record)}")
