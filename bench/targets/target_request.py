"""The request for the relay to measure, in plain values, and the TLS context that it asks for."""

from __future__ import annotations

import ssl
from collections.abc import Mapping  # noqa: TC003 - a dataclass field's type
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.client.endpoint import Tls

if TYPE_CHECKING:
    from pathlib import Path

    from bench.targets.mailboxes import BenchMailbox

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 2525
DEFAULT_ADMIN_URL = "http://127.0.0.1:9090"


ELSEWHERE = "the mail goes to the --upstream, which cannot be asked"


class TargetError(Exception):
    """The target is missing or may not be measured; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateProxyOptions:
    """The additional settings of a private proxy."""

    mailboxes: tuple[BenchMailbox, ...] = ()  # empty: the four mock mailboxes
    provider: Mapping[str, object] | None = None  # settings of a sandbox; None: the proxy's own
    limits: Mapping[str, object] = field(default_factory=dict)  # per mailbox; with such a sandbox
    is_kept: bool = False  # its directory is kept and told
    has_sandbox: bool = True  # False: the mailboxes that are added bring their own mail server


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRequest:
    """The user's choice of the relay; None if not given."""

    host: str | None = None
    port: int | None = None
    admin_url: str | None = None
    tls: Tls = Tls.NONE
    ca_file: Path | None = None  # None: the system's certificate authorities
    allow_remote: bool = False
    may_start_private: bool = False  # a private proxy may replace the default target
    is_private: bool = False  # it must be a private one
    private_options: PrivateProxyOptions = PrivateProxyOptions()
    has_login: bool = True  # a password or token is sent
    mail_goes_elsewhere: bool = False  # to another mail server than the proxy's sandbox
    state_dir: Path  # where the running proxy keeps the key of its mock tokens

    @property
    def is_default(self) -> bool:
        """Whether no target was given."""
        return self.host is None and self.port is None


def tls_context(request: TargetRequest) -> ssl.SSLContext | None:
    """Return the TLS context of connections to the target; None without TLS.

    Raises:
        TargetError: the certificates to trust cannot be used.
    """
    if request.tls is Tls.NONE:
        return None
    try:
        return ssl.create_default_context(cafile=request.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise TargetError(f"{request.ca_file} holds no usable certificates: {error}") from error
