"""The steps of `xoauth2-proxy doctor`, in the order in which a message's way depends on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xoauth2_proxy.commands.doctor import configuration, mail, network, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.commands.doctor.context import DoctorContext

    Step = Callable[[DoctorContext], Awaitable[str]]

STEPS: tuple[tuple[str, Step], ...] = (
    ("configuration", configuration.configuration),
    ("stored sign-in", configuration.stored_grant),
    ("name of the token host", network.token_host_name),
    ("name of the mail host", network.mail_host_name),
    ("connection to the token host", network.token_host_connection),
    ("connection to the mail host", network.mail_host_connection),
    ("TLS of the token host", network.token_host_tls),
    ("TLS of the mail host", network.mail_host_tls),
    ("answer of the token host", network.token_host_answer),
    ("access token", tokens.access_token),
    ("what the token says", tokens.claims),
    ("greeting and extensions", mail.extensions),
    ("login", mail.login),
    ("test message", mail.test_message),
)
