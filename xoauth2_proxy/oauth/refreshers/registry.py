"""All refreshers by name: the built-in ones and those of installed plug-ins.

A plug-in is an entry point of the group `xoauth2_proxy.refreshers`: a callable that is given the
threads for blocking work and returns a `Refresher`, which may declare more in an attribute `info`.
It runs with the relay's rights. A plug-in that fails to load is disabled; the others go on.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from xoauth2_proxy.accounts.refresher_info import BUILT_IN_REFRESHERS, MOCK, RefresherInfo
from xoauth2_proxy.errors import TokenEndpointRefused
from xoauth2_proxy.oauth.refreshers import SignsIn, SignsInOnDevice
from xoauth2_proxy.oauth.refreshers.command_output import last_line
from xoauth2_proxy.oauth.refreshers.threads import DeadlineThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from importlib.metadata import EntryPoint
    from pathlib import Path

    from xoauth2_proxy.oauth.grant import Grant, TokenResponse
    from xoauth2_proxy.oauth.refreshers import Refresher

GROUP = "xoauth2_proxy.refreshers"
_LOAD_SECONDS = 30.0  # for a plug-in; the machine may be slow
_THREADS = 8  # at four requests a token host (`oauth.token_request`), enough for two dead hosts


class RefresherRegistry(Mapping[str, RefresherInfo]):
    """What each refresher declares, by name; a plug-in is loaded when that is first asked.

    A refresher is built once. Threads may use it at the same time.
    """

    def __init__(self, state_dir: Path) -> None:
        self.disabled: dict[str, str] = {}  # plug-ins that could not be loaded, and why
        self.unusable: list[RefresherInfo] = []  # those whose names belong to others
        self._lock = threading.RLock()
        self._state_dir = state_dir
        self._threads = DeadlineThreadPool(_THREADS, "oauth")
        self._built: dict[str, Refresher] = {}
        self._plug_ins: dict[str, list[EntryPoint]] = {}
        for entry in entry_points(group=GROUP):
            if entry.name in BUILT_IN_REFRESHERS:
                origin, fault = _distribution(entry), "the name is built in"
                self.unusable.append(RefresherInfo(name=entry.name, origin=origin, fault=fault))
            else:
                self._plug_ins.setdefault(entry.name, []).append(entry)

    def __getitem__(self, name: str) -> RefresherInfo:
        """Return what the refresher declares. Raises `KeyError`: there is none of this name."""
        if name in BUILT_IN_REFRESHERS:
            return BUILT_IN_REFRESHERS[name]
        entries = self._plug_ins[name]
        made = self._refresher(name)
        origin = " and ".join(sorted(_distribution(entry) for entry in entries))
        if isinstance(made, _DisabledRefresher):
            return RefresherInfo(name=name, origin=origin, fault=self.disabled[name])
        flows = {"browser": isinstance(made, SignsIn), "device": isinstance(made, SignsInOnDevice)}
        return replace(
            getattr(made, "info", RefresherInfo()),
            name=name,
            origin=origin,
            flows=tuple(flow for flow, is_offered in flows.items() if is_offered),
        )

    def __contains__(self, name: object) -> bool:
        """Whether there is a refresher of this name; loads none."""
        return name in BUILT_IN_REFRESHERS or name in self._plug_ins

    def __iter__(self) -> Iterator[str]:
        yield from BUILT_IN_REFRESHERS
        yield from self._plug_ins

    def __len__(self) -> int:
        return len(BUILT_IN_REFRESHERS) + len(self._plug_ins)

    def all_installed(self) -> list[RefresherInfo]:
        """Return what every refresher declares, by name; loads all plug-ins, and blocks."""
        return sorted([*self.values(), *self.unusable], key=lambda one: one.name)

    def refreshers(self, wanted: Iterable[str]) -> dict[str, Refresher]:
        """Return the refreshers of these names, without unknown names.

        A refresher that cannot be loaded is replaced by one that raises `TokenEndpointRefused`, so
        mailboxes of other refreshers work. Raises `OSError`, `ValueError`: the signing key of mock
        tokens cannot be read.
        """
        return {name: self._refresher(name) for name in wanted if name in self}

    def close(self) -> None:
        """Cancel what waits for a thread; running requests end by their own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refresher(self, name: str) -> Refresher:
        with self._lock:
            if name not in self._built:
                self._built[name] = self._load(name)
            return self._built[name]

    def _load(self, name: str) -> Refresher:
        if name == MOCK:
            return _mock_refresher(self._state_dir)
        if name in BUILT_IN_REFRESHERS:
            return _ImportedWhenUsed(name, self._threads)
        try:
            return _in_time(lambda: self._load_plug_in(name))
        except _PlugInUnusable as error:
            return self._disable(name, str(error))

    def _load_plug_in(self, name: str) -> Refresher:
        entries = self._plug_ins[name]
        if len(entries) > 1:
            origins = " and ".join(sorted(_distribution(entry) for entry in entries))
            raise _PlugInUnusable(f"{origins} both offer the name")
        factory = entries[0].load()
        if not callable(factory):
            raise _PlugInUnusable(f"{entries[0].value} is not callable")
        made: Refresher = factory(self._threads)
        # A plain method would hold the event loop, and its result could not be awaited.
        if not inspect.iscoroutinefunction(getattr(made, "refresh", None)):
            raise _PlugInUnusable(f"{type(made).__name__} has no `async def refresh`")
        if not isinstance(getattr(made, "info", RefresherInfo()), RefresherInfo):
            raise _PlugInUnusable(f"{type(made).__name__}.info is no RefresherInfo")
        return made

    def _disable(self, name: str, reason: str) -> Refresher:
        self.disabled[name] = reason
        return _DisabledRefresher(name, reason)


def _mock_refresher(state_dir: Path) -> Refresher:
    # Imported when needed: it brings the library that signs tokens.
    from xoauth2_proxy.oauth.refreshers.mock import MockRefresher
    from xoauth2_proxy.sandbox.state_directory import load_signing_key
    from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

    return MockRefresher(MockTokens(load_signing_key(state_dir)))


class _PlugInUnusable(Exception):
    pass


def _in_time(load: Callable[[], Refresher]) -> Refresher:
    """Return what `load` returns. It runs in a thread that is left alone if it takes too long."""
    loaded: list[Refresher] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            loaded.append(load())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="plug-in", daemon=True)
    thread.start()
    thread.join(_LOAD_SECONDS)
    if errors:
        raise _PlugInUnusable(_reason(errors[0]))
    if not loaded:
        raise _PlugInUnusable(f"it was not loaded within {_LOAD_SECONDS:.0f} s")
    return loaded[0]


class _DisabledRefresher:
    """Replaces a refresher that could not be loaded."""

    def __init__(self, name: str, reason: str) -> None:
        self._text = f"the refresher {name} is disabled: {reason}"

    async def refresh(self, grant: Grant) -> TokenResponse:
        raise TokenEndpointRefused(self._text)


class _ImportedWhenUsed:
    """A built-in refresher, whose library is imported for the first token.

    Each library takes 7 to 17 MiB and 35 to 85 ms (measured), which is spent in a thread, and only
    where a mailbox of that provider has to be refreshed.
    """

    def __init__(self, name: str, threads: DeadlineThreadPool) -> None:
        self._name = name
        self._threads = threads
        self._refresher: Refresher | None = None

    async def refresh(self, grant: Grant) -> TokenResponse:
        if self._refresher is None:
            name, threads = self._name, self._threads
            loop = asyncio.get_running_loop()
            try:
                self._refresher = await loop.run_in_executor(threads, _built_in, name, threads)
            except ImportError as error:
                reason = f"the refresher {name} cannot be loaded: {_reason(error)}"
                raise TokenEndpointRefused(reason) from None
        return await self._refresher.refresh(grant)


def _built_in(name: str, threads: DeadlineThreadPool) -> Refresher:
    match name:
        case "gmail":
            from xoauth2_proxy.oauth.refreshers.gmail import GmailRefresher

            return GmailRefresher(threads)
        case "outlook":
            from xoauth2_proxy.oauth.refreshers.outlook import OutlookRefresher

            return OutlookRefresher(threads)
        case "oidc":
            from xoauth2_proxy.oauth.refreshers.oidc import OidcRefresher

            return OidcRefresher(threads)
        case _:
            from xoauth2_proxy.oauth.refreshers.command import CommandRefresher

            return CommandRefresher()


def _reason(error: BaseException) -> str:
    text = last_line(str(error))
    return text if isinstance(error, _PlugInUnusable) else f"{type(error).__name__}: {text}"


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
