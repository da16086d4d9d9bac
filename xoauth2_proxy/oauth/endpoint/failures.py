"""Why there was no answer, in an operator's words: DNS, TLS, refused, timeout and the like.

Libraries below requests wrap errors in several ways; here all of them are looked through.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import requests
import urllib3

from xoauth2_proxy.errors import TokenEndpointUnavailable

_TUNNEL = "Tunnel connection failed"  # http.client's words for a proxy's refusal
_CERTIFICATES = {  # OpenSSL's X509_V_ERR_…
    10: "shows a certificate that has expired",
    62: "shows a certificate of another name",
    64: "shows a certificate of another address",
}
_WORDS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (  # the first that fits
    ((socket.gaierror,), "does not resolve"),
    ((ssl.SSLError,), "does not speak TLS as expected"),
    ((TimeoutError, urllib3.exceptions.TimeoutError), "gave no answer in time"),
    ((ConnectionRefusedError,), "refuses connections"),
    (
        (ConnectionError, http.client.IncompleteRead),
        "closed the connection before its answer ended",
    ),
    (
        (http.client.HTTPException, urllib3.exceptions.DecodeError),
        "does not speak HTTP as expected",
    ),
    ((OSError,), "cannot be reached"),
)


class Unusable(requests.RequestException):
    """An answer that is not read on; the text says why."""


def unreachable(error: requests.RequestException, url: str) -> TokenEndpointUnavailable:
    """Return the error that says in an operator's words why there was no answer from `url`."""
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
    if isinstance(error, Unusable):
        return str(error)
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            untrusted = f"shows a certificate that is not trusted ({cause.verify_message})"
            return _CERTIFICATES.get(cause.verify_code, untrusted)
        if isinstance(cause, OSError) and str(cause).startswith(_TUNNEL):
            return "refuses to pass us on"
    for kinds, words in _WORDS:
        if any(isinstance(cause, kinds) for cause in causes):
            return words
    return f"cannot be asked ({type(error).__name__})"


def _causes(error: BaseException) -> list[BaseException]:
    """Return what an error is made of; requests and urllib3 wrap errors in several ways."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseException) and one not in found:
            found.append(one)
            waiting += [*one.args, getattr(one, "reason", None), one.__cause__, one.__context__]
    # requests' errors are all OSErrors, which says nothing.
    return [one for one in found if not isinstance(one, requests.RequestException)]
