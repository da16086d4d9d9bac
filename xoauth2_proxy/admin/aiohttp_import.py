"""Imports aiohttp without reading the system's certificate authorities, until they are needed.

aiohttp's client makes two TLS contexts when it is imported, each with all authorities: 40 ms and
3 MiB, although the proxy serves HTTP with aiohttp and no connection of its own uses these contexts.
A refresher plug-in may use them.
"""

from __future__ import annotations

import mimetypes
import ssl
from typing import Any


class _WithoutAuthorities(ssl.SSLContext):
    """A context that reads the authorities when it is first used; from then on an ordinary one."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401
        return _completed(self).wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:  # noqa: ANN401
        return _completed(self).wrap_socket(*args, **kwargs)

    def cert_store_stats(self) -> dict[str, int]:
        return _completed(self).cert_store_stats()

    def get_ca_certs(self, binary_form: bool = False) -> Any:  # noqa: ANN401
        return _completed(self).get_ca_certs(binary_form)


def _completed(context: ssl.SSLContext) -> ssl.SSLContext:
    context.__class__ = ssl.SSLContext
    context.set_default_verify_paths()
    return context


def _postpone(context: ssl.SSLContext) -> None:
    context.__class__ = _WithoutAuthorities


mimetypes.init(files=[])  # Python's own table has the types of our files; aiohttp reads no other
ssl.SSLContext.set_default_verify_paths = _postpone  # type: ignore[assignment]
try:
    import aiohttp  # noqa: F401
finally:
    del ssl.SSLContext.set_default_verify_paths  # the one of the base class is there again
