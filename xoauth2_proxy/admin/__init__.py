"""The operator's side over HTTP: health, metrics, and the mailboxes for programs and people.

Importing it imports aiohttp, without the list of the system's certificate authorities that
aiohttp's client would read while it is imported, twice: 4 MiB, and a fifth of the time to start.
The relay's own requests bring a TLS context of their own; one that forgot to would trust nobody.
"""

import os

# What OpenSSL takes instead of its list: SSL_CTX_set_default_verify_paths(3).
_AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def _import_aiohttp() -> None:
    before = {name: os.environ.get(name) for name in _AUTHORITIES}
    os.environ.update(dict.fromkeys(_AUTHORITIES, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_import_aiohttp()
