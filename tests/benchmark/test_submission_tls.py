from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP, AuthResult

from bench.submission import Endpoint, Login, Mechanism, Submission, SubmissionFailed, Tls
from tests.benchmark.runs import MAILBOX

if TYPE_CHECKING:
    from collections.abc import Iterator


def accept(*_: object) -> AuthResult:
    return AuthResult(success=True)


class TlsController(Controller):
    """aiosmtpd on a free loopback port, with STARTTLS or TLS from the start."""

    def __init__(self, context: ssl.SSLContext, tls: Tls) -> None:
        self._tls = tls
        self._context = context
        super().__init__(
            Sink(),
            hostname="127.0.0.1",
            port=0,
            ssl_context=context if tls is Tls.IMPLICIT else None,
        )

    def factory(self) -> SMTP:
        """Return the protocol of one connection."""
        return SMTP(
            self.handler,
            authenticator=accept,
            auth_require_tls=False,
            tls_context=self._context if self._tls is Tls.STARTTLS else None,
        )

    def _trigger_server(self) -> None:
        # The base class would connect to port 0; the real port is known only now.
        self.port = self.server.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=[Tls.STARTTLS, Tls.IMPLICIT])
def endpoint(request: pytest.FixtureRequest, authority: trustme.CA) -> Iterator[Endpoint]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    controller = TlsController(context, request.param)
    controller.start()
    try:
        yield Endpoint("127.0.0.1", controller.port, request.param)
    finally:
        controller.stop()


def submission(endpoint: Endpoint, context: ssl.SSLContext) -> Submission:
    protected = Endpoint(endpoint.host, endpoint.port, endpoint.tls, context)
    return Submission(protected, Login(MAILBOX, Mechanism.PLAIN, lambda: "password"))


async def test_mail_goes_over_tls(endpoint: Endpoint, authority: trustme.CA) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    client = submission(endpoint, context)
    await client.open()
    assert await client.send(MAILBOX, "recipient@outlook.com", b"Subject: x\r\n\r\n") > 0
    await client.close()


async def test_a_certificate_nobody_vouches_for_is_refused(endpoint: Endpoint) -> None:
    client = submission(endpoint, ssl.create_default_context())
    with pytest.raises(SubmissionFailed, match="tls failed"):
        await client.open()
    assert not client.is_open
