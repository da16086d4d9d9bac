"""Opens authenticated connections to providers: TCP, EHLO, TLS, AUTH XOAUTH2.

The only importer of aiosmtplib, which does everything up to AUTH; its transport then passes to
`Connection`. AUTH is done here, because a long token needs a line of its own (RFC 4954 §4).
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import ssl
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.errors import (
    UpstreamAuthRejected,
    UpstreamClosedEarly,
    UpstreamError,
    UpstreamInsecure,
    UpstreamNotFound,
    UpstreamRejected,
    UpstreamUnavailable,
)
from xoauth2_proxy.network import is_without_tls
from xoauth2_proxy.redaction import without_long_words
from xoauth2_proxy.smtp import sasl
from xoauth2_proxy.smtp.protocol import Reply, ReplyParser
from xoauth2_proxy.upstream.connection import Connection

if TYPE_CHECKING:
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Account, Upstream
    from xoauth2_proxy.oauth.grant import AccessToken

_CONNECT_SECONDS = 30.0  # for each of TCP, greeting, EHLO, STARTTLS
_AUTH_SECONDS = 60.0  # Microsoft delays a refusal by about 5 s
_MAX_COMMAND_BYTES = 512  # RFC 5321 §4.5.3.1.4, CRLF included; Gmail replies 555 to longer ones


# A server that waits for the client's TLS is as silent as one that hangs.
_WAITS_FOR_TLS = "; if the port begins with TLS, as 465 does, upstream.tls must be implicit"


class Tokens(Protocol):
    """Supplies the connector with access tokens (`oauth.token_source.TokenSource`)."""

    async def token_for(self, account: Account) -> AccessToken:
        """Return a valid access token."""
        ...

    def invalidate(self, account: Account, token: AccessToken) -> bool:
        """Discard a refused token; return whether another token is worth trying."""
        ...

    def note_login(self, account: Account, refusal: str = "") -> None:
        """Record that the provider's mail server accepted the mailbox's login, or rejected it."""
        ...


class Connector:
    """Opens authenticated connections for accounts."""

    def __init__(self, tokens: Tokens | None, hostname: str = "[127.0.0.1]") -> None:
        """`tokens`: None for a caller that only uses `open_with`."""
        self.hostname = hostname  # the argument of EHLO: a domain or an address literal
        self._tokens = tokens
        self._tls_contexts: dict[Path | None, ssl.SSLContext] = {}

    def forget_authorities(self) -> None:
        """Drop cached TLS contexts, so that files of certificate authorities are read again."""
        self._tls_contexts.clear()

    async def open(self, account: Account) -> Connection:
        """Return a connection authenticated with the account's access token.

        If the provider refuses the token, it is replaced and tried again once.

        Raises:
            TokenError: no access token can be had.
            UpstreamUnavailable: no connection, or no safe one.
            UpstreamRejected: the provider greeted with a refusal.
            UpstreamAuthRejected: it refused the new token as well.
        """
        tokens = self._tokens
        if tokens is None:
            raise RuntimeError("there is no source of tokens")
        token = await tokens.token_for(account)
        may_replace = True
        while True:
            try:
                connection = await self.open_with(account, token.value)
            except UpstreamAuthRejected as error:
                if error.is_transient:
                    raise
                if not (may_replace and tokens.invalidate(account, token)):
                    tokens.note_login(account, str(error))
                    raise
                may_replace = False
                token = await tokens.token_for(account)
            else:
                tokens.note_login(account)
                return connection

    async def open_with(self, account: Account, access_token: str) -> Connection:
        """Return a connection authenticated as the account's mailbox with this token.

        Raises:
            UpstreamUnavailable: no connection, or no safe one.
            UpstreamRejected: the provider greeted with a refusal.
            UpstreamAuthRejected: the provider refused the token.
        """
        connection = await self._connect(account.upstream)
        try:
            await _authenticate(connection, account.email, access_token)
        except UpstreamAuthRejected:
            connection.close()
            raise
        except UpstreamClosedEarly as error:
            raise UpstreamUnavailable(f"{account.upstream.host}: AUTH: {error}") from None
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect(self, upstream: Upstream) -> Connection:
        if "aiosmtplib" not in sys.modules:
            # For the first connection, not for the start; the event loop does not wait for it.
            await asyncio.to_thread(importlib.import_module, "aiosmtplib")
        import aiosmtplib

        client = aiosmtplib.SMTP(
            hostname=upstream.host,
            port=upstream.port,
            local_hostname=self.hostname,
            timeout=_CONNECT_SECONDS,
            use_tls=upstream.tls is TlsMode.IMPLICIT,
            # True requires it: a server that does not offer STARTTLS is refused, never downgraded.
            start_tls=upstream.tls is TlsMode.STARTTLS,
            tls_context=await self._tls_context(upstream),
        )
        try:
            await client.connect()
            greeting = await client.ehlo()
        except (aiosmtplib.SMTPException, OSError, ssl.SSLError) as error:
            client.close()
            raise _translated(upstream, error) from None
        except BaseException:
            client.close()
            raise
        transport = cast("asyncio.Transport", client.transport)
        connection = Connection(transport, _extensions(greeting.message))
        # Detach aiosmtplib from the transport, which it must no longer close.
        client.transport = client.protocol = None
        return connection

    async def _tls_context(self, upstream: Upstream) -> ssl.SSLContext | None:
        if upstream.tls is TlsMode.NONE:
            return None
        context = self._tls_contexts.get(upstream.ca_file)
        if context is None:
            try:
                # Reads the certificate authorities from disk, so not on the event loop.
                context = await asyncio.to_thread(
                    ssl.create_default_context, cafile=upstream.ca_file
                )
            except OSError as error:
                raise UpstreamInsecure(f"{upstream.ca_file}: {error}") from None
            context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
            self._tls_contexts[upstream.ca_file] = context
        return context


async def _authenticate(connection: Connection, mailbox: str, access_token: str) -> None:
    if "XOAUTH2" not in connection.dialogue.extensions.get("AUTH", "").upper().split():
        raise UpstreamAuthRejected(Reply(454, "4.7.0", ("The provider offers no XOAUTH2",)))
    response = sasl.xoauth2_response(mailbox, access_token)
    inline = b"AUTH XOAUTH2 " + response + b"\r\n"
    if len(inline) <= _MAX_COMMAND_BYTES:
        reply = await _ask(connection, inline)
    else:
        reply = await _ask(connection, b"AUTH XOAUTH2\r\n")
        if reply.code == 334:
            reply = await _ask(connection, response + b"\r\n")
    if reply.code == 334:
        # The challenge carries the error; the provider sends 535 once it is acknowledged.
        reply = await _ask(connection, b"\r\n")
    if reply.code != 235:
        raise UpstreamAuthRejected(_without_credentials(reply, access_token))


def _without_credentials(reply: Reply, access_token: str) -> Reply:
    """Return the reply without tokens, since servers without AUTH echo the whole line."""
    lines = (line.replace(access_token, "…") for line in reply.text)
    return replace(reply, text=tuple(without_long_words(line) for line in lines))


async def _ask(connection: Connection, line: bytes) -> Reply:
    return await connection.command(line, _AUTH_SECONDS)


def _extensions(ehlo_text: str) -> dict[str, str]:
    """Return the EHLO keywords with their parameters.

    Tolerates `AUTH=LOGIN` and Yahoo's `8 BITMIME`.
    """
    extensions: dict[str, str] = {}
    for line in ehlo_text.splitlines()[1:]:
        keyword, _, parameters = line.strip().replace("AUTH=", "AUTH ", 1).partition(" ")
        if keyword == "8" and parameters.upper() == "BITMIME":
            keyword, parameters = "8BITMIME", ""
        known = extensions.get(keyword.upper(), "")
        extensions[keyword.upper()] = f"{known} {parameters}".strip()
    return extensions


def _translated(upstream: Upstream, error: Exception) -> UpstreamError:
    import aiosmtplib

    where = f"{upstream.host}:{upstream.port}"
    causes = _chain(error)
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return UpstreamNotFound(f"{where}: host name does not resolve")
    if any(isinstance(cause, ssl.SSLError) for cause in causes) or "STARTTLS" in str(error):
        return UpstreamInsecure(f"{where}: {_tls_failure(upstream, causes)}")
    if isinstance(error, aiosmtplib.SMTPConnectResponseError | aiosmtplib.SMTPHeloError):
        if 400 <= error.code < 500:
            return UpstreamRejected(_greeting(error.code, error.message))
    elif isinstance(error, aiosmtplib.SMTPResponseException) and error.code > 0:
        return UpstreamInsecure(f"{where}: STARTTLS refused: {error.code} {error.message}")
    is_silent = isinstance(error, aiosmtplib.SMTPConnectTimeoutError) and any(
        isinstance(cause, aiosmtplib.SMTPReadTimeoutError) for cause in causes
    )
    may_expect_tls = is_silent and upstream.tls is not TlsMode.IMPLICIT
    return UpstreamUnavailable(f"{where}: {error}{_WAITS_FOR_TLS if may_expect_tls else ''}")


def _tls_failure(upstream: Upstream, causes: list[BaseException]) -> str:
    if upstream.tls is TlsMode.IMPLICIT and any(map(is_without_tls, causes)):
        return "the server greets in clear, not in TLS: upstream.tls must be starttls there"
    return str(causes[0])


def _greeting(code: int, message: str) -> Reply:
    """Return the `Reply` for aiosmtplib's form, which has the lines without their codes."""
    lines = message.splitlines() or [""]
    wire = "".join(f"{code}-{line}\r\n" for line in lines[:-1]) + f"{code} {lines[-1]}\r\n"
    return ReplyParser().feed(wire.encode())[0]


def _chain(error: BaseException | None) -> list[BaseException]:
    return [] if error is None else [error, *_chain(error.__cause__ or error.__context__)]
