"""Explains to an operator why there was no response: DNS, TLS, refused, timeout and the like."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

import requests
import urllib3

from xoauth2_proxy.errors import TokenEndpointUnavailable

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


class UnusableResponse(requests.RequestException):
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
    if isinstance(error, UnusableResponse):
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
