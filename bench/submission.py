"""One authenticated connection to the relay under test; the only importer of aiosmtplib here.

Messages go in as they are: RFC 6409 submission, RFC 4954 AUTH, content with CRLF.
I1: a connection that was cut short or answered out of turn is closed, never used again.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import ssl
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import aiosmtplib

from bench.result import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

_REPLY_SECONDS = 120.0  # for each reply; a relay waits for its own upstream meanwhile
_QUIT_SECONDS = 2.0
_MAX_COMMAND_OCTETS = 512  # RFC 5321 §4.5.3.1.4, with the CRLF
_MAX_TEXT_CHARACTERS = 200


class Tls(StrEnum):
    """How the connection to the relay is protected."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class Mechanism(StrEnum):
    """The SASL mechanism of the login."""

    PLAIN = "plain"
    LOGIN = "login"
    XOAUTH2 = "xoauth2"
    OAUTHBEARER = "oauthbearer"

    @property
    def takes_token(self) -> bool:
        """Whether the secret is an access token rather than a password."""
        return self in {Mechanism.XOAUTH2, Mechanism.OAUTHBEARER}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the relay listens."""

    host: str
    port: int
    tls: Tls = Tls.NONE
    tls_context: ssl.SSLContext | None = None  # None exactly when `tls` is none

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in; `secret` returns the password, or a token, and is called at each AUTH."""

    mailbox: str
    mechanism: Mechanism
    secret: Callable[[], str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening a connection took."""

    connect_seconds: float  # TCP, greeting, EHLO, TLS
    auth_seconds: float


class SubmissionFailed(Exception):
    """The connection could not be opened, or the message was not accepted; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


class Submission:
    """A connection that is opened, used for any number of messages, and closed."""

    def __init__(self, endpoint: Endpoint, login: Login) -> None:
        self.login = login
        self._endpoint = endpoint
        self._smtp: aiosmtplib.SMTP | None = None

    @property
    def is_open(self) -> bool:
        """Whether the connection can take a message."""
        return self._smtp is not None and self._smtp.is_connected

    async def open(self) -> Opening:
        """Connect and log in. Cancelling closes the connection.

        Raises:
            SubmissionFailed: nothing is left open.
        """
        self.abort()
        self._smtp = smtp = aiosmtplib.SMTP(
            hostname=self._endpoint.host,
            port=self._endpoint.port,
            local_hostname="localhost",
            timeout=_REPLY_SECONDS,
            use_tls=self._endpoint.tls is Tls.IMPLICIT,
            start_tls=self._endpoint.tls is Tls.STARTTLS,
            tls_context=self._endpoint.tls_context,
        )
        try:
            started = time.perf_counter()
            await smtp.connect()
            await smtp.ehlo()
            connected = time.perf_counter()
            await _authenticate(smtp, self.login)
            return Opening(connected - started, time.perf_counter() - connected)
        except (aiosmtplib.SMTPException, OSError) as error:
            self.abort()
            raise SubmissionFailed(failure_of(error)) from error
        except BaseException:
            self.abort()
            raise

    async def send(self, reverse_path: str, forward_path: str, content: bytes) -> float:
        """Send one message and return the seconds from MAIL to the final positive reply.

        Cancelling closes the connection: whether the message was accepted is then unknown.

        Raises:
            SubmissionFailed: it was refused, or the connection lost; after a refusal the connection
                stays open where the server lets it.
        """
        smtp = self._smtp
        if smtp is None:
            raise SubmissionFailed(Failure("connection lost", ""))
        try:
            return await _transact(smtp, reverse_path, forward_path, content)
        except aiosmtplib.SMTPResponseException as error:
            await self._recover(smtp, error.code)
            raise SubmissionFailed(failure_of(error)) from error
        except (aiosmtplib.SMTPException, OSError) as error:
            self.abort()
            raise SubmissionFailed(failure_of(error)) from error
        except BaseException:
            self.abort()
            raise

    async def close(self) -> None:
        """Take leave with QUIT and close; never fails, and waits no more than two seconds."""
        if self._smtp is None or not self._smtp.is_connected:
            return
        try:
            await self._smtp.quit(timeout=_QUIT_SECONDS)
        except (aiosmtplib.SMTPException, OSError):
            pass  # every message is settled by now
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the connection without a word."""
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None

    async def _recover(self, smtp: aiosmtplib.SMTP, code: int) -> None:
        if code == 421 or not 400 <= code < 600:  # RFC 5321 §3.8: 421 announces the end
            self.abort()
            return
        try:
            await smtp.rset()
        except (aiosmtplib.SMTPException, OSError):
            self.abort()
        except BaseException:
            self.abort()
            raise


async def _transact(
    smtp: aiosmtplib.SMTP, reverse_path: str, forward_path: str, content: bytes
) -> float:
    started = time.perf_counter()
    size = [b"SIZE=%d" % len(content)] if smtp.supports_extension("size") else []
    await _command(smtp, b"MAIL", b"FROM:<%s>" % reverse_path.encode("ascii"), *size)
    await _command(smtp, b"RCPT", b"TO:<%s>" % forward_path.encode("ascii"))
    await smtp.data(content)
    return time.perf_counter() - started


async def _command(smtp: aiosmtplib.SMTP, *words: bytes) -> None:
    response = await smtp.execute_command(*words)
    if not 200 <= response.code < 300:
        raise aiosmtplib.SMTPResponseException(response.code, response.message)


async def _authenticate(smtp: aiosmtplib.SMTP, login: Login) -> None:
    secret = login.secret()
    if login.mechanism is Mechanism.LOGIN:
        steps = [login.mailbox.encode(), secret.encode()]
    else:
        steps = [initial_response(login, secret)]
    words = [b"AUTH", login.mechanism.upper().encode()]
    if login.mechanism is not Mechanism.LOGIN and _fits(words, steps[0]):
        words.append(base64.b64encode(steps.pop(0)))
    response = await smtp.execute_command(*words)
    for step in steps:
        if response.code != 334:
            break
        response = await smtp.execute_command(base64.b64encode(step))
    if response.code == 334:
        # The challenge is the error; an answer without content fetches the reply that refuses:
        # empty for XOAUTH2, one %x01 for OAUTHBEARER (RFC 7628 §3.2.3).
        answer = b"AQ==" if login.mechanism is Mechanism.OAUTHBEARER else b""
        response = await smtp.execute_command(answer)
    if response.code != 235:
        raise aiosmtplib.SMTPResponseException(response.code, response.message)


def initial_response(login: Login, secret: str) -> bytes:
    """Return the mechanism's one message: RFC 4616 PLAIN, RFC 7628 OAUTHBEARER, or XOAUTH2's."""
    if login.mechanism is Mechanism.PLAIN:
        return f"\0{login.mailbox}\0{secret}".encode()
    if login.mechanism is Mechanism.OAUTHBEARER:
        # RFC 5801 §4: "=" and "," of the name are written =3D and =2C.
        authzid = login.mailbox.replace("=", "=3D").replace(",", "=2C")
        return f"n,a={authzid},\1auth=Bearer {secret}\1\1".encode()
    return f"user={login.mailbox}\1auth=Bearer {secret}\1\1".encode()


def _fits(words: list[bytes], response: bytes) -> bool:
    encoded_octets = (len(response) + 2) // 3 * 4
    return sum(len(word) + 1 for word in words) + encoded_octets + 2 <= _MAX_COMMAND_OCTETS


def failure_of(error: Exception) -> Failure:
    """Return what to count an error as: the reply's code and text, or a kind of our own."""
    if isinstance(error, aiosmtplib.SMTPResponseException) and 200 <= error.code < 600:
        return Failure(str(error.code), _printable(error.message))
    if isinstance(error, TimeoutError):
        return Failure("timeout", f"no answer within {_REPLY_SECONDS:.0f} s")
    cause = error.__cause__ or error
    if isinstance(cause, ssl.SSLError):
        return Failure("tls failed", _printable(str(cause)))
    if isinstance(error, aiosmtplib.SMTPConnectError):
        kind = "connection refused" if _is_refusal(cause) else "connection failed"
        return Failure(kind, "" if _is_refusal(cause) else _printable(str(cause)))
    if isinstance(error, OSError):
        return Failure("connection lost", "")
    return Failure("protocol error", _printable(str(error)))


def _is_refusal(error: BaseException) -> bool:
    # With several addresses for a name asyncio raises one OSError with all their texts.
    return isinstance(error, ConnectionRefusedError) or (
        isinstance(error, OSError) and f"[Errno {errno.ECONNREFUSED}]" in str(error)
    )


def _printable(text: str) -> str:
    # A reply goes to a terminal: one line, no control characters, not the whole page.
    line = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(line.split())[:_MAX_TEXT_CHARACTERS]


async def is_listening(endpoint: Endpoint, timeout_seconds: float) -> bool:
    """Return whether something takes a TCP connection at `endpoint`."""
    try:
        async with asyncio.timeout(timeout_seconds):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True
