"""Sends requests to token endpoints, with limits on time and size. Blocking, for threads.

I1: TLS certificates are verified, whatever a library requests; plain HTTP goes to loopback only.
I2: an exchange ends by its deadline, even if the server sends one octet at a time.
I3: secrets reach only the configured server: no redirect is followed, no .netrc is read.

requests and urllib3 limit each wait, but not the exchange: a server that sends an octet now and
then would hold a thread for hours. So connections and responses here have classes of their own,
with one deadline.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import time
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from xoauth2_proxy.errors import TokenEndpointRefused, TokenEndpointUnavailable
from xoauth2_proxy.network import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from _typeshed import WriteableBuffer
    from urllib3 import PoolManager

EXCHANGE_SECONDS = 10.0  # from the first address tried to the last octet of the response
MAX_BODY_BYTES = 256 * 1024  # decoded; the largest real answer is some 20 KiB of metadata

_MIN_ATTEMPT_SECONDS = 1.0  # for one of a host's addresses: Linux repeats a SYN after a second
_CHUNK_BYTES = 16 * 1024
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

_TUNNEL = "Tunnel connection failed"  # http.client's text for a proxy's refusal
_CERTIFICATES = {  # OpenSSL's X509_V_ERR_…
    10: "has a certificate that has expired",
    62: "has a certificate for another name",
    64: "has a certificate for another address",
}
_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (  # the first that fits
    ((socket.gaierror,), "does not resolve"),
    ((ssl.SSLError,), "does not speak TLS as expected"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), "gave no answer in time"),
    ((ConnectionRefusedError,), "refuses connections"),
    (
        (ConnectionError, http.client.IncompleteRead),
        "closed the connection before its response was complete",
    ),
    (
        (http.client.HTTPException, urllib3.exceptions.DecodeError),
        "does not speak HTTP as expected",
    ),
    ((OSError,), "cannot be reached"),
)

_deadline: ContextVar[float] = ContextVar("_deadline")  # of the current exchange; monotonic


def open_session(
    ca_file: Path | None = None, exchange_seconds: float = EXCHANGE_SECONDS
) -> requests.Session:
    """Return a session for requests to token endpoints, for one refresh in one thread; close it.

    `requests.Session` is not guaranteed to be thread-safe, and servers close idle connections
    between refreshes. Requests raise `requests.RequestException` (see `connection_error`), and
    `TokenEndpointRefused` for plain HTTP to other hosts than loopback. `exchange_seconds` does not
    include the name look-up, which the system's resolver limits. Raises `TokenEndpointRefused`:
    `ca_file` cannot be read, or has no PEM certificates.
    """
    adapter = _Adapter(_tls_context(ca_file), exchange_seconds)
    session = requests.Session()
    session.trust_env = False  # no .netrc, no REQUESTS_CA_BUNDLE; the adapter handles proxies
    for prefix in ("https://", "http://"):
        session.mount(prefix, adapter)
    return session


def send_request(
    session: requests.Session,
    method: str,
    url: str,
    form: Mapping[str, str] | bytes | None = None,
    headers: Mapping[str, str] | None = None,
    auth: Any = None,  # noqa: ANN401 - as requests takes it
) -> requests.Response:
    """Return the response, whatever its status.

    Raises:
        TokenEndpointUnavailable: there was none.
        TokenEndpointRefused: the URL is not https, nor on loopback.
    """
    try:
        return session.request(method, url, data=form, headers=dict(headers or {}), auth=auth)
    except requests.RequestException as error:
        raise connection_error(error, url) from None


class _UnusableResponse(requests.RequestException):
    """A response that is not read to its end; the text says why."""


def connection_error(error: requests.RequestException, url: str) -> TokenEndpointUnavailable:
    """Return the error that explains to an operator why there was no response from `url`."""
    host = _host(url)
    if isinstance(error, requests.exceptions.ProxyError):
        host = f"the proxy on the way to {host}"
    return TokenEndpointUnavailable(f"{host} {_why(error)}")


def _host(url: str) -> str:
    try:
        host = urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return host or "the token endpoint"


def _why(error: requests.RequestException) -> str:
    if isinstance(error, _UnusableResponse):
        return str(error)
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            untrusted = f"has a certificate that is not trusted ({cause.verify_message})"
            return _CERTIFICATES.get(cause.verify_code, untrusted)
        if isinstance(cause, OSError) and str(cause).startswith(_TUNNEL):
            return "refuses to connect to the host"
    for kinds, words in _WORDS:
        if any(isinstance(cause, kinds) for cause in causes):
            return words
    return f"cannot be asked ({type(error).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and those inside it; requests and urllib3 wrap errors in several ways."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    # All errors of requests are OSErrors, which does not tell the cause.
    return [one for one in found if not isinstance(one, requests.RequestException)]


class _Adapter(HTTPAdapter):
    """Sends a request and reads the whole response, within the limits."""

    def __init__(self, tls_context: ssl.SSLContext, exchange_seconds: float) -> None:
        self._tls_context = tls_context
        self._exchange_seconds = exchange_seconds
        super().__init__()
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: object = None,
        verify: object = True,
        cert: object = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Return the complete response; `timeout` and `verify` are ignored."""
        url = request.url or ""
        is_near = is_loopback(urlsplit(url).hostname or "")
        if not is_near and not url.lower().startswith("https:"):
            raise TokenEndpointRefused(
                "a token endpoint must have an https:// address, except on loopback"
            )
        proxies = {} if is_near else get_environ_proxies(url, no_proxy=None)
        started = _deadline.set(time.monotonic() + self._exchange_seconds)
        try:
            response = super().send(
                request, stream=True, timeout=self._exchange_seconds, proxies=proxies
            )
            _read(response)
        finally:
            _deadline.reset(started)
        return response

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: object, cert: object = None
    ) -> tuple[Any, Any]:
        """Return the key of a connection: the host, and always our TLS rules."""
        host, _ = super().build_connection_pool_key_attributes(request, True, None)
        return host, {"ssl_context": self._tls_context, "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: object, url: object, verify: object, cert: object) -> None:
        """Do nothing: requests would add its own certificate authorities."""

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: object) -> PoolManager:
        """Return a proxy's connection pools, with our connection classes except for SOCKS."""
        manager: PoolManager = super().proxy_manager_for(proxy, **proxy_kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


def _read(response: requests.Response) -> None:
    """Read the response's stream, and replace it by its content."""
    body = bytearray()
    try:
        if response.status_code in _REDIRECTS:
            raise _UnusableResponse("redirects, and is not followed", request=response.request)
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=True):
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise _UnusableResponse(
                    "sends a response that is too large", request=response.request
                )
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error, request=response.request) from error
    finally:
        response.raw.close()
    response.raw = io.BytesIO(body)


class _DeadlineReader(io.RawIOBase):
    """Reads from a socket until the deadline."""

    def __init__(self, stream: io.RawIOBase, sock: socket.socket) -> None:
        self._stream = stream
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._sock.settimeout(_left_seconds())
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(
        self,
        sock: socket.socket,
        debuglevel: int = 0,
        method: str | None = None,
        url: str | None = None,
    ) -> None:
        super().__init__(sock, debuglevel, method, url)
        self.fp = io.BufferedReader(_DeadlineReader(self.fp.detach(), sock))


def _connect(connection: HTTPConnection) -> socket.socket:
    """Return a socket connected to the first of the host's addresses that answers.

    Each address gets a share of the remaining time: if a firewall drops packets, none answers, and
    Microsoft's login host has sixteen.
    """
    try:
        addresses = socket.getaddrinfo(connection.host, connection.port, type=socket.SOCK_STREAM)
    except UnicodeError:  # an empty label, or one that is too long
        raise socket.gaierror(socket.EAI_NONAME, "not a host name") from None
    failure: OSError = TimeoutError()
    for count, (family, kind, protocol, _, address) in enumerate(addresses):
        share_seconds = _left_seconds() / (len(addresses) - count)
        sock = socket.socket(family, kind, protocol)
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(min(max(share_seconds, _MIN_ATTEMPT_SECONDS), _left_seconds()))
            sock.connect(address)
            sock.settimeout(_left_seconds())
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


class _HttpConnection(HTTPConnection):
    response_class = _Response
    _new_conn = _connect


class _HttpsConnection(HTTPSConnection):
    response_class = _Response
    _new_conn = _connect


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


def _left_seconds() -> float:
    left_seconds = _deadline.get() - time.monotonic()
    if left_seconds <= 0:
        raise TimeoutError
    return left_seconds


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the TLS context; authorities, which take 20 ms to read, are read when they change."""
    if ca_file is not None:
        places = [str(ca_file)]
    else:
        system = ssl.get_default_verify_paths()
        places = [place for place in (system.cafile, system.capath) if place]
    try:
        stamps = tuple(os.stat(place).st_mtime_ns for place in places)
        return _read_authorities(ca_file, stamps)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or "it contains no PEM certificates"
        raise TokenEndpointRefused(f"ca_file {ca_file} cannot be used: {reason}") from None


@lru_cache(maxsize=32)
def _read_authorities(ca_file: Path | None, stamps: tuple[int, ...]) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)
