"""Reads the listeners' certificates again when their files change, and knows when they expire.

A renewal writes the certificate and the key one after the other, so a pair that does not match is
tried again for a minute. What cannot be used never replaces what is in use. A fresh context takes
the place of the old one for new handshakes; sessions keep theirs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from xoauth2_proxy import log
from xoauth2_proxy.credential_files import certificate_expiry, days_until
from xoauth2_proxy.submission.server_tls import fault_of_key_pair, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from xoauth2_proxy.config.listener_section import ListenerSection
    from xoauth2_proxy.metrics import Metrics
    from xoauth2_proxy.submission.server_tls import TlsVersion

_LOOK_SECONDS = 5.0  # between two looks at the files
_PATIENCE_SECONDS = 60.0  # for a renewal to write both files

_Fingerprint: TypeAlias = tuple[tuple[int, int, int, int], ...]  # () while a file is missing

_log = log.logger("certificates")


@dataclass(slots=True)
class _Certificate:
    """The certificate of one listener."""

    place: int  # of the listener
    name: str
    cert: Path
    key: Path
    oldest: TlsVersion
    context: ssl.SSLContext
    expires: datetime | None  # None: nobody asks
    used: _Fingerprint  # of the files when they were read
    bad_since: float | None = None  # since when the files differ and cannot be used
    refused: _Fingerprint | None = None  # what was told to be of no use


class Certificates:
    """The certificates of all listeners, in the order of the configuration."""

    def __init__(
        self,
        use: Callable[[int, ssl.SSLContext], None],
        metrics: Metrics | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`use` is given a listener's place and its new context.

        Without `metrics`, another process counts the days and writes the log.
        """
        self._use = use
        self._metrics = metrics
        self._clock = clock
        self._all: dict[int, _Certificate] = {}
        self._looking = asyncio.Lock()

    def read(self, listeners: Sequence[ListenerSection]) -> None:
        """Read the certificates for the first time; blocks. Raises `OSError`."""
        for place, one in enumerate(listeners):
            if one.tls_cert is None or one.tls_key is None:
                continue
            found = _Certificate(
                place=place,
                name=one.name,
                cert=one.tls_cert,
                key=one.tls_key,
                oldest=one.tls_min,
                used=_fingerprint(one.tls_cert, one.tls_key),
                context=server_context(one.tls_cert, one.tls_key, one.tls_min),
                expires=None,
            )
            self._all[place] = found
            self._note_expiry(found)

    def context(self, place: int) -> ssl.SSLContext | None:
        """Return the present context of the listener at `place`."""
        found = self._all.get(place)
        return None if found is None else found.context

    def expires(self, place: int) -> datetime | None:
        """Return when the certificate of the listener at `place` expires, if it has one."""
        found = self._all.get(place)
        return None if found is None else found.expires

    async def watch(self) -> None:
        """Look at the files now and then, until cancelled."""
        while self._all:
            await asyncio.sleep(_LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Use what has changed, if it can be used."""
        async with self._looking:
            for one in self._all.values():
                fingerprint, context = await asyncio.to_thread(_read_if_changed, one)
                if context is not None:
                    await self._replace(one, fingerprint, context)
                elif fingerprint == one.used:
                    one.bad_since = one.refused = None
                else:
                    await self._be_patient(one, fingerprint)

    async def _replace(
        self, one: _Certificate, fingerprint: _Fingerprint, context: ssl.SSLContext
    ) -> None:
        one.used, one.context = fingerprint, context
        one.bad_since = one.refused = None
        self._use(one.place, context)
        if self._metrics is not None:
            await asyncio.to_thread(self._note_expiry, one)
            days_left = "?" if one.expires is None else days_until(one.expires)
            _log.event(
                logging.INFO, "certificate read again", listener=one.name, days_left=days_left
            )

    async def _be_patient(self, one: _Certificate, fingerprint: _Fingerprint) -> None:
        """Tell that the files are of no use, once and only if they stay so."""
        now = self._clock()
        if fingerprint == one.refused:
            return
        if one.bad_since is None:
            one.bad_since = now
        elif now - one.bad_since >= _PATIENCE_SECONDS:
            one.bad_since, one.refused = None, fingerprint
            if self._metrics is not None:
                fault = await asyncio.to_thread(fault_of_key_pair, one.cert, one.key, one.oldest)
                _log.event(
                    logging.ERROR,
                    "the new certificate cannot be used; the previous one stays in use",
                    listener=one.name,
                    fault=fault,
                )

    def _note_expiry(self, one: _Certificate) -> None:
        if self._metrics is None:
            return
        try:
            one.expires = certificate_expiry(one.cert)
        except ValueError:
            one.expires = None  # OpenSSL takes forms that cannot be examined
            return
        self._metrics.certificate_expiry.labels(one.name).set(one.expires.timestamp())


def _read_if_changed(one: _Certificate) -> tuple[_Fingerprint, ssl.SSLContext | None]:
    fingerprint = _fingerprint(one.cert, one.key)  # first: what changes meanwhile is read again
    if fingerprint in (one.used, one.refused):
        return fingerprint, None
    try:
        return fingerprint, server_context(one.cert, one.key, one.oldest)
    except OSError:
        return fingerprint, None


def _fingerprint(*files: Path) -> _Fingerprint:
    """Return what tells that a file was written or replaced, through links as certbot's."""
    try:
        found = [os.stat(file) for file in files]
    except OSError:
        return ()
    return tuple((one.st_dev, one.st_ino, one.st_mtime_ns, one.st_size) for one in found)
