"""The steps of `xoauth2-proxy doctor`, in the order of a message's way, and what each needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xoauth2_proxy.commands.doctor import configuration, mail, network, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from xoauth2_proxy.commands.doctor.context import DoctorContext


@dataclass(frozen=True, slots=True)
class Step:
    """One examination, and the steps without which it can find nothing out."""

    name: str
    take: Callable[[DoctorContext], Awaitable[str]]  # returns the finding
    needs: tuple[str, ...] = ()


STEPS = (
    Step("configuration", configuration.configuration),
    Step("stored sign-in", configuration.stored_grant),
    Step("name of the token host", network.token_host_name),
    Step("name of the mail host", network.mail_host_name),
    Step(
        "connection to the token host", network.token_host_connection, ("name of the token host",)
    ),
    Step("connection to the mail host", network.mail_host_connection, ("name of the mail host",)),
    Step("TLS of the token host", network.token_host_tls, ("connection to the token host",)),
    Step("TLS of the mail host", network.mail_host_tls, ("connection to the mail host",)),
    Step("answer of the token host", network.token_host_answer, ("TLS of the token host",)),
    Step("access token", tokens.access_token, ("stored sign-in", "answer of the token host")),
    Step("what the token says", tokens.claims, ("access token",)),
    Step("greeting and extensions", mail.extensions, ("TLS of the mail host",)),
    Step("login", mail.login, ("what the token says", "greeting and extensions")),
    Step("test message", mail.test_message, ("login",)),
)
