"""The usual relay: an aiosmtpd handler for clients, a pool of aiosmtplib connections upstream.

Both libraries are used as their documentation shows, as in an afternoon's work. It connects to the
provider with TLS and logs in with XOAUTH2.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiosmtplib
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from bench.process.open_files import raise_open_file_limit
from bench.process.server_process import run, stop_signal, write_ready_file
from xoauth2_proxy.sandbox.state_directory import load_signing_key
from xoauth2_proxy.sandbox.tokens.mock_tokens import MockTokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_MAX_CONNECTIONS = 50  # per mailbox, as the proxy's for mock accounts
_MAX_MESSAGE_BYTES = 35_882_577  # the sandbox's
_BACKLOG = 1024


class ConnectionPool:
    """The open connections of one mailbox."""

    def __init__(self, mailbox: str, upstream: tuple[str, int], tls: ssl.SSLContext) -> None:
        self._mailbox = mailbox
        self._upstream = upstream
        self._tls = tls
        self._idle: list[aiosmtplib.SMTP] = []
        self._room = asyncio.Semaphore(_MAX_CONNECTIONS)

    @asynccontextmanager
    async def connection(self, tokens: MockTokens) -> AsyncIterator[aiosmtplib.SMTP]:
        """Yield a connection; close it after an error."""
        async with self._room:
            client = self._idle.pop() if self._idle else await self._open(tokens)
            try:
                yield client
            except BaseException:
                client.close()
                raise
            self._idle.append(client)

    async def _open(self, tokens: MockTokens) -> aiosmtplib.SMTP:
        host, port = self._upstream
        client = aiosmtplib.SMTP(hostname=host, port=port, start_tls=True, tls_context=self._tls)
        try:
            await client.connect()
            await client.auth_xoauth2(self._mailbox, tokens.mint(self._mailbox))
        except BaseException:
            client.close()
            raise
        return client


class NaiveRelay:
    """The aiosmtpd handler: authenticates clients and forwards their mail."""

    def __init__(
        self,
        passwords: dict[str, str],
        upstream: tuple[str, int],
        tls: ssl.SSLContext,
        tokens: MockTokens,
    ) -> None:
        self._passwords = passwords
        self._tokens = tokens
        self._pools = {mailbox: ConnectionPool(mailbox, upstream, tls) for mailbox in passwords}

    def authenticate(
        self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, login: object
    ) -> AuthResult:
        """Check the login against the local passwords."""
        if not isinstance(login, LoginPassword):
            return AuthResult(success=False, handled=False)
        mailbox, password = login.login.decode(), login.password.decode()
        if self._passwords.get(mailbox) != password:
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=mailbox)

    async def handle_DATA(  # aiosmtpd looks for this name
        self, _server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Forward the message and return the provider's reply."""
        pool = self._pools[str(session.auth_data)]
        try:
            async with pool.connection(self._tokens) as client:
                _, text = await client.sendmail(
                    envelope.mail_from or "", envelope.rcpt_tos, envelope.content or b""
                )
        except aiosmtplib.SMTPResponseException as error:
            return f"{error.code} {error.message}"
        except (aiosmtplib.SMTPException, OSError):
            return "451 4.4.1 The provider cannot be reached"
        return f"250 {text}"


async def _serve(arguments: argparse.Namespace) -> None:
    stop = stop_signal()
    host, _, port = arguments.upstream.rpartition(":")
    relay = NaiveRelay(
        json.loads(arguments.passwords.read_text()),
        (host, int(port)),
        ssl.create_default_context(cafile=arguments.ca_file),
        MockTokens(load_signing_key(arguments.state_dir)),
    )
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(
            relay,
            authenticator=relay.authenticate,
            auth_required=True,
            auth_require_tls=False,
            data_size_limit=_MAX_MESSAGE_BYTES,
            hostname="naive.invalid",
        ),
        "127.0.0.1",
        arguments.port,
        backlog=_BACKLOG,
    )
    bound_host, bound_port = server.sockets[0].getsockname()[:2]
    write_ready_file(arguments.ready_file, {"smtp": f"{bound_host}:{bound_port}"})
    await stop.wait()
    server.close()


def main() -> None:
    """Relay until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m bench.controls.naive", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--upstream", required=True, metavar="HOST:PORT")
    parser.add_argument("--ca-file", type=Path, required=True, help="trusted for the upstream")
    parser.add_argument("--state-dir", type=Path, required=True, help="the sandbox's")
    parser.add_argument("--passwords", type=Path, required=True, help="JSON: mailbox to password")
    parser.add_argument("--ready-file", type=Path, required=True)
    arguments = parser.parse_args()
    raise_open_file_limit()
    run(_serve(arguments))


if __name__ == "__main__":
    main()
