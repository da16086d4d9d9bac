"""Whether the hosts are found, can be reached, and are who they say: names, TCP, TLS, HTTP."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import urllib.request
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp

from xoauth2_proxy.accounts.accounts import TlsMode
from xoauth2_proxy.commands.doctor.context import NotNeeded, Trouble
from xoauth2_proxy.errors import TokenError
from xoauth2_proxy.network import is_loopback, is_without_tls
from xoauth2_proxy.oauth import discovery, endpoint
from xoauth2_proxy.smtp.protocol import MalformedReply, Reply, ReplyParser

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from xoauth2_proxy.accounts.accounts import Upstream
    from xoauth2_proxy.commands.doctor.context import DoctorContext

_SECONDS = 15.0  # for each wait on a host
_GREETING_SECONDS = 5.0  # then the port is tried with TLS
_SKEW_SECONDS = 300.0  # what Google and Microsoft tolerate in signed assertions, about
_ENDS_SOON_DAYS = 14

_OAUTH_ADDRESS = 'look at "oauth_token_url", "issuer" and "authority" of the account'
_PORTS = 'look at "upstream.port" and "upstream.tls": 587 is starttls, 465 is implicit'
_RESOLVER = "see whether this machine can look up names (/etc/resolv.conf)"


async def token_host_name(context: DoctorContext) -> str:
    """Look up the token host."""
    return await _addresses(*_token_host(context), _OAUTH_ADDRESS)


async def mail_host_name(context: DoctorContext) -> str:
    """Look up the mail host."""
    upstream = context.account.upstream
    return await _addresses(upstream.host, upstream.port, 'look at "upstream.host" of the account')


async def token_host_connection(context: DoctorContext) -> str:
    """Open a TCP connection to the token host."""
    return await _reached(*_token_host(context))


async def mail_host_connection(context: DoctorContext) -> str:
    """Open a TCP connection to the mail host."""
    upstream = context.account.upstream
    return await _reached(upstream.host, upstream.port)


async def token_host_tls(context: DoctorContext) -> str:
    """Check the token host's certificate."""
    host, port = _token_host(context)
    if urlsplit(context.token_url).scheme != "https":
        raise NotNeeded("plain HTTP to this machine")
    tls = await _tls_context(context.account.oauth.ca_file, '"ca_file"')
    async with _tls_trouble(host, '"ca_file"', _OAUTH_ADDRESS), asyncio.timeout(_SECONDS):
        _, writer = await asyncio.open_connection(host, port, ssl=tls)
    try:
        return _described(writer)
    finally:
        writer.transport.abort()  # closing TLS in order would take longer than this command


async def mail_host_tls(context: DoctorContext) -> str:
    """Check the mail host's certificate, and note what the server offers behind TLS."""
    upstream = context.account.upstream
    tls = None
    if upstream.tls is not TlsMode.NONE:
        tls = await _tls_context(upstream.ca_file, '"upstream.ca_file"')
    async with (
        _tls_trouble(upstream.host, '"upstream.ca_file"', _PORTS),
        asyncio.timeout(4 * _SECONDS),
        _greeted(upstream, tls, context.given.hostname) as (writer, context.extensions),
    ):
        described = _described(writer)
    if tls is None:
        raise NotNeeded("TLS is switched off: upstream.tls is none")
    return described


async def token_host_answer(context: DoctorContext) -> str:
    """Ask the token host for anything at all; its date tells whether our clock is right."""
    url = context.token_url
    if not url:
        raise NotNeeded("no token endpoint is asked")
    if context.issuer:
        await asyncio.to_thread(_discover, context)
    tls = await _tls_context(context.account.oauth.ca_file, '"ca_file"')
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    connector = aiohttp.TCPConnector(ssl=tls)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            http.get(url, proxy=_proxy_for(url) or None, allow_redirects=False) as response,
        ):
            date = response.headers.get("Date", "")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise Trouble(
            f"no HTTP answer ({type(error).__name__})",
            "see whether a firewall or an HTTP proxy stands between, and HTTPS_PROXY",
        ) from None
    return _clock_against(date, context)


def _discover(context: DoctorContext) -> None:
    """Learn the token endpoint from the issuer's metadata, in a thread."""
    session = endpoint.open_session(context.account.oauth.ca_file)
    try:
        context.token_endpoint = discovery.discover(session, context.issuer)["token_endpoint"]
    except TokenError as error:
        raise Trouble(
            f"the issuer's metadata are no good: {error}", 'look at "issuer" of the account'
        ) from None
    finally:
        session.close()


def _clock_against(date: str, context: DoctorContext) -> str:
    found = "metadata are good, " if context.issuer else ""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return f"{found}it answers"
    ahead_seconds = context.clock.time() - theirs
    if abs(ahead_seconds) > _SKEW_SECONDS:
        raise Trouble(
            f"this machine's clock is {abs(ahead_seconds):.0f} s "
            f"{'ahead' if ahead_seconds > 0 else 'behind'}",
            "set the clock, for example with: timedatectl set-ntp true",
        )
    return f"{found}it answers, and the clocks agree"


def _token_host(context: DoctorContext) -> tuple[str, int]:
    """Return host and port. Raises `NotNeeded` where an HTTP proxy stands between."""
    if proxy := _proxy_for(context.token_url):
        parts = urlsplit(proxy)
        raise NotNeeded(f"through the HTTP proxy {parts.hostname}:{parts.port or 80}")
    return context.token_host


def _proxy_for(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or is_loopback(host) or urllib.request.proxy_bypass(host):
        return ""
    return urllib.request.getproxies().get(parts.scheme, "")


async def _addresses(host: str, port: int, remedy: str) -> str:
    try:
        async with asyncio.timeout(_SECONDS):
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if isinstance(error, TimeoutError):
            raise Trouble(f"the name server does not answer for {host}", _RESOLVER) from None
        raise Trouble(
            f"{host} does not resolve", f"{remedy}; if it is right: {_RESOLVER}"
        ) from None
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    more = f" and {len(addresses) - 3} more" if len(addresses) > 3 else ""
    return f"{host}: {', '.join(addresses[:3])}{more}"


async def _reached(host: str, port: int) -> str:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise Trouble(
            f"{host}:{port} does not answer",
            f"let outgoing TCP port {port} through the firewall; many networks block it",
        ) from None
    except OSError as error:
        is_refused = error.errno == errno.ECONNREFUSED or "refused" in str(error).lower()
        why = "refuses" if is_refused else "cannot be reached"
        raise Trouble(
            f"{host}:{port} {why}",
            f"look at host and port, and let outgoing TCP port {port} through the firewall",
        ) from None
    peer = writer.get_extra_info("peername")
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return f"{peer[0]}:{peer[1]}"


async def _tls_context(ca_file: Path | None, key: str) -> ssl.SSLContext:
    try:
        # Reads the certificate authorities from disk.
        context = await asyncio.to_thread(ssl.create_default_context, cafile=ca_file)
    except OSError as error:
        raise Trouble(
            f"{ca_file} cannot be read ({type(error).__name__})", f"look at {key} of the account"
        ) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996
    return context


@asynccontextmanager
async def _tls_trouble(host: str, key: str, address: str) -> AsyncIterator[None]:
    """Turn errors into `Trouble`; `address` says where another host is set."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Trouble(
            f"the certificate of {host} is not trusted: {error.verify_message}",
            f"if {host} is right, something stands between (a firewall or virus scanner that opens "
            f"TLS), or it has an authority of its own: name that in {key}",
        ) from None
    except ssl.SSLError as error:
        if is_without_tls(error):
            raise Trouble(f"{host} answers in clear where TLS is expected", address) from None
        why = error.reason or "the handshake failed"
        raise Trouble(f"no TLS with {host}: {why}", address) from None
    except TimeoutError:
        raise Trouble(f"{host} does not answer in time", address) from None
    except (OSError, EOFError):
        raise Trouble(f"{host} hung up", address) from None


@asynccontextmanager
async def _greeted(
    upstream: Upstream, tls: ssl.SSLContext | None, hostname: str
) -> AsyncIterator[tuple[asyncio.StreamWriter, dict[str, str]]]:
    """Yield a connection after EHLO, behind TLS if there is any, and the server's extensions.

    A port that is silent because it expects TLS from the first octet is told from one that hangs.

    The proxy's own way to a server is `upstream.connector`, which keeps nothing of the certificate.

    Raises: `Trouble`, `OSError`, `ssl.SSLError`, `EOFError`.
    """
    reader, writer = await asyncio.open_connection(
        upstream.host, upstream.port, ssl=tls if upstream.tls is TlsMode.IMPLICIT else None
    )
    parser = ReplyParser()

    async def expect(code: int, what: str) -> Reply:
        while line := await reader.readline():
            try:
                replies = parser.feed(line)
            except MalformedReply:
                raise Trouble("what answers there is no mail server", _PORTS) from None
            if replies and replies[0].code == code:
                return replies[0]
            if replies:
                raise Trouble(f"{what}: {replies[0]}", "try again later")
        raise EOFError

    async def hello() -> dict[str, str]:
        writer.write(f"EHLO {hostname}\r\n".encode())
        reply = await expect(250, "EHLO is answered")
        words = (line.partition(" ") for line in reply.text[1:])
        return {keyword.upper(): parameters for keyword, _, parameters in words}

    try:
        greeting = asyncio.ensure_future(expect(220, "the server's greeting is"))
        try:
            is_silent = not (await asyncio.wait([greeting], timeout=_GREETING_SECONDS))[0]
            if is_silent and upstream.tls is not TlsMode.IMPLICIT:
                await _suspect_implicit_tls(upstream)
            await greeting
        finally:
            greeting.cancel()
        extensions = await hello()
        if upstream.tls is TlsMode.STARTTLS and tls is not None:
            if "STARTTLS" not in extensions:
                raise Trouble("the server offers no STARTTLS", _PORTS)
            writer.write(b"STARTTLS\r\n")
            await expect(220, "STARTTLS is answered")
            await writer.start_tls(tls, server_hostname=upstream.host)
            extensions = await hello()
        yield writer, extensions
        writer.write(b"QUIT\r\n")
    finally:
        writer.transport.abort()


async def _suspect_implicit_tls(upstream: Upstream) -> None:
    """Raise `Trouble` if the port answers a ClientHello. Nothing else is sent there."""
    try:
        async with asyncio.timeout(_SECONDS):
            # It trusts no authority: a certificate, which it must refuse, is answer enough.
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            _, writer = await asyncio.open_connection(upstream.host, upstream.port, ssl=tls)
    except ssl.SSLCertVerificationError:
        raise Trouble(
            f"port {upstream.port} begins with TLS, and upstream.tls is {upstream.tls}",
            'set "upstream.tls" of the account to "implicit"',
        ) from None
    except OSError:  # includes TimeoutError and other failures of TLS
        return
    writer.transport.abort()


def _described(writer: asyncio.StreamWriter) -> str:
    session = writer.get_extra_info("ssl_object")
    if session is None:
        return ""
    certificate: dict[str, Any] = session.getpeercert() or {}
    ends = ssl.cert_time_to_seconds(certificate["notAfter"])
    days = (datetime.fromtimestamp(ends, UTC) - datetime.now(UTC)).days
    issuer = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    by = issuer.get("organizationName") or issuer.get("commonName") or "an unnamed authority"
    soon = ", which is soon" if days < _ENDS_SOON_DAYS else ""
    return f"{session.version()}, certificate by {by}, {days} days left{soon}"
